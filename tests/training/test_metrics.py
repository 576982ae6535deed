"""The table of metrics: its page says the same, its names are the public ones, and a figure that no frame has is left out."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from training.evaluate.crystal_metrics import CRYSTAL_METRICS
from training.evaluate.metrics import METRICS, Split, measure, render
from training.evaluate.molecules import FrameErrors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def frame(seed: int, **changes: object) -> FrameErrors:
    """A structure with a figure of its own in every field."""
    rng = np.random.default_rng(seed)
    values: dict[str, object] = {}
    for field in fields(FrameErrors):
        kind = str(field.type)
        values[field.name] = (
            f"m{seed}" if kind == "str" else bool(seed % 2) if kind == "bool" else 1 + int(rng.integers(9))
            if kind == "int" else float(rng.normal())
        )  # fmt: skip
    return FrameErrors(**(values | changes))  # type: ignore[arg-type]


def test_the_page_lists_every_key() -> None:
    """Run ``training.evaluate.metrics.render`` and put its table between the marks."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition("<!-- metrics -->\n")[2].partition("\n<!-- /metrics -->")[0] == render()
    own = text.partition("<!-- crystal metrics -->\n")[2].partition("\n<!-- /crystal metrics -->")[0]
    assert own == render(CRYSTAL_METRICS)


def test_names_are_unique_and_say_their_unit() -> None:
    for table in (METRICS, CRYSTAL_METRICS):
        names = [metric.name for metric in table]
        assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.meaning
        assert metric.name.endswith("_uEh") == (metric.unit == "µEh")
        assert ("_percent" in metric.name) == (metric.unit == "%")


def test_figures_are_what_their_names_say() -> None:
    """Oracle: NumPy on the fields, by the definitions of docs/metrics.md."""
    frames = [frame(seed) for seed in range(5)]
    found = measure(Split(frames, None))
    assert (found["frames"], found["molecules"]) == (5, 5)
    assert found["hamiltonian_mae_uEh"] == pytest.approx(np.mean([f.hamiltonian for f in frames]))
    assert found["gap_p95_uEh"] == pytest.approx(np.percentile(np.abs([f.gap for f in frames]), 95))
    assert found["lumo_median_uEh"] == pytest.approx(np.median(np.abs([f.lumo for f in frames])))
    assert found["density_exact_max"] == max(f.density_exact for f in frames)
    assert found["protected_rate"] == pytest.approx(0.4)
    densities = [f.density_minao / np.sqrt(f.occupied) for f in frames if f.density_minao is not None]
    assert found["density_minao_per_electron"] == pytest.approx(np.mean(densities))
    assert found["prediction_ms_median"] == pytest.approx(np.median([f.prediction_ms for f in frames]))


def test_a_figure_that_one_structure_lacks_is_left_out() -> None:
    whole = [frame(0), frame(1)]
    lacking = [whole[0], replace(whole[1], hamiltonian_reference=None, density_reference=None)]
    gone = set(measure(Split(whole, None))) - set(measure(Split(lacking, None)))
    assert gone == {"hamiltonian_reference_mae_uEh", "density_reference", "density_reference_per_electron"}


def test_figures_by_entry_need_the_map_of_shells() -> None:
    missing = {metric.name for metric in METRICS} - set(measure(Split([frame(0)], None)))
    assert missing == {
        "hamiltonian_mae_entries_uEh",
        "hamiltonian_diagonal_mae_entries_uEh",
        "hamiltonian_off_diagonal_mae_entries_uEh",
        "challenging_block_mae_uEh",
    }
