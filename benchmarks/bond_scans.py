"""How smoothly H changes along bonds of linear molecules, and what the norms of atoms' features divide by. Two tables.

``python benchmarks/bond_scans.py [--checkpoint FOLDER] [--data FILE]``; half a minute. No labels: a Hamiltonian is smooth
in a bond length, so a step that is many times the median step is the network's fault. The bonds meet lengths at which what
the middle atom hears from two sides cancels (docs/decisions/0011-norm-floors.md); some are far from any real molecule.
The second table is of the checkpoint's training molecules and gives the values for ``norm_floors``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import DEFAULT_CHECKPOINT, describe
from numpy.typing import NDArray

from model.architectures.qhnetv2.network import FrameLayer
from model.nn.layers import FloorLayerNorm
from model.predictor import Prediction, Predictor
from model.structure import Structure
from model.units import MICROHARTREE_PER_HARTREE
from training.data.sources import read_frames

STEP_ANGSTROM = 0.0025
QUANTILES = (0.0, 0.001, 0.01, 0.5, 1.0)
BATCH = 16


def linear(symbols: str, *bonds: float) -> Structure:
    """Atoms on a line through these bond lengths, Å."""
    heights = np.concatenate([[0.0], np.cumsum(bonds)])
    return Structure.from_symbols(list(symbols), [[0.0, 0.0, height] for height in heights])


def isocyanic_acid(carbon_nitrogen: float) -> Structure:
    """HNCO, bent at N."""
    height = 1.17 + carbon_nitrogen
    return Structure.from_symbols(
        ["O", "C", "N", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.17], [0.0, 0.0, height], [0.9, 0.0, height + 0.45]]
    )


def carbodiimide(carbon_nitrogen: float) -> Structure:
    """HNCNH, the hydrogens a quarter turn apart."""
    end = carbon_nitrogen + 1.22
    return Structure.from_symbols(
        ["H", "N", "C", "N", "H"],
        [[0.85, 0.0, -0.5], [0.0, 0.0, 0.0], [0.0, 0.0, carbon_nitrogen], [0.0, 0.0, end], [0.0, 0.85, end + 0.5]],
    )


def hydrogen_azide(middle: float) -> Structure:
    """HNNN, the bond between the terminal nitrogen atoms being 1.13 Å."""
    height = 1.13 + middle
    return Structure.from_symbols(
        ["N", "N", "N", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.13], [0.0, 0.0, height], [0.96, 0.0, height + 0.3]]
    )


def diacetylene(middle: float) -> Structure:
    """HCCCCH."""
    return linear("HCCCCH", 1.065, 1.21, middle, 1.21, 1.065)


def cyanogen(middle: float) -> Structure:
    """NCCN."""
    return linear("NCCN", 1.16, middle, 1.16)


SCANS: dict[str, tuple[Callable[[float], Structure], float, float]] = {
    "N2O, N-N": (lambda length: linear("NNO", length, 1.19), 1.05, 1.35),
    "CO2, one C-O": (lambda length: linear("OCO", length, 1.16), 1.05, 1.35),
    "HNCO, C-N": (isocyanic_acid, 1.05, 1.35),
    "HNCNH, one C-N": (carbodiimide, 1.05, 1.35),
    "HN3, middle N-N": (hydrogen_azide, 1.05, 1.35),
    "HCCCCH, middle C-C": (diacetylene, 1.25, 1.45),
    "HCCCCH, too short": (diacetylene, 1.15, 1.25),
    "NCCN, C-C": (cyanogen, 1.25, 1.45),
    "NCCN, too short": (cyanogen, 1.15, 1.25),
    "N2": (lambda length: linear("NN", length), 1.05, 1.35),
}
"""What is moved: a structure by one bond length, and that length's range, Å."""


def predictions(predictor: Predictor, structures: list[Structure]) -> list[Prediction]:
    """In batches."""
    batches = [structures[first : first + BATCH] for first in range(0, len(structures), BATCH)]
    return [prediction for batch in batches for prediction in predictor.predict(batch)]


def steps(predictor: Predictor, make: Callable[[float], Structure], start: float, stop: float) -> NDArray[np.float64]:
    """Mean |change| of what the network adds to H0, hartree, from one length to the next."""
    structures = [make(float(length)) for length in np.arange(start, stop, STEP_ANGSTROM)]
    found = [prediction.hamiltonian - prediction.reference for prediction in predictions(predictor, structures)]
    changes: NDArray[np.float64] = np.abs(np.diff(np.array(found), axis=0)).mean(axis=(1, 2))
    return changes


def norm_scales(predictor: Predictor, structures: list[Structure]) -> dict[str, NDArray[np.float32]]:
    """What each norm of atoms' features divides by, all atoms of all structures."""
    found: dict[str, list[torch.Tensor]] = {}

    def recorder(name: str, scale: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        return lambda module, inputs: found.setdefault(name, []).append(scale(inputs[0]))

    hooks = []
    for name, module in predictor.model.network.named_modules():
        if isinstance(module, FrameLayer):
            root_mean_square = recorder(name, lambda features: features.square().mean(dim=(1, 2)).sqrt())
            hooks.append(module.register_forward_pre_hook(root_mean_square))
        elif isinstance(module, FloorLayerNorm) and "diagonal_read_out" in name:
            deviation = recorder(name, lambda features: features.std(dim=-1, unbiased=False))
            hooks.append(module.register_forward_pre_hook(deviation))
    predictions(predictor, structures)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Bond scans and scales of norms.")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--data", type=Path, help="training data, for the second table")
    arguments = parser.parse_args()
    predictor = Predictor.load(arguments.checkpoint)
    print(f"{describe()}; {predictor.card.name} {predictor.card.version}\n")
    print(f"| moved by {STEP_ANGSTROM} Å | from, Å | to, Å | median step of H, µEh | largest | ratio |")
    print("|---|---|---|---|---|---|")
    for name, (make, start, stop) in SCANS.items():
        sizes = MICROHARTREE_PER_HARTREE * steps(predictor, make, start, stop)
        middle, largest = float(np.median(sizes)), float(sizes.max())
        print(f"| {name} | {start} | {stop} | {middle:.1f} | {largest:.0f} | {largest / middle:.1f} |")
    if arguments.data is not None:
        structures = [frame.structure for frame in read_frames(arguments.data, ["train"], frames_per_molecule=1)]
        print(f"\n| norm of | {' | '.join(f'quantile {q:g}' for q in QUANTILES)} |\n|---|{'---|' * len(QUANTILES)}")
        for name, values in norm_scales(predictor, structures).items():
            print(f"| {name} | {' | '.join(f'{value:.2f}' for value in np.quantile(values, QUANTILES))} |")


if __name__ == "__main__":
    main()
