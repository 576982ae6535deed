"""What ``python -m service`` sets before the numerical libraries are imported."""

from __future__ import annotations

import os

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
