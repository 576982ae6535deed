"""The README's table of settings is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_settings_is_the_recorded_one() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "guess_settings.json").read_text())["tables"][0]["rows"]
    expected = [f"| {r[0]} | {r[1]} | {r[2]} | {r[3]} | {r[4]:.2f} | {r[6]} |" for r in rows]
    assert len(expected) >= 12
    lines = (ROOT / "README.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| setting | molecules |")) + 2
    assert lines[start : start + len(expected)] == expected
    assert not lines[start + len(expected)]
