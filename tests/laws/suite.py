"""The laws: what happens to the atoms happens to H, and nothing else does.

Each law is a function of a subject (``tests.laws.subjects``) that fails where the subject breaks it. How blocks turn is
``model.blocks.motions``; ``test_oracle.py`` holds that against PySCF's own orbitals for the motions used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from model.blocks.block_set import BlockSet
from model.blocks.motions import permute, shift_atoms, time_reversal_error, turn, unfold
from model.blocks.spaces import BlockSpace
from model.blocks.template import TemplateMap
from model.errors import AtomsTooCloseError
from model.pairs.pair_list import PairList
from model.structure import Structure
from tests.laws.subjects import MESSAGES_ANGSTROM, SPACE, Subject, block_cutoffs
from tests.laws.systems import MOTIONS, between_neighbours, moved, repeated, systems, with_fragment, with_positions
from tests.tolerances import CONTINUITY_SLOPES, CONTINUITY_STEP_ANGSTROM, HERMITIAN, NOT_NOTHING, NOT_ROUNDING

HAIR = 1e-6
"""What a turn by 1e-9 changes at most where rotations are not exact."""

FAR_ANGSTROM = np.array([3.0, -2.0, 60.0])
"""Beyond every cutoff, and further than messages get in all layers."""


def difference(one: BlockSet, other: BlockSet) -> float:
    """Largest difference between the blocks of the same pairs; infinite where the pairs are not the same."""
    if not np.array_equal(one.pairs.keys, other.pairs.keys) or not np.array_equal(one.numbers, other.numbers):
        return float("inf")
    return float(np.abs(one.values - other.values).max())


def predicted(subject: Subject, structure: Structure) -> BlockSet:
    """The blocks of one structure, in which the network took part: on-site, off-site and in every spin part."""
    (blocks,) = subject.predict([structure])
    n_on_site = int(blocks.starts[blocks.pairs.n_atoms])
    for part in blocks.values:
        assert min(np.abs(part[:n_on_site]).max(), np.abs(part[n_on_site:]).max()) > NOT_NOTHING, (
            "the network takes part"
        )
    return blocks


def _moves(subject: Subject, names: list[str]) -> None:
    for structure in systems(subject.kind):
        before = predicted(subject, structure)
        for name in names:
            (after,) = subject.predict([moved(structure, MOTIONS[name])])
            _judge_motion(subject, difference(turn(before, MOTIONS[name]), after), name)


def _judge_motion(subject: Subject, error: float, name: str) -> None:
    """A network that promises no more than approximate rotations must not promise too little."""
    if subject.rotations:
        assert error < subject.tolerance, name
        return
    print(f"{subject.name}: after the {name} blocks differ by {error:.1e} hartree")
    assert error > NOT_ROUNDING, name


def rotation(subject: Subject) -> None:
    """Atoms, lattice and spins are turned."""
    _moves(subject, ["rotation", "rotation onto the axes"])


def mirror_and_inversion(subject: Subject) -> None:
    """Improper motions. An architecture that promises rotations only must not promise too little."""
    if subject.mirrors or not subject.rotations:
        _moves(subject, ["mirror", "inversion", "rotoreflection"])
        return
    structure = systems(subject.kind)[-1]
    (after,) = subject.predict([moved(structure, MOTIONS["mirror"])])
    assert difference(turn(predicted(subject, structure), MOTIONS["mirror"]), after) > NOT_ROUNDING


def bond_direction(subject: Subject) -> None:
    """Bonds on a pole of the frames, or a hair beside one, are not special."""
    line = Structure.from_symbols(["C", "N", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.156], [0.0, 0.0, -1.064]])
    if subject.kind == "crystal":
        line = Structure(line.numbers, line.positions_angstrom, 0, 1, np.diag([12.0, 12.0, 3.4]), (False, False, True))
    (before,) = subject.predict([line])
    for axis in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1e-9, 0.0, 1.0], [1.0, 1e-8, -1e-8]):
        matrix = Rotation.align_vectors([axis], [[0.0, 0.0, 1.0]])[0].as_matrix()
        (after,) = subject.predict([moved(line, matrix)])
        error = difference(turn(before, matrix), after)
        if not subject.rotations and axis[2] == 1.0:
            assert error < HAIR  # a hair's turn changes a hair, if no pole is special
        else:
            _judge_motion(subject, error, f"turn onto {axis}")


def translation(subject: Subject) -> None:
    """All atoms are moved alike; and single atoms by lattice vectors, which only changes what R counts from."""
    rng = np.random.default_rng(3)
    for structure in systems(subject.kind):
        before = predicted(subject, structure)
        (after,) = subject.predict([moved(structure, np.eye(3), np.array([1.3, -0.7, 2.1]))])
        assert difference(before, after) < subject.tolerance
        if structure.cell_angstrom is not None:
            shifts = rng.integers(-2, 3, size=(len(structure), 3)) * np.array(structure.pbc)
            other = with_positions(structure, structure.positions_angstrom + shifts @ structure.cell_angstrom)
            (after,) = subject.predict([other])
            assert difference(shift_atoms(before, shifts), after) < subject.tolerance


def permutation(subject: Subject) -> None:
    """The atoms stand in another order."""
    for structure in systems(subject.kind):
        order = np.roll(np.arange(len(structure)), 1)[::-1]
        other = with_positions(structure, structure.positions_angstrom[order])
        other = Structure(
            structure.numbers[order],
            other.positions_angstrom,
            0,
            structure.multiplicity,
            structure.cell_angstrom,
            structure.pbc,
        )
        (after,) = subject.predict([other])
        assert difference(permute(predicted(subject, structure), order), after) < subject.tolerance


def batch(subject: Subject) -> None:
    """A structure's answer does not depend on its company."""
    structures = systems(subject.kind)
    together = subject.predict([*structures, structures[0]])
    for structure, found in zip([*structures, structures[0]], together, strict=True):
        assert difference(predicted(subject, structure), found) < subject.tolerance


def hermiticity(subject: Subject) -> None:
    """H_ij(R) is the adjoint of H_ji(-R)."""
    for structure in systems(subject.kind):
        assert predicted(subject, structure).hermitian_error() < HERMITIAN


def time_reversal(subject: Subject) -> None:
    """Blocks without magnetisation stay when time is reversed; those of other spinors are free not to."""
    if subject.spin != "spinor":
        return
    for structure in systems(subject.kind):
        error = time_reversal_error(predicted(subject, structure))
        assert (error < HERMITIAN) if subject.time_reversal else (error > NOT_ROUNDING)


def expressiveness(subject: Subject) -> None:
    """Every irrep of a block takes part where no symmetry forbids it: nothing that H may hold is out of reach."""
    space = BlockSpace.of(SPACE.template, subject.spin, time_reversal=subject.time_reversal)
    layout = space.coefficients.layout
    largest = np.zeros(len(layout.irreps))
    for structure in systems(subject.kind):
        blocks = predicted(subject, structure)
        found = TemplateMap(SPACE, blocks.numbers, blocks.pairs).of_entries(space.to_components(blocks.values))
        coefficients = found.reshape(len(found), -1) @ space.matrix
        parts = [np.abs(coefficients[:, part]).max() for part in space.coefficients.slices]
        largest = np.maximum(largest, parts)
    assert largest.min() > NOT_ROUNDING, dict(zip(layout.irreps, largest.tolist(), strict=True))


def supercell(subject: Subject) -> None:
    """A cell repeated is the same crystal; so is a molecule in a cell that is large enough."""
    if subject.kind != "crystal":
        return
    for structure, repeats in zip(systems("crystal"), ((1, 2, 1), (2, 1, 1), (1, 1, 3)), strict=True):
        (after,) = subject.predict([repeated(structure, repeats)])
        assert difference(unfold(predicted(subject, structure), repeats), after) < subject.tolerance
    alone = systems("molecule")[1]
    boxed = Structure(alone.numbers, alone.positions_angstrom, 0, 1, 30.0 * np.eye(3), (True, True, True))
    free, found = subject.predict([alone, boxed])
    assert difference(free, found) < subject.tolerance


def far_fragment(subject: Subject) -> None:
    """Atoms beyond all cutoffs change nothing for the others."""
    if not subject.local:
        return
    for structure in systems(subject.kind):
        if all(structure.pbc):
            continue  # there is no far in a bulk
        away = FAR_ANGSTROM if not structure.pbc[2] else FAR_ANGSTROM[[2, 1, 0]]
        (after,) = subject.predict([with_fragment(structure, away)])
        assert difference(predicted(subject, structure), _first_atoms(after, len(structure))) < subject.tolerance


def continuity(subject: Subject) -> None:
    """No jump where a pair of atoms crosses a cutoff, of messages or of blocks, nor where the nearest neighbour changes.

    One atom is moved so that the pair's length passes the cutoff; the step over it is compared with the steps beside it.
    Blocks of pairs that both sides have are compared: a block beyond its cutoff is not there at all.
    """
    for structure in systems(subject.kind):
        for across in _crossings(subject, structure):
            _no_jump(subject, across)
    _no_jump(subject, lambda x: between_neighbours(x, subject.kind))


def _no_jump(subject: Subject, at: Callable[[float], Structure]) -> None:
    h = CONTINUITY_STEP_ANGSTROM
    found = subject.predict([at(x * h) for x in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)])
    steps = [_shared_difference(found[i], found[i + 1]) for i in (0, 2, 4)]
    assert steps[1] < CONTINUITY_SLOPES * max(steps[0], steps[2], subject.tolerance), steps


def _crossings(subject: Subject, structure: Structure) -> Iterator[Callable[[float], Structure]]:
    """Structures with a pair longer by x than a cutoff.

    A pair near the cutoff of messages and, for crystals, pairs near that of their blocks, where it is shorter and longer.
    """
    pairs = PairList.within(structure, 8.0)
    moving = pairs.first != pairs.second  # an atom takes its own images along
    symbols = np.array(structure.symbols)
    ends = zip(symbols[pairs.first], symbols[pairs.second], strict=True)
    blocks = np.array([block_cutoffs()["-".join(sorted(pair))] for pair in ends])
    messages = np.full(len(pairs), MESSAGES_ANGSTROM)
    tried = [(messages, moving)]
    if subject.kind == "crystal":
        tried += [(blocks, moving & (blocks < MESSAGES_ANGSTROM)), (blocks, moving & (blocks > MESSAGES_ANGSTROM))]
    for cutoffs, allowed in tried:
        candidates = np.flatnonzero(allowed)
        order = np.argsort(np.abs(pairs.distances_angstrom - cutoffs)[candidates])
        for pair in candidates[order].tolist():
            across = _across(structure, pairs, pair, float(cutoffs[pair]))
            try:
                across(0.0)
            except AtomsTooCloseError:
                continue
            yield across
            break


def _across(structure: Structure, pairs: PairList, pair: int, cutoff: float) -> Callable[[float], Structure]:
    """The structure with the pair longer than the cutoff by x."""
    vector, length = pairs.vectors_angstrom[pair], pairs.distances_angstrom[pair]

    def at(x: float) -> Structure:
        positions = structure.positions_angstrom.copy()
        positions[pairs.second[pair]] += vector / length * (cutoff + x - length)
        return with_positions(structure, positions)

    return at


def _shared_difference(one: BlockSet, other: BlockSet) -> float:
    """Largest difference of blocks that both have."""
    keys = {tuple(key): index for index, key in enumerate(other.pairs.keys.tolist())}
    shared = [(index, keys[tuple(key)]) for index, key in enumerate(one.pairs.keys.tolist()) if tuple(key) in keys]
    return max(float(np.abs(one.block(i) - other.block(j)).max()) for i, j in shared)


def _first_atoms(blocks: BlockSet, n_atoms: int) -> BlockSet:
    """The blocks between the first atoms of a structure."""
    kept = np.flatnonzero((blocks.pairs.first < n_atoms) & (blocks.pairs.second < n_atoms))
    pairs = blocks.pairs.take(kept)
    pairs = PairList(n_atoms, pairs.first, pairs.second, pairs.shift, pairs.vectors_angstrom)
    values = np.concatenate([blocks.values[:, blocks.starts[k] : blocks.starts[k + 1]] for k in kept], axis=1)
    return BlockSet(blocks.space, blocks.numbers[:n_atoms], pairs, values, blocks.spin)


Law = Callable[[Subject], None]
LAWS: Final[Mapping[str, Law]] = {
    "rotation": rotation,
    "mirror and inversion": mirror_and_inversion,
    "bond direction": bond_direction,
    "translation": translation,
    "permutation": permutation,
    "batch = single": batch,
    "hermiticity": hermiticity,
    "time reversal": time_reversal,
    "expressiveness": expressiveness,
    "supercell = cell": supercell,
    "far fragment": far_fragment,
    "continuity": continuity,
}
"""All of them by name."""
