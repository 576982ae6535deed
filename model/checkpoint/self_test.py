"""Self-test: a checkpoint must have the symmetry that its card promises before it is served.

Golden answers do not show that a prediction makes sense when the atoms lie otherwise in space. So each golden structure,
shaken out of any symmetry of its own, is rotated, reflected, translated and its atoms are put in another order, by
operations drawn from a seed. With U the representation of the motion on the orbitals, H(moved) = U H U^T must hold to the
rounding of the network's arithmetic, and orbital energies of molecules must stay. A card may promise less of rotations and
reflections, an error that was measured when it was released (``measure_symmetry``); then they are held to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks import motions
from model.blocks.block_set import BlockSet
from model.blocks.matrices import dense_matrix
from model.checkpoint.card import Card, SymmetryError
from model.checkpoint.golden import Predicts, golden_structure
from model.electronic.solve import solve
from model.errors import CheckpointError
from model.structure import Structure

HAMILTONIAN_TOLERANCE_HARTREE: Final = 2e-5
"""Largest entry of H(moved) - U H U^T. Float32 stays below 1e-6 with every backbone; a network whose symmetry is broken
misses by a good part of what it adds to H0, 1e-3 and more."""

ENERGY_TOLERANCE_HARTREE: Final = 2e-5
"""Largest change of an orbital energy, as for golden numbers."""

APPROXIMATE_MARGIN: Final = 2.0
"""Rotations and reflections of an approximate checkpoint may be wrong by so many times what its card says."""

MEASURED_SEEDS: Final = 8
"""Sets of motions that an approximate symmetry is measured with, the self-test's default one among them."""

SHAKE_ANGSTROM: Final = 0.03
"""Standard deviation of the displacement that takes a molecule out of its own symmetry."""

SHIFT_ANGSTROM: Final = 3.0


_TURNS: Final[Mapping[str, float]] = {"rotation": 1.0, "reflection": -1.0}
"""Motions that a card may promise approximately, with their determinants."""


@dataclass(frozen=True)
class Deviation:
    """What one motion of one structure changed that it should not have.

    Attributes:
        motion: "rotation", "reflection", "translation" or "permutation".
        structure: name of the golden structure.
        hamiltonian: largest entry of H(moved) - U H U^T, hartree.
        energy: largest change of a molecule's orbital energy, hartree; 0 for crystals.
    """

    motion: str
    structure: str
    hamiltonian: float
    energy: float


@dataclass(frozen=True)
class _Motion:
    """A motion with what it does to atoms and blocks.

    Attributes:
        name: for reports.
        structure: after it.
        apply: blocks before it -> blocks after it.
    """

    name: str
    structure: Structure
    apply: Callable[[BlockSet], BlockSet]


def self_test(predictor: Predicts, golden: Mapping[str, Any], *, seed: int = 0) -> list[Deviation]:
    """Move the golden structures of a checkpoint and compare.

    Args:
        predictor: of the checkpoint; nothing else may use it meanwhile.
        golden: its ``golden.json``.
        seed: of the shaking and of the motions.

    Returns:
        what was found, all of it within the tolerances.

    Raises:
        CheckpointError: no golden structure, or a deviation above ``HAMILTONIAN_TOLERANCE_HARTREE`` or
            ``ENERGY_TOLERANCE_HARTREE``, or above what an approximate card allows of rotations and reflections.
    """
    found = _deviations(predictor, golden, seed)
    for deviation in found:
        _judge(predictor.card, deviation)
    return found


def measure_symmetry(predictor: Predicts, golden: Mapping[str, Any]) -> SymmetryError:
    """How far rotations and reflections are from exact: what the card of an approximate checkpoint has to say.

    Args:
        predictor, golden: as of ``self_test``; the card's own promise is not looked at.
    """
    found = [item for seed in range(MEASURED_SEEDS) for item in _deviations(predictor, golden, seed)]
    turned = [item for item in found if item.motion in _TURNS]
    return SymmetryError(
        hamiltonian=max(item.hamiltonian for item in turned), energy=max(item.energy for item in turned)
    )


def _deviations(predictor: Predicts, golden: Mapping[str, Any], seed: int) -> list[Deviation]:
    entries = golden["structures"]
    if not entries:
        raise CheckpointError(
            f"Checkpoint {predictor.card.name!r} stores no golden structure, so it cannot be tested.",
            hint="Release it again; golden.json holds the answers for at least one structure.",
        )
    rng = np.random.default_rng(seed)
    with_reflection = predictor.card.symmetry != "SO(3)"
    deviations: list[Deviation] = []
    for entry in entries:
        structure = _shaken(golden_structure(entry), rng)
        moves = list(_motions(structure, rng, with_reflection=with_reflection))
        compare = _compare_crystals if structure.is_periodic else _compare_molecules
        deviations += compare(predictor, str(entry["name"]), structure, moves)
    return deviations


def _shaken(structure: Structure, rng: np.random.Generator) -> Structure:
    shake = rng.normal(scale=SHAKE_ANGSTROM, size=structure.positions_angstrom.shape)
    return replace(structure, positions_angstrom=structure.positions_angstrom + shake)


def _motions(structure: Structure, rng: np.random.Generator, *, with_reflection: bool) -> Iterator[_Motion]:
    numbers, positions, cell = structure.numbers, structure.positions_angstrom, structure.cell_angstrom
    for name, sign in _TURNS.items():
        if name == "reflection" and not with_reflection:
            continue
        matrix = sign * _random_rotation(rng)
        turned = None if cell is None else cell @ matrix.T
        moved = replace(structure, positions_angstrom=positions @ matrix.T, cell_angstrom=turned)
        yield _Motion(name, moved, partial(motions.turn, matrix=matrix))
    shift = rng.normal(scale=SHIFT_ANGSTROM, size=3)
    yield _Motion("translation", replace(structure, positions_angstrom=positions + shift), lambda blocks: blocks)
    # rolled on top of shuffled: never the order that was there, however few the atoms
    order = np.roll(rng.permutation(len(numbers)), 1)
    if (order == np.arange(len(numbers))).all():
        order = np.roll(order, 1)
    moved = replace(structure, numbers=numbers[order], positions_angstrom=positions[order])
    yield _Motion("permutation", moved, partial(motions.permute, order=order))


def _random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniformly distributed, proper, (3, 3)."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    return np.asarray(matrix * np.sign(np.linalg.det(matrix)))


def _compare_molecules(
    predictor: Predicts, name: str, structure: Structure, moves: Sequence[_Motion]
) -> Iterator[Deviation]:
    still, *moved = predictor.predict([structure, *(move.structure for move in moves)], orbitals=False)
    n_electrons, blocks = structure.n_electrons, still.blocks
    energies = solve(still.hamiltonian, still.overlap, n_electrons).energies
    for move, prediction in zip(moves, moved, strict=True):
        expected = dense_matrix(move.apply(blocks))
        moved_energies = solve(prediction.hamiltonian, prediction.overlap, n_electrons).energies
        # as many orbitals before as after, unless a nearly dependent basis was cut differently: that is a deviation too
        same = len(energies) == len(moved_energies)
        yield Deviation(
            move.name,
            name,
            hamiltonian=float(np.abs(prediction.hamiltonian - expected).max()),
            energy=float(np.abs(moved_energies - energies).max()) if same else float("inf"),
        )


def _compare_crystals(
    predictor: Predicts, name: str, structure: Structure, moves: Sequence[_Motion]
) -> Iterator[Deviation]:
    still, *moved = predictor.predict_crystals([structure, *(move.structure for move in moves)])
    for move, prediction in zip(moves, moved, strict=True):
        expected = move.apply(still.hamiltonian).on_pairs(prediction.hamiltonian.pairs)
        error = float(np.abs(prediction.hamiltonian.values - expected.values).max())
        yield Deviation(move.name, name, hamiltonian=error, energy=0.0)


def _judge(card: Card, deviation: Deviation) -> None:
    allowed = SymmetryError(hamiltonian=HAMILTONIAN_TOLERANCE_HARTREE, energy=ENERGY_TOLERANCE_HARTREE)
    if card.symmetry_error is not None and deviation.motion in _TURNS:
        measured = card.symmetry_error
        allowed = SymmetryError(
            hamiltonian=max(allowed.hamiltonian, APPROXIMATE_MARGIN * measured.hamiltonian),
            energy=max(allowed.energy, APPROXIMATE_MARGIN * measured.energy),
        )
    for what, found, limit in (
        ("its Hamiltonian", deviation.hamiltonian, allowed.hamiltonian),
        ("its orbital energies", deviation.energy, allowed.energy),
    ):
        if not found <= limit:
            raise CheckpointError(
                f"Checkpoint {card.name!r} is not equivariant: after a {deviation.motion} of {deviation.structure}, {what} "
                f"differs by {found:.1e} hartree from what the {deviation.motion} makes of it, {limit:.0e} is allowed.",
                hint="The network depends on how the atoms lie in space; do not serve it.",
            )
