"""SCF figures by the published definitions, on logs made by hand and on one real run; the store of baselines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pyscf import dft

from model.integrals.pyscf_molecule import build_mole
from training.data.sources import Frame
from training.evaluate.scf import Baselines, ScfComparison, ScfRun, ScfTask, compare_scf, run_scf
from training.evaluate.summary import scf_ratios

WATER = 4
"""Index of H2O's first frame in the tiny training set."""


def made(cycles: int, log: tuple[float, ...] = (), seconds: float = 10.0) -> ScfRun:
    return ScfRun(cycles, cycles + 2, seconds, -1.0, True, log)


def compared(minao: ScfRun, guess: ScfRun, level: float = 100.0, **others: ScfRun) -> ScfComparison:
    return ScfComparison("a", 0, minao, guess, 1.0, level, others)


def test_ratios_of_known_runs() -> None:
    better = dataclasses.replace(made(5, seconds=4.0), energy=-1.0 + 1e-9)
    runs = [
        compared(made(10), better),
        compared(made(8), dataclasses.replace(better, cycles=8, fock_builds=10)),
        compared(made(6), dataclasses.replace(better, cycles=8, fock_builds=10)),
    ]
    values = scf_ratios(runs, "minao", timed=True)
    assert values["cycles_ratio"] == pytest.approx(21 / 24)
    assert values["cycles_ratio_mean"] == pytest.approx((0.5 + 1 + 8 / 6) / 3)
    assert values["fock_builds_ratio"] == pytest.approx(27 / 30)
    assert (values["fock_builds_minao"], values["fock_builds_guess"]) == (10.0, 9.0)
    assert (values["share_worse"], values["share_better"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert values["cycles_worst_difference"] == 2
    assert values["cpu_seconds_ratio"] == pytest.approx(15 / 30), "the guess's own cost is counted"
    assert values["energy_worst_difference_hartree"] == pytest.approx(1e-9, rel=1e-3)
    assert "cpu_seconds_ratio" not in scf_ratios(runs, "minao", timed=False)
    assert "error_level_ratio_minao" not in values, "no log, no error level"
    assert values["error_level_left_out_minao"] == 3


def test_published_ratios_count_cycles_from_zero() -> None:
    """QH9's script: cycle numbers of PySCF's callback, which start at 0; mean and population deviation."""
    first = compared(made(11, (900.0, 300.0, 99.0, 50.0, *[1.0] * 7)), made(6))
    second = compared(made(9, (90.0, *[1.0] * 8)), made(5))
    values = scf_ratios([first, second], "minao", timed=False)
    assert values["achieved_ratio_minao"] == pytest.approx((5 / 10 + 4 / 8) / 2)
    assert values["optimal_ratio_minao"] == pytest.approx((1 / 10 + 1 / 8) / 2)
    levels = [2 / 10, 0 / 8]
    assert values["error_level_ratio_minao"] == pytest.approx(np.mean(levels))
    assert values["error_level_ratio_minao_std"] == pytest.approx(np.std(levels))
    assert "error_level_left_out_minao" not in values


def test_a_level_never_reached_is_left_out_and_counted() -> None:
    never = compared(made(3, (500.0, 400.0, 300.0)), made(2))
    reached = compared(made(3, (500.0, 400.0, 30.0)), made(2))
    values = scf_ratios([never, reached], "minao", timed=False)
    assert values["error_level_ratio_minao"] == 1.0
    assert values["error_level_left_out_minao"] == 1
    at_once = scf_ratios([compared(made(1), made(1))], "minao", timed=False)
    assert "achieved_ratio_minao" not in at_once, "nothing to divide by"


def test_other_guesses_have_names_of_their_own() -> None:
    runs = [compared(made(10), made(5), 100.0, **{"1e": made(21, (1e4, 1e3, *[1.0] * 19), seconds=20.0)})]
    values = scf_ratios(runs, "1e", timed=True)
    assert (values["cycles_1e"], values["cycles_ratio_1e"]) == (21.0, pytest.approx(5 / 21))
    assert values["achieved_ratio_1e"] == pytest.approx(4 / 20)
    assert values["error_level_ratio_1e"] == pytest.approx(2 / 20)
    assert values["cpu_seconds_ratio_1e"] == pytest.approx(11 / 20)
    assert not {"cycles_ratio", "share_worse", "cpu_seconds_ratio"} & set(values), "minao's keys stay minao's"


def test_the_log_of_a_run_is_pyscfs(tiny_frames: list[Frame]) -> None:
    """Oracle: a second RKS whose callback writes down the cycle number and the Fock matrix's distance."""
    frame = tiny_frames[WATER]
    mole = build_mole(frame.structure, "def2-svp")
    found = run_scf(mole, "b3lyp", None, guess="1e", fock=frame.fock)
    log: dict[int, float] = {}
    oracle = dft.RKS(mole, xc="b3lyp")
    oracle.init_guess = "1e"
    oracle.callback = lambda scope: log.update({scope["cycle"]: float(np.mean(np.abs(scope["fock"] - frame.fock)))})
    oracle.kernel()
    assert found.published_cycles == max(log) == oracle.cycles - 1
    assert found.fock_builds == found.cycles + 2
    assert found.fock_errors == pytest.approx([1e6 * log[cycle] for cycle in sorted(log)], rel=1e-6)
    level = 1000.0
    assert found.cycles_to(level) == min(cycle for cycle, error in log.items() if 1e6 * error < level)
    assert found.cycles_to(0.0) is None
    assert found.fock_errors[-1] < 10.0 < found.fock_errors[0], "it converges to the label"


def test_known_runs_are_not_repeated(tiny_frames: list[Frame]) -> None:
    frame = tiny_frames[2]
    known = {"minao": made(77), "1e": made(78)}
    density = dft.RKS(build_mole(frame.structure, "def2-svp")).get_init_guess()
    found = compare_scf(ScfTask(frame, density, 0.5, 12.0, known), "b3lyp", "def2-svp", ("minao", "1e"))
    assert (found.baseline("minao"), found.baseline("1e")) == (known["minao"], known["1e"])
    assert (found.guess_seconds, found.error_level) == (0.5, 12.0)
    assert found.guess.converged


def test_baselines_of_an_older_file_are_kept(tiny_frames: list[Frame], tmp_path: Path) -> None:
    """The first files knew minao alone, and no log: their keys and entries stay valid beside new ones."""
    path = tmp_path / "baselines.json"
    frame = tiny_frames[WATER]
    key = Baselines(None, "b3lyp def2-svp").key(frame)
    old = {"cycles": 9, "fock_builds": 11, "seconds": 2.5, "energy": -76.0, "converged": True}
    path.write_text(json.dumps({key: old}))
    known = Baselines(path, "b3lyp def2-svp")
    assert known.get(frame) == ScfRun(9, 11, 2.5, -76.0, True)
    assert known.known(frame, ("minao", "1e")) == {"minao": known.get(frame)}
    run = made(15, (3.0, 2.0))
    known.put(frame, run, "1e")
    again = Baselines(path, "b3lyp def2-svp")
    assert again.known(frame, ("minao", "1e")) == {"minao": ScfRun(9, 11, 2.5, -76.0, True), "1e": run}
    assert Baselines(path, "pbe def2-svp").get(frame) is None
    assert again.get(tiny_frames[0]) is None
