"""A pool of molecules: those that differ from given ones by one atom or bond changed, added or taken away, and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from training.generate.geometry import GeometryError, import_extra, parse_smiles

SMALLEST_RING: Final = 5
"""Of rings that are closed anew; smaller ones come with the molecules that have them."""

BOND_ORDERS: Final = (1, 2, 3)


def neighbours(
    seeds: Sequence[str], *, elements: Sequence[str], changes: int, max_heavy: int, count: int, seed: int
) -> Iterator[str]:
    """Molecules some changes away from given ones, in random order, each once and none of the given ones.

    Args:
        seeds: SMILES of neutral molecules.
        elements: symbols of the heavy atoms that may be put in.
        changes: how many one molecule takes, 1 or more; each is drawn from all that RDKit finds valid.
        max_heavy: heavy atoms, at most.
        count: how many; fewer where nothing new is found any more.
        seed: of the random numbers.

    Yields:
        canonical SMILES of one neutral closed-shell molecule each.
    """
    chem = import_extra("rdkit.Chem")
    import_extra("rdkit.RDLogger").DisableLog("rdApp.*")
    rng = np.random.default_rng(seed)
    heavy = [chem.GetPeriodicTable().GetAtomicNumber(symbol) for symbol in elements if symbol != "H"]
    seen = {canonical for smiles in seeds if (canonical := _canonical(chem, smiles)) is not None}
    starts = sorted(seen)
    failures, found = 0, 0
    while starts and found < count and failures < 50 * len(starts) + 1000:
        molecule = chem.MolFromSmiles(starts[rng.integers(len(starts))])
        for _ in range(changes):
            molecule = _changed(chem, molecule, heavy, rng)
        smiles = chem.MolToSmiles(molecule)
        if smiles in seen or molecule.GetNumAtoms() > max_heavy or not _is_closed_shell(smiles):
            failures += 1
            continue
        seen.add(smiles)
        found += 1
        yield smiles


def _changed(chem: Any, molecule: Any, heavy: Sequence[int], rng: np.random.Generator) -> Any:
    """One valid change; the molecule itself where there is none."""
    edits, before = _edits(chem, molecule, heavy), chem.MolToSmiles(molecule)
    for index in rng.permutation(len(edits)):
        editable = chem.RWMol(molecule)
        chem.Kekulize(editable, clearAromaticFlags=True)
        edits[index](editable)
        changed = chem.MolFromSmiles(chem.MolToSmiles(editable))  # None where a valence is not allowed
        if (
            changed is not None
            and changed.GetNumAtoms()
            and (now := chem.MolToSmiles(changed)) != before
            and "." not in now
        ):
            return changed
    return molecule


def _edits(chem: Any, molecule: Any, heavy: Sequence[int]) -> list[Callable[[Any], None]]:
    """All changes by one atom or bond, valid or not."""
    orders = [chem.BondType.values[order] for order in BOND_ORDERS]
    atoms = {number: chem.Atom(number) for number in heavy}
    edits: list[Callable[[Any], None]] = []
    for atom in molecule.GetAtoms():
        place = atom.GetIdx()
        edits += [partial(_replace, place=place, number=number) for number in heavy if number != atom.GetAtomicNum()]
        edits += [partial(_attach, place=place, atom=new, order=orders[0]) for new in atoms.values()]
        if atom.GetDegree() == 1:
            edits.append(partial(_remove, place=place))
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        edits += [partial(_set_order, ends=ends, order=order) for order in orders]
        if bond.IsInRing():
            edits.append(partial(_open, ends=ends))
    distances = chem.GetDistanceMatrix(molecule)
    for first, second in zip(*np.nonzero(np.triu(distances >= SMALLEST_RING - 1)), strict=True):
        edits.append(partial(_bond, ends=(int(first), int(second)), order=orders[0]))
    return edits


def _replace(molecule: Any, *, place: int, number: int) -> None:
    atom = molecule.GetAtomWithIdx(place)
    atom.SetAtomicNum(number)
    atom.SetFormalCharge(0)
    atom.SetNoImplicit(False)
    atom.SetNumExplicitHs(0)


def _attach(molecule: Any, *, place: int, atom: Any, order: Any) -> None:
    molecule.AddBond(place, molecule.AddAtom(atom), order)


def _remove(molecule: Any, *, place: int) -> None:
    molecule.RemoveAtom(place)


def _set_order(molecule: Any, *, ends: tuple[int, int], order: Any) -> None:
    molecule.GetBondBetweenAtoms(*ends).SetBondType(order)


def _open(molecule: Any, *, ends: tuple[int, int]) -> None:
    molecule.RemoveBond(*ends)


def _bond(molecule: Any, *, ends: tuple[int, int], order: Any) -> None:
    molecule.AddBond(*ends, order)


def _canonical(chem: Any, smiles: str) -> str | None:
    molecule = chem.MolFromSmiles(smiles)
    return None if molecule is None else str(chem.MolToSmiles(molecule))


def _is_closed_shell(smiles: str) -> bool:
    try:
        return parse_smiles(smiles).charge == 0
    except GeometryError:
        return False
