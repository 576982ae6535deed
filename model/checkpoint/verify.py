"""What a checkpoint must prove before it is served: its stored answers, and the symmetry that its card promises.

Golden answers are orbital energies of small molecules. They do not show that the answers make sense when the molecule lies
otherwise in space. So each golden molecule, shaken out of any symmetry of its own, is rotated, reflected, translated and its
atoms are put in another order, by operations drawn from a seed. With U the representation of the motion on the orbitals
(Wigner matrices), H(moved) = U H U^T must hold to the rounding of the network's arithmetic, and orbital energies must stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag

from model.checkpoint.card import Card
from model.electronic.solve import Orbitals, solve
from model.errors import CheckpointError
from model.nn.frames import wigner_matrices
from model.orbitals.orders import e3nn_to_pyscf
from model.orbitals.space import OrbitalSpace
from model.structure import Structure

GOLDEN_TOLERANCE_HARTREE: Final = 2e-5
"""Stored orbital energies must be met to this: an order above float32 noise, far below a wrong weight."""

HAMILTONIAN_TOLERANCE_HARTREE: Final = 2e-5
"""Largest entry of H(moved) - U H U^T. Float32 stays below 1e-6 with every backbone; a network whose symmetry is broken
misses by a good part of what it adds to H0, 1e-3 and more."""

ENERGY_TOLERANCE_HARTREE: Final = 2e-5
"""Largest change of an orbital energy, as for golden numbers."""

SHAKE_ANGSTROM: Final = 0.03
"""Standard deviation of the displacement that takes a molecule out of its own symmetry."""

SHIFT_ANGSTROM: Final = 3.0


class MoleculePrediction(Protocol):
    """What is looked at of a prediction."""

    @property
    def hamiltonian(self) -> NDArray[np.float64]: ...

    @property
    def overlap(self) -> NDArray[np.float64]: ...

    @property
    def orbitals(self) -> Orbitals | None: ...


class MoleculePredictor(Protocol):
    """What is asked of a predictor; ``model.predictor.Predictor`` is one."""

    @property
    def card(self) -> Card: ...

    @property
    def space(self) -> OrbitalSpace: ...

    def predict(self, structures: Sequence[Structure], *, orbitals: bool = True) -> Sequence[MoleculePrediction]: ...


def golden_structure(entry: Mapping[str, Any]) -> Structure:
    """The structure of an entry of ``golden.json``."""
    return Structure(
        np.array(entry["numbers"]),
        np.array(entry["positions_angstrom"]),
        charge=int(entry["charge"]),
        multiplicity=int(entry["multiplicity"]),
    )


def golden_record(predictor: MoleculePredictor, molecules: Mapping[str, Structure]) -> dict[str, Any]:
    """Answers to store as ``golden.json``."""
    entries = []
    for name, structure in molecules.items():
        orbitals = predictor.predict([structure])[0].orbitals
        assert orbitals is not None
        entries.append(
            {
                "name": name,
                "numbers": [int(z) for z in structure.numbers],
                "positions_angstrom": structure.positions_angstrom.tolist(),
                "charge": structure.charge,
                "multiplicity": structure.multiplicity,
                "orbital_energies": orbitals.energies.tolist(),
            }
        )
    return {"energy_unit": "hartree", "molecules": entries}


def refuse_other_energies(checkpoint: str, entry: Mapping[str, Any], energies: NDArray[np.float64]) -> None:
    """Compare orbital energies with a golden entry's.

    Raises:
        CheckpointError: another number of them, or a deviation above ``GOLDEN_TOLERANCE_HARTREE``.
    """
    stored = np.array(entry["orbital_energies"])
    error = float(np.abs(energies - stored).max()) if len(stored) == len(energies) else np.inf
    if not error <= GOLDEN_TOLERANCE_HARTREE:
        raise CheckpointError(
            f"Checkpoint {checkpoint!r} does not reproduce its stored answer for {entry['name']}: "
            f"orbital energies differ by {error:.1e} hartree, {GOLDEN_TOLERANCE_HARTREE:.0e} is allowed.",
            hint="The code or a library changed what the network computes; do not serve it.",
        )


@dataclass(frozen=True)
class Deviation:
    """What one motion of one molecule changed that it should not have.

    Attributes:
        motion: "rotation", "reflection", "translation" or "permutation".
        molecule: name of the golden molecule.
        hamiltonian: largest entry of H(moved) - U H U^T, hartree.
        energy: largest change of an orbital energy, hartree.
    """

    motion: str
    molecule: str
    hamiltonian: float
    energy: float


@dataclass(frozen=True)
class _Motion:
    """A motion with what it does to atoms and AOs.

    Attributes:
        name: for reports.
        structure: after it.
        transform: U, (ao, ao).
    """

    name: str
    structure: Structure
    transform: NDArray[np.float64]


def self_test(predictor: MoleculePredictor, golden: Mapping[str, Any], *, seed: int = 0) -> list[Deviation]:
    """Move the golden molecules of a checkpoint and compare.

    Args:
        predictor: of the checkpoint; nothing else may use it meanwhile.
        golden: its ``golden.json``.
        seed: of the shaking and of the motions.

    Returns:
        what was found, all of it within the tolerances.

    Raises:
        CheckpointError: no golden molecule, or a deviation above ``HAMILTONIAN_TOLERANCE_HARTREE`` or
            ``ENERGY_TOLERANCE_HARTREE``.
    """
    entries = golden["molecules"]
    if not entries:
        raise CheckpointError(
            f"Checkpoint {predictor.card.name!r} stores no golden molecule, so it cannot be tested.",
            hint="Release it again; golden.json holds the answers for at least one molecule.",
        )
    rng = np.random.default_rng(seed)
    with_reflection = predictor.card.symmetry == "O(3)"
    deviations: list[Deviation] = []
    for entry in entries:
        structure = _shaken(golden_structure(entry), rng)
        motions = list(_motions(structure, predictor.space, rng, with_reflection=with_reflection))
        deviations += _compare(predictor, str(entry["name"]), structure, motions)
    for deviation in deviations:
        _judge(predictor.card.name, deviation)
    return deviations


def ao_representation(
    matrix: NDArray[np.float64], numbers: Sequence[int] | NDArray[np.int64], space: OrbitalSpace
) -> NDArray[np.float64]:
    """How AOs in PySCF order transform under x -> matrix @ x.

    Args:
        matrix: orthogonal, (3, 3), Cartesian (x, y, z); proper or not.
        numbers: atomic number of each atom.
        space: gives their shells.

    Returns:
        U, (ao, ao), block-diagonal in shells, with S(moved) = U S U^T.
    """
    sign = float(np.sign(np.linalg.det(matrix)))
    highest = max(space.template)
    wigner = wigner_matrices(torch.from_numpy(np.ascontiguousarray(sign * matrix, dtype=np.float64))[None], highest)
    # an improper motion is a rotation and an inversion, which gives each AO the parity (-1)^l
    of_ang = [sign**ang * wigner[ang][0].numpy() for ang in range(highest + 1)]
    shells = [ang for number in numbers for ang in space.shells_of(int(number))]
    order = e3nn_to_pyscf(shells)
    return np.asarray(block_diag(*(of_ang[ang] for ang in shells))[np.ix_(order, order)])


def _shaken(structure: Structure, rng: np.random.Generator) -> Structure:
    shake = rng.normal(scale=SHAKE_ANGSTROM, size=structure.positions_angstrom.shape)
    return replace(structure, positions_angstrom=structure.positions_angstrom + shake)


def _motions(
    structure: Structure, space: OrbitalSpace, rng: np.random.Generator, *, with_reflection: bool
) -> Iterator[_Motion]:
    numbers, positions = structure.numbers, structure.positions_angstrom
    turns = {"rotation": 1.0, "reflection": -1.0} if with_reflection else {"rotation": 1.0}
    for name, sign in turns.items():
        matrix = sign * _random_rotation(rng)
        moved = replace(structure, positions_angstrom=positions @ matrix.T)
        yield _Motion(name, moved, ao_representation(matrix, numbers, space))
    identity = np.eye(space.count_orbitals(numbers))
    shift = rng.normal(scale=SHIFT_ANGSTROM, size=3)
    yield _Motion("translation", replace(structure, positions_angstrom=positions + shift), identity)
    # rolled on top of shuffled: never the order that was there, however few the atoms
    order = np.roll(rng.permutation(len(numbers)), 1)
    if (order == np.arange(len(numbers))).all():
        order = np.roll(order, 1)
    offsets = space.atom_offsets(numbers)
    aos = np.concatenate([np.arange(offsets[atom], offsets[atom + 1]) for atom in order])
    moved = replace(structure, numbers=numbers[order], positions_angstrom=positions[order])
    yield _Motion("permutation", moved, identity[aos])


def _random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniformly distributed, proper, (3, 3)."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    return np.asarray(matrix * np.sign(np.linalg.det(matrix)))


def _compare(
    predictor: MoleculePredictor, name: str, structure: Structure, motions: Sequence[_Motion]
) -> Iterator[Deviation]:
    still, *moved = predictor.predict([structure, *(motion.structure for motion in motions)], orbitals=False)
    energies = solve(still.hamiltonian, still.overlap, structure.n_electrons).energies
    for motion, prediction in zip(motions, moved, strict=True):
        expected = motion.transform @ still.hamiltonian @ motion.transform.T
        moved_energies = solve(prediction.hamiltonian, prediction.overlap, structure.n_electrons).energies
        # as many orbitals before as after, unless a nearly dependent basis was cut differently: that is a deviation too
        same = len(energies) == len(moved_energies)
        yield Deviation(
            motion.name,
            name,
            hamiltonian=float(np.abs(prediction.hamiltonian - expected).max()),
            energy=float(np.abs(moved_energies - energies).max()) if same else float("inf"),
        )


def _judge(checkpoint: str, deviation: Deviation) -> None:
    for what, found, allowed in (
        ("its Hamiltonian", deviation.hamiltonian, HAMILTONIAN_TOLERANCE_HARTREE),
        ("its orbital energies", deviation.energy, ENERGY_TOLERANCE_HARTREE),
    ):
        if not found <= allowed:
            raise CheckpointError(
                f"Checkpoint {checkpoint!r} is not equivariant: after a {deviation.motion} of {deviation.molecule}, {what} "
                f"differs by {found:.1e} hartree from what the {deviation.motion} makes of it, {allowed:.0e} is allowed.",
                hint="The network depends on how a molecule lies in space; do not serve it.",
            )
