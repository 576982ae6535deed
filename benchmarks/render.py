"""Writes docs/benchmarks.md from what was recorded in benchmarks/results/, one JSON file a measurement.

``python benchmarks/render.py`` writes the page, ``--check`` says whether it is up to date. Only the newest figures are kept:
a new measurement replaces the old file, and what is still worth reading of the old one goes to docs/history/ as text.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from recorded import RESULTS, Figure, Result, as_markdown, markdown_rows

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
LINE_LENGTH: Final = 126

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "The guess": (
        "guess_test",
        "guess_ood",
        "guess_rings",
        "guess_term",
        "g2_molecules",
        "geometry_jobs",
        "guess_settings",
        "guess_limits",
        "expectation",
        "krks_start",
        "demo",
    ),
    "What a prediction costs": ("prediction_parts", "assembly", "large_cells", "large_cell_job", "crystal_requests"),
    "Networks": ("backbones", "backbones_batches", "backbones_memory", "crystal_networks", "second_stage", "exported"),
    "Training": ("two_processes",),
    "The service under load": (
        "memory_peak",
        "little_memory",
        "soak",
        "attacks",
        "batching",
        "threads",
        "ray_serve",
        "bulk_prediction",
        "thousand_gpus",
    ),
}
"""The page's order; a file that no section names is an error."""

HEAD: Final = """# Benchmarks

Today's figures, rendered from [benchmarks/results/](../benchmarks/results) by `python benchmarks/render.py`: change them
there. Ratios are of one run; absolute times are of a shared machine and repeat to 20 % at best. Earlier figures are in
[history/benchmarks.md](history/benchmarks.md), curves of past training runs in [history/training.md](history/training.md).
"""


def read_results(folder: Path = RESULTS) -> dict[str, Result]:
    """Every recorded result by the name of its file.

    Raises:
        ValueError: a file that is not a result, or that the page does not show, or one that it wants and is not there.
    """
    results = {path.stem: Result.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
    wanted = {name for names in SECTIONS.values() for name in names}
    if wanted != set(results):
        raise ValueError(f"SECTIONS and {folder.name}/ differ in: {', '.join(sorted(wanted ^ set(results)))}")
    return results


def render(results: Mapping[str, Result]) -> str:
    """The page."""
    parts = [HEAD]
    for section, names in SECTIONS.items():
        parts += [f"## {section}\n", *(_result(results[name]) for name in names)]
    return "\n".join(parts)


def _result(result: Result) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    parts = [f"### {result.title}", _filled(f"`{result.command}`" + (f": {result.text}" if result.text else ""))]
    parts.append(_filled(f"{result.date}; {result.machine}; {versions}. Spread: {result.spread}."))
    parts += [as_markdown(table) for table in result.tables]
    if result.figures:
        parts.append(_figures(result.figures))
    if result.notes:
        parts.append("\n".join(_filled(f"* {note}", indent="  ") for note in result.notes))
    return "\n\n".join(parts) + "\n"


def _figures(figures: list[Figure]) -> str:
    rows = [["figure", "value"], ["---"] * 2]
    for figure in figures:
        unit = f" {figure.unit}" if figure.unit else ""
        spread = f" ({figure.spread[0]:g} to {figure.spread[1]:g})" if figure.spread else ""
        rows.append([figure.name, f"{figure.value}{unit}{spread}"])
    return markdown_rows(rows)


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, LINE_LENGTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 where the page is out of date"
    )
    check = parser.parse_args().check
    page = render(read_results())
    if not check:
        PAGE.write_text(page)
    elif PAGE.read_text() != page:
        print(
            "docs/benchmarks.md is not what benchmarks/results/ says; run: python benchmarks/render.py", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
