"""Source ``pyscf_molecule``: integrals, labels and basis data of molecules by PySCF.

PySCF evaluates text in several places, so it gets typed lists only, and basis names are looked up in its own library,
never read from a file. Lengths go in as Å, by name; everything that comes out is in hartree, in PySCF's AO order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.data.nist import BOHR
from pyscf.gto.basis import ALIAS, GTH_ALIAS

from model.blocks.block_set import BlockSet
from model.electronic.overlap import OverlapFactor
from model.errors import CheckpointError, UnsupportedBasisError, UnsupportedElementError
from model.integrals.coulomb import coulomb_potentials, gaussian_potentials
from model.level import fold_basis
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure


class PySCFMolecule:
    """The source.

    Args:
        space: its name is PySCF's name of the basis.
    """

    name = "pyscf_molecule"

    def __init__(self, space: OrbitalSpace) -> None:
        self.space = space

    def integrals(self, structure: Structure, pairs: PairList, given: Mapping[str, BlockSet]) -> MoleculeIntegrals:
        return integrals(structure, self.space.name)

    def verify(self, space: OrbitalSpace) -> None:
        verify_basis(space)


class MoleculeIntegrals:
    """One-electron integrals of a molecule, computed when they are first asked for, each (ao, ao), hartree, PySCF order.

    Args:
        structure: closed shell or not; charge and multiplicity go to PySCF.
        basis: PySCF's name.
    """

    warnings = ()

    def __init__(self, structure: Structure, basis: str) -> None:
        self.structure = structure
        self.basis = basis

    @cached_property
    def mole(self) -> Any:
        """PySCF's molecule."""
        return build_mole(self.structure, self.basis)

    @cached_property
    def bare(self) -> Any:
        """See :func:`bare_mole`."""
        return bare_mole(self.structure.numbers, self.structure.positions_angstrom, self.basis)

    @cached_property
    def overlap(self) -> NDArray[np.float64]:
        """S."""
        return np.asarray(self.bare.intor_symmetric("int1e_ovlp"))

    @cached_property
    def factor(self) -> OverlapFactor:
        """S diagonalised: once for H0, damping and orbitals."""
        return OverlapFactor.of(self.overlap)

    @cached_property
    def kinetic(self) -> NDArray[np.float64]:
        """Kinetic energy."""
        return np.asarray(self.bare.intor_symmetric("int1e_kin"))

    @cached_property
    def nuclear(self) -> NDArray[np.float64]:
        """Nuclear attraction."""
        return np.asarray(self.bare.intor_symmetric("int1e_nuc"))

    @property
    def core(self) -> NDArray[np.float64]:
        """Kinetic energy plus nuclear attraction."""
        return self.kinetic + self.nuclear

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """ "0 O 1s" and so on, (ao,)."""
        symbols = self.structure.symbols
        return tuple(
            f"{atom} {label}" for atom, symbol in enumerate(symbols) for label in _element_labels(self.basis, symbol)
        )

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers, (atom,)."""
        return self.structure.numbers

    @property
    def n_occupied(self) -> int:
        """Doubly occupied orbitals of the closed shell."""
        return self.structure.n_electrons // 2

    def coulomb(self, exponents: NDArray[np.float64], charges: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """See :func:`model.integrals.coulomb.coulomb_potentials`."""
        return coulomb_potentials(self.bare, exponents, charges)

    def potentials(
        self, exponents: NDArray[np.float64], contractions: Mapping[int, NDArray[np.float64]]
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """See :func:`gaussian_potentials`."""
        return gaussian_potentials(self.bare, exponents, contractions)


def basis_data(name: str, numbers: Sequence[int]) -> dict[str, Any]:
    """PySCF's own table of a basis for some elements: symbol -> shells.

    Raises:
        UnsupportedBasisError: PySCF's library does not have this basis.
        UnsupportedElementError: it does, but not for one of the elements.
    """
    if fold_basis(name) not in {**ALIAS, **GTH_ALIAS}:
        raise UnsupportedBasisError(
            f"PySCF's library has no basis {name[:40]!r}.", hint="Give a name such as def2-svp."
        )
    return {SYMBOLS[int(number)]: _element_data(name, SYMBOLS[int(number)]) for number in numbers}


@lru_cache(maxsize=512)
def _element_data(name: str, symbol: str) -> list[Any]:
    """One element's shells; PySCF parses its text file anew each time, a fifth of a small molecule's integrals."""
    try:
        shells: list[Any] = gto.basis.load(name, symbol)
    except (KeyError, RuntimeError) as error:
        raise UnsupportedElementError(f"Basis {name!r} has no data for {symbol}.", field="numbers") from error
    return shells


@lru_cache(maxsize=512)
def _element_labels(name: str, symbol: str) -> tuple[str, ...]:
    """PySCF's labels of one element's orbitals without the atom's number, "O 1s" and so on; slow to make for a molecule."""
    number = SYMBOLS.index(symbol)
    atom = gto.M(
        atom=[(symbol, (0.0, 0.0, 0.0))],
        basis=basis_data(name, [number]),
        spin=None,
        verbose=0,
        parse_arg=False,
        dump_input=False,
    )
    return tuple(label.strip().partition(" ")[2] for label in atom.ao_labels())


def load_basis(name: str, numbers: Sequence[int]) -> OrbitalSpace:
    """Shells and fingerprint of a PySCF basis for some elements.

    The fingerprint is the SHA-256 of all exponents and contraction coefficients as text: two bases with the same one give
    the same integrals.

    Raises:
        UnsupportedBasisError, UnsupportedElementError: see :func:`basis_data`.
    """
    data = basis_data(name, sorted({int(number) for number in numbers}))
    shells = {}
    for symbol, entries in data.items():
        angular: list[int] = []
        for entry in entries:
            n_contracted = len(entry[-1]) - 1
            angular += [int(entry[0])] * n_contracted
        shells[SYMBOLS.index(symbol)] = tuple(sorted(angular))
    return OrbitalSpace(name=name, shells=shells, fingerprint=fingerprint(data))


def fingerprint(data: Mapping[str, Any]) -> str:
    """SHA-256 over a basis table {symbol: shells}."""
    text = json.dumps({symbol: data[symbol] for symbol in sorted(data)}, default=float)
    return hashlib.sha256(text.encode()).hexdigest()


def build_mole(structure: Structure, basis_name: str) -> Any:
    """PySCF's ``Mole`` of a structure (silent, no symmetry)."""
    return typed_mole(
        structure.numbers,
        structure.positions_angstrom,
        basis_name,
        charge=int(structure.charge),
        spin=int(structure.multiplicity) - 1,
    )


def typed_mole(
    numbers: NDArray[np.int64],
    positions_angstrom: NDArray[np.float64],
    basis_name: str,
    *,
    charge: int = 0,
    spin: int | None = None,
) -> Any:
    """PySCF's ``Mole`` from typed lists alone, nothing that it would evaluate.

    Args:
        numbers, positions_angstrom: the atoms.
        basis_name: of PySCF's library.
        charge: total charge.
        spin: unpaired electrons; None takes the fewest, for integrals that do not depend on them.
    """
    return gto.M(
        atom=[(SYMBOLS[int(z)], tuple(float(c) for c in x)) for z, x in zip(numbers, positions_angstrom, strict=True)],
        unit="Angstrom",
        basis=basis_data(basis_name, sorted({int(z) for z in numbers})),
        charge=charge,
        spin=spin,
        verbose=0,
        parse_arg=False,
        dump_input=False,
    )


@lru_cache(maxsize=512)
def _element_arrays(name: str, symbol: str) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """libcint's shells of one element, pointers counted from the start of their numbers, and these numbers."""
    number = SYMBOLS.index(symbol)
    atom = typed_mole(np.array([number]), np.zeros((1, 3)), name)
    first = int(atom._bas[:, gto.PTR_EXP].min())
    shells = atom._bas.copy()
    shells[:, [gto.PTR_EXP, gto.PTR_COEFF]] -= first
    return shells, atom._env[first:].copy()


def bare_mole(numbers: NDArray[np.int64], positions_angstrom: NDArray[np.float64], basis_name: str) -> Any:
    """A ``Mole`` for integrals alone, put together from its elements' arrays: PySCF takes a millisecond to build one.

    It has atoms, shells and their numbers, in PySCF's order; no names, no basis by element, no electrons.

    Args:
        numbers, positions_angstrom: the atoms.
        basis_name: of PySCF's library.
    """
    count, start = len(numbers), gto.PTR_ENV_START
    places = np.zeros((count, 4))  # of each atom x, y, z, and the width of a nucleus that is none
    places[:, :3] = positions_angstrom / BOHR
    atoms = np.zeros((count, gto.ATM_SLOTS), dtype=np.int32)
    atoms[:, gto.CHARGE_OF], atoms[:, gto.NUC_MOD_OF] = numbers, gto.NUC_POINT
    atoms[:, gto.PTR_COORD] = start + 4 * np.arange(count)
    atoms[:, gto.PTR_ZETA] = atoms[:, gto.PTR_COORD] + 3
    parts, of_element, pointer = [np.zeros(start), places.ravel()], {}, start + places.size
    for number in sorted(set(numbers.tolist())):
        shells, values = _element_arrays(basis_name, SYMBOLS[number])
        of_element[number] = shells.copy()
        of_element[number][:, [gto.PTR_EXP, gto.PTR_COEFF]] += pointer
        parts.append(values)
        pointer += len(values)
    shells = np.concatenate([of_element[number] for number in numbers.tolist()])
    counts = [len(of_element[number]) for number in numbers.tolist()]
    shells[:, gto.ATOM_OF] = np.repeat(np.arange(count), counts)
    mole = gto.Mole()
    mole._atm, mole._bas, mole._env, mole._built = atoms, shells, np.concatenate(parts), True
    return mole


def integrals(structure: Structure, basis_name: str) -> MoleculeIntegrals:
    """Integrals of a structure, none of them computed yet."""
    return MoleculeIntegrals(structure, basis_name)


def verify_basis(space: OrbitalSpace) -> None:
    """Refuse a space that is not what the installed PySCF makes of its name.

    Raises:
        CheckpointError: other shells or other functions.
    """
    loaded = load_basis(space.name, space.elements)
    if loaded.fingerprint != space.fingerprint or dict(loaded.shells) != dict(space.shells):
        raise CheckpointError(
            f"Basis {space.name!r} of the installed PySCF is not the one that the checkpoint was made with.",
            hint="Install the PySCF version that the card's 'libraries' names.",
        )
