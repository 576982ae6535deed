"""What ``python -m service`` sets before the numerical libraries are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.__main__ import prepare_environment

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*THREADS, "PYSCF_CONFIG_FILE"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_threads_that_wait_for_each_other_do_not_spin():
    prepare_environment()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 1 <= int(os.environ["OMP_NUM_THREADS"]) <= len(os.sched_getaffinity(0))


def test_what_the_operator_has_set_stays(monkeypatch):
    for name in THREADS:
        monkeypatch.setenv(name, "7")
    prepare_environment()
    assert [os.environ[name] for name in THREADS] == ["7"] * len(THREADS)


def test_pyscf_reads_our_configuration_and_no_other(monkeypatch):
    monkeypatch.setenv("PYSCF_CONFIG_FILE", "/tmp/other.py")
    prepare_environment()
    assert os.environ["PYSCF_CONFIG_FILE"].endswith("service/pyscf_conf.py")


def test_what_is_there_from_the_start_is_not_looked_through_again() -> None:
    """By the collector of cycles, which stops every thread; in a process of its own, since it is for good."""
    code = (
        "import gc\n"
        "from service.__main__ import keep_from_collector\n"
        "kept = [[] for _ in range(1000)]\n"
        "keep_from_collector()\n"
        "looked_at = {id(each) for each in gc.get_objects()}\n"
        "assert not looked_at.intersection(map(id, kept))\n"
        "new = []\n"
        "assert any(each is new for each in gc.get_objects())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=True)
