"""The error table covers the domain tree; settings refuse nonsense; names compare as PySCF compares them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import model.errors
from service.errors import ERROR_TABLE, ServiceError, problem_of
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def leaves(cls: type[Exception]) -> list[type[Exception]]:
    return [leaf for sub in cls.__subclasses__() for leaf in leaves(sub)] or [cls]


@pytest.mark.parametrize(
    "cls", leaves(model.errors.StructureError) + leaves(model.errors.DomainError) + leaves(model.errors.FormatError)
)
def test_every_error_of_an_input_has_its_own_code_and_no_server_status(cls):
    problem = problem_of(cls("what came", hint="what to do", allowed=[1], field="numbers"), "id")
    # what has no code of its own in the contract is an invalid request
    assert problem.body["code"] == (cls.code if cls.code in ERROR_TABLE else "invalid_request")
    assert 400 <= problem.status < 500
    assert problem.body["hint"] == "what to do"
    assert problem.body["field"] == "numbers"


def test_inner_nodes_of_the_tree_are_invalid_requests():
    assert problem_of(model.errors.StructureError("x"), "id").body["code"] == "invalid_request"


@pytest.mark.parametrize("error", [RuntimeError("/etc/secret"), model.errors.CheckpointError("/srv/weights")])
def test_the_servers_own_errors_say_nothing_of_their_cause(error):
    problem = problem_of(error, "id-1")
    assert problem.status == 500
    assert problem.body["request_id"] == "id-1"
    assert str(error) not in str(problem.body)


def test_a_code_outside_the_table_cannot_be_raised():
    with pytest.raises(KeyError):
        ServiceError("made_up", "x")
    assert all(row.status >= 400 for row in ERROR_TABLE.values())


def test_settings_come_from_prefixed_variables(monkeypatch):
    monkeypatch.setenv("TRACEGRAD_MAX_ATOMS", "17")
    monkeypatch.setenv("MAX_ATOMS", "18")
    assert Settings().max_atoms == 17
    assert Settings(max_atoms=5).max_atoms == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_ATOMS", "0"), ("PORT", "70000"), ("DEVICE", "cuda:x"), ("LOG_LEVEL", "loud"), ("REQUEST_TIMEOUT_S", "-1")],
)
def test_settings_out_of_range_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"TRACEGRAD_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("service.settings, service.schemas.requests, service.schemas.responses", ["torch", "ase", "pyscf", "numpy"]),
        ("service.app, service.http.openapi", ["torch", "e3nn", "ase", "pyscf"]),
        ("service.structures.worker, model.structure_files.read", ["torch", "pyscf", "fastapi"]),
    ],
)
def test_cheap_modules_stay_cheap(modules, absent):
    code = f"import sys, {modules}\nprint([name for name in {absent} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
