"""The eigensolver is right, refuses what is not finite, and lets other threads run meanwhile."""

from __future__ import annotations

import ast
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from model.electronic.eigen import eigh, eigvalsh

ROOT = Path(__file__).resolve().parents[2]
FITTED_ONCE = {"model/integrals/two_centre_fit.py"}
"""Run by training alone."""
BLOCKS = {"block_diag"}
"""What of scipy.linalg computes nothing."""


@pytest.mark.parametrize("imaginary", [0.0, 1.0])
def test_it_gives_what_scipy_gives(rng: np.random.Generator, imaginary: float) -> None:
    matrix = rng.normal(size=(40, 40)) + 1j * imaginary * rng.normal(size=(40, 40))
    matrix = matrix + matrix.conj().T
    matrix = matrix if imaginary else matrix.real
    values, vectors = eigh(matrix)
    np.testing.assert_allclose(values, scipy.linalg.eigvalsh(matrix), atol=1e-12)
    np.testing.assert_allclose(eigvalsh(matrix), values, atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-11)


@pytest.mark.parametrize("solve", [eigh, eigvalsh])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(solve, wrong: float) -> None:
    with pytest.raises(ValueError, match="infs or NaNs"):
        solve(np.array([[1.0, wrong], [wrong, 1.0]]))


@pytest.mark.parametrize("solve", [eigh, eigvalsh])
def test_other_threads_run_meanwhile(rng: np.random.Generator, solve) -> None:
    """Another thread gets a good part of the processor time that a matrix takes; beside scipy's solver it gets a fiftieth."""
    matrix = rng.normal(size=(800, 800))
    matrix = matrix + matrix.T
    running, over = threading.Event(), threading.Event()

    def work() -> None:
        while not over.is_set():
            running.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        running.wait()
        clock = time.pthread_getcpuclockid(thread.ident)
        theirs, own = time.clock_gettime(clock), time.thread_time()
        solve(matrix)
        theirs, own = time.clock_gettime(clock) - theirs, time.thread_time() - own
    finally:
        over.set()
        thread.join()
    assert theirs > 0.2 * own


def test_what_is_served_uses_no_solver_that_keeps_the_lock() -> None:
    for path in (*(ROOT / "model").rglob("*.py"), *(ROOT / "service").rglob("*.py")):
        if str(path.relative_to(ROOT)) in FITTED_ONCE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module == "scipy.linalg":
                assert set(names) <= BLOCKS, path
            assert "scipy.linalg" not in names, path
