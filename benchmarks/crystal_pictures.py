"""Bands and DOS of single structures that a checkpoint never saw, beside DFT's, as pictures for the docs.

``python benchmarks/crystal_pictures.py CHECKPOINT DATA [--structures NAME ...] [--split test] [--output docs/pictures]``

DATA holds labels with overlaps (a file or folder that ``evaluate`` reads): a held-out cell, a twisted bilayer. Without names,
the structure with the most atoms of the split is drawn, its first one if all are alike. Writes bands-NAME.png and
dos-NAME.png, and prints the figures of each.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib as mpl

from model.predictor import Predictor
from training.data.sources import DatasetError, Frame, read_frames
from training.evaluate.crystals import compare_crystal
from training.evaluate.plots import STYLE
from training.evaluate.spectra_plots import spectra_figures


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--structures", nargs="+", default=[])
    parser.add_argument("--split", default="test")
    parser.add_argument("--points", type=int, default=120, help="k-points of the path")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    predictor = Predictor.load(options.checkpoint)
    frames = list(read_frames(options.data, [options.split]))
    options.output.mkdir(parents=True, exist_ok=True)
    for frame in _chosen(frames, options.structures):
        for path in draw(predictor, frame, options.points, options.output):
            print(path)


def draw(predictor: Predictor, frame: Frame, n_points: int, folder: Path) -> list[Path]:
    """Pictures of one structure; what was written.

    Raises:
        DatasetError: nothing could be diagonalised.
    """
    frame = frame.in_space(predictor.space)
    given = {"overlap": frame.overlap} if frame.overlap is not None else {}
    prediction = predictor.predict_crystals([frame.structure], [given])[0]
    damping = predictor.card.kinetic_damping
    found = compare_crystal(frame, prediction, n_points=n_points, kinetic_damping=damping)
    if found.spectra is None:
        raise DatasetError(f"{frame.molecule} has no spectra: {found.note}")
    errors = found.errors
    print(
        f"{frame.molecule}: {errors.atoms} atoms, H {errors.hamiltonian:.3f} meV, bands {errors.bands_rms} meV, gap "
        f"{errors.gap_label} {errors.gap:+.1f} meV, DOS {errors.dos:.4f}, density {errors.density:.4f}"
    )
    title = f"{predictor.card.name}: {frame.molecule}, {errors.atoms} atoms"
    entry = {
        "rank": "held out",
        "formula": errors.formula,
        "bands_rms_meV": errors.bands_rms,
        "dos_distance": errors.dos,
        "bands": found.spectra.bands,
        "dos": found.spectra.dos,
    }
    written = []
    with mpl.rc_context(STYLE):
        for kind, figure in spectra_figures([entry], title).items():
            path = folder / f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]', '_', frame.molecule)}.png"
            figure.savefig(path)
            written.append(path)
    return written


def _chosen(frames: list[Frame], names: list[str]) -> list[Frame]:
    if not names:
        return [max(frames, key=lambda frame: len(frame.structure))]
    by_name = {frame.molecule: frame for frame in frames}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise DatasetError(f"There is no structure {unknown[0]!r}; the split has {', '.join(sorted(by_name))}.")
    return [by_name[name] for name in names]


if __name__ == "__main__":
    main()
