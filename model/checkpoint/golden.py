"""Stored answers of a checkpoint, ``golden.json``: predicted again at every load.

Of molecules the orbital energies are stored, of crystals the norms of the blocks H(R) in the order of their pair list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.checkpoint.card import Card
from model.checkpoint.limits import MAX_GOLDEN_ATOMS, MAX_GOLDEN_BLOCKS
from model.electronic.solve import Orbitals
from model.errors import CheckpointError, StructureError
from model.structure import SYMBOLS, Structure

GOLDEN_TOLERANCE_HARTREE: Final = 2e-5
"""Stored answers must be met to this: an order above float32 noise, far below a wrong weight."""


class MoleculePrediction(Protocol):
    """What is looked at of a molecule's prediction."""

    @property
    def hamiltonian(self) -> NDArray[np.float64]: ...

    @property
    def blocks(self) -> BlockSet: ...

    @property
    def overlap(self) -> NDArray[np.float64]: ...

    @property
    def orbitals(self) -> Orbitals | None: ...


class CrystalBlocks(Protocol):
    """What is looked at of a crystal's prediction."""

    @property
    def hamiltonian(self) -> BlockSet: ...


class Predicts(Protocol):
    """What is asked of a predictor; ``model.predictor.Predictor`` is one."""

    @property
    def card(self) -> Card: ...

    def count_blocks(self, structure: Structure) -> int: ...

    def predict(self, structures: Sequence[Structure], *, orbitals: bool = True) -> Sequence[MoleculePrediction]: ...

    def predict_crystals(self, structures: Sequence[Structure]) -> Sequence[CrystalBlocks]: ...


def golden_structure(entry: Mapping[str, Any]) -> Structure:
    """The structure of an entry of ``golden.json``."""
    return Structure(
        np.array(entry["numbers"]),
        np.array(entry["positions_angstrom"]),
        charge=int(entry["charge"]),
        multiplicity=int(entry["multiplicity"]),
        cell_angstrom=None if entry["cell_angstrom"] is None else np.array(entry["cell_angstrom"]),
        pbc=tuple(entry["pbc"]),
    )


def golden_record(predictor: Predicts, structures: Mapping[str, Structure]) -> dict[str, Any]:
    """Answers to store as ``golden.json``, for structures of the checkpoint's domain by name."""
    entries = [
        {
            "name": name,
            **golden_entry(structure),
            _ANSWER[structure.is_periodic]: answers(predictor, structure).tolist(),
        }
        for name, structure in structures.items()
    ]
    return {"energy_unit": "hartree", "structures": entries}


def golden_entry(structure: Structure) -> dict[str, Any]:
    """What :func:`golden_structure` reads back."""
    cell = structure.cell_angstrom
    return {
        "numbers": [int(z) for z in structure.numbers],
        "positions_angstrom": structure.positions_angstrom.tolist(),
        "charge": structure.charge,
        "multiplicity": structure.multiplicity,
        "cell_angstrom": None if cell is None else cell.tolist(),
        "pbc": list(structure.pbc),
    }


def answers(predictor: Predicts, structure: Structure) -> NDArray[np.float64]:
    """What is stored of a structure, hartree: orbital energies, (mo,), or norms of blocks, (pair,)."""
    if structure.is_periodic:
        blocks = predictor.predict_crystals([structure])[0].hamiltonian
        return np.array([np.linalg.norm(block) for block in blocks])
    orbitals = predictor.predict([structure])[0].orbitals
    assert orbitals is not None
    return orbitals.energies


def verify_golden(predictor: Predicts, golden: Mapping[str, Any]) -> None:
    """Predict the golden structures and compare.

    Raises:
        CheckpointError: another number of answers, a deviation above ``GOLDEN_TOLERANCE_HARTREE``, or structures that are too
            large to be predicted at every load.
    """
    atoms = 0
    for entry in golden["structures"]:
        try:
            atoms += len(entry["numbers"])
            _check_size(predictor.card.name, "atoms", atoms, MAX_GOLDEN_ATOMS)
            structure = golden_structure(entry)
            name = _ANSWER[structure.is_periodic]
            stored = np.array(entry[name], dtype=np.float64)
        except (KeyError, TypeError, ValueError, OverflowError, IndexError, StructureError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"A golden entry of checkpoint {predictor.card.name!r} cannot be read: {why}",
                hint="golden.json is damaged; copy the folder again, or release it again.",
            ) from error
        predictor.card.check(structure)
        _check_size(predictor.card.name, "atoms and pairs", predictor.count_blocks(structure), MAX_GOLDEN_BLOCKS)
        found = answers(predictor, structure)
        deviation = float(np.abs(found - stored).max()) if len(stored) == len(found) else np.inf
        if not deviation <= GOLDEN_TOLERANCE_HARTREE:
            raise CheckpointError(
                f"Checkpoint {predictor.card.name!r} does not reproduce its stored answer for {entry['name']!s:.60}: "
                f"{name.replace('_', ' ')} differ by {deviation:.1e} hartree, {GOLDEN_TOLERANCE_HARTREE:.0e} is allowed.",
                hint="The code or a library changed what the network computes; do not serve it.",
            )


def _check_size(name: str, what: str, count: int, most: int) -> None:
    if count > most:
        raise CheckpointError(
            f"The golden structures of checkpoint {name!r} have more than {most} {what}.",
            hint="Release it again with smaller ones.",
        )


def golden_molecules(
    elements: Collection[int], charges: Collection[int], multiplicities: Collection[int]
) -> dict[str, Structure]:
    """Small molecules in the domain of a molecular checkpoint, by name; empty if none of them is.

    Args:
        elements: atomic numbers that it knows.
        charges, multiplicities: that it was trained for.
    """
    found = {}
    for name, (symbols, positions, charge, multiplicity) in _MOLECULES.items():
        known = {SYMBOLS.index(symbol) for symbol in symbols} <= set(elements)
        if known and charge in charges and multiplicity in multiplicities:
            found[name] = Structure.from_symbols(symbols, positions, charge=charge, multiplicity=multiplicity)
    return found


_MOLECULES: Final[Mapping[str, tuple[list[str], list[list[float]], int, int]]] = {
    "water": (
        ["O", "H", "H"],
        [[0.0, 0.0, 0.119262], [0.0, 0.763239, -0.477047], [0.0, -0.763239, -0.477047]],
        0,
        1,
    ),
    "fluoromethanimine": (
        ["C", "N", "F", "H", "H"],
        [[0.10, 0.41, 0.02], [1.02, -0.46, -0.05], [-1.17, -0.03, 0.03], [0.12, 1.50, 0.06], [1.91, 0.04, -0.02]],
        0,
        1,
    ),
    "hydrogen sulfide": (["S", "H", "H"], [[0.0, 0.0, 0.10], [0.0, 0.97, -0.83], [0.0, -0.97, -0.83]], 0, 1),
    "hydroxide": (["O", "H"], [[0.0, 0.0, 0.0], [0.1, 0.2, 0.94]], -1, 1),
    "ammonium": (
        ["N", "H", "H", "H", "H"],
        [[0.0, 0.0, 0.0], [0.60, 0.58, 0.59], [-0.59, -0.60, 0.58], [-0.58, 0.59, -0.60], [0.59, -0.58, -0.59]],
        1,
        1,
    ),
    "carbonate": (
        ["C", "O", "O", "O"],
        [[0.0, 0.0, 0.05], [1.30, 0.02, 0.0], [-0.63, 1.12, 0.0], [-0.66, -1.11, 0.01]],
        -2,
        1,
    ),
    "hydrazinium": (
        ["N", "N", "H", "H", "H", "H", "H", "H"],
        [
            [0.73, 0.0, 0.0],
            [-0.73, 0.02, 0.0],
            [1.08, 0.98, 0.02],
            [1.07, -0.47, 0.86],
            [1.09, -0.50, -0.83],
            [-1.08, -0.96, 0.01],
            [-1.07, 0.50, 0.84],
            [-1.09, 0.49, -0.85],
        ],
        2,
        1,
    ),
}
"""Symbols, positions in Å, charge, multiplicity."""

_ANSWER: Final = {False: "orbital_energies", True: "block_norms"}
"""Key of the answer, by periodicity."""
