"""What a caller has (a PySCF Mole, an ase.Atoms, a QCElemental molecule, a file ...) turned into what the server takes.

None of those packages is imported: an object is known by its methods, so that this module costs nothing where they are
absent. Lengths leave in Å.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.elements import NUMBER_OF_SYMBOL, SYMBOLS
from tracegrad_client.errors import InvalidInputError
from tracegrad_client.stated import Stated
from tracegrad_client.structure_file import StructureFile

ANGSTROM_PER_BOHR: Final = 0.529177210903
"""CODATA 2018, as the server has it."""

KNOWN: Final = (
    "Give a PySCF Mole, an ase.Atoms, a QCElemental Molecule, the name of a structure file, or "
    "(numbers, positions_in_angstrom)."
)


class Sent(Protocol):
    """What a request may be about: a :class:`Molecule`, or a file that the server will read."""

    @property
    def charge(self) -> int | None:
        """Total charge; None leaves it to the file."""

    @property
    def multiplicity(self) -> int | None:
        """2S + 1; None leaves it to the file."""

    @property
    def electrons(self) -> int | None:
        """Their number; None where only the server knows."""

    @property
    def pbc(self) -> tuple[bool, bool, bool]:
        """Periodicity along each lattice vector; of a file as far as is known."""

    def structure(self) -> dict[str, Any]:
        """The JSON object ``structure`` of a request."""


@dataclass(frozen=True, eq=False)
class Molecule:
    """A structure ready to be sent.

    Attributes:
        numbers: atomic numbers, shape (atom,).
        positions_angstrom: shape (atom, 3), Å.
        charge: total charge in units of e.
        multiplicity: 2S + 1.
        cell_angstrom: lattice vectors as rows, or None.
        pbc: periodicity along each lattice vector.
    """

    numbers: NDArray[np.int64]
    positions_angstrom: NDArray[np.float64]
    charge: int = 0
    multiplicity: int = 1
    cell_angstrom: NDArray[np.float64] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)

    @property
    def electrons(self) -> int:
        """Number of electrons."""
        return int(self.numbers.sum()) - self.charge

    def structure(self) -> dict[str, Any]:
        """The JSON object ``structure`` of a request; charge and multiplicity stand beside it."""
        return {
            "kind": "atoms",
            "numbers": self.numbers.tolist(),
            "positions": self.positions_angstrom.tolist(),
            "cell": None if self.cell_angstrom is None else self.cell_angstrom.tolist(),
            "pbc": list(self.pbc),
        }

    def __repr__(self) -> str:
        symbols = [SYMBOLS[number] for number in self.numbers if number < len(SYMBOLS)]
        formula = "".join(f"{s}{symbols.count(s) if symbols.count(s) > 1 else ''}" for s in sorted(set(symbols)))
        return f"Molecule({formula}, charge={self.charge}, multiplicity={self.multiplicity})"


def is_mole(value: object) -> bool:
    """Whether ``value`` is a PySCF Mole (or walks and quacks like one)."""
    return all(hasattr(value, name) for name in ("atom_coords", "atom_charges", "ao_labels", "intor_symmetric"))


def as_sent(value: Any, *, charge: int | None = None, multiplicity: int | None = None) -> Sent:
    """What is sent for a molecule of any kind; a name is that of a structure file.

    Raises:
        InvalidInputError: see :func:`as_molecule`; a file that cannot be read.
    """
    if isinstance(value, (str, os.PathLike)):
        value = StructureFile.read(Path(value))
    if isinstance(value, StructureFile):
        return value.stating(charge, multiplicity)
    return as_molecule(value, charge=charge, multiplicity=multiplicity)


def as_molecule(value: Any, *, charge: int | None = None, multiplicity: int | None = None) -> Molecule:
    """A :class:`Molecule` from a Mole, an ase.Atoms, a QCElemental or QCSchema molecule, or (numbers, positions in Å).

    ``charge`` and ``multiplicity`` default to what the molecule itself says (an ase.Atoms in its ``info`` and in the
    initial charges and magnetic moments of its atoms, the others always), else to 0 and 1.

    Raises:
        InvalidInputError: of another kind, not finite, or outside what a structure on the wire can say.
    """
    if isinstance(value, Molecule):
        return value
    if is_mole(value):
        return _from_mole(value, charge, multiplicity)
    if hasattr(value, "get_atomic_numbers") and hasattr(value, "get_positions"):
        return _from_atoms(value, charge, multiplicity)
    if _is_qcschema(value):
        return _from_qcschema(value, charge, multiplicity)
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return Molecule(*_checked(*value), 0 if charge is None else charge, 1 if multiplicity is None else multiplicity)
    raise InvalidInputError(
        f"An object of type {type(value).__name__} is no molecule that this client knows.", hint=KNOWN
    )


def _checked(numbers: Any, positions: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    try:
        exact = np.asarray(numbers, dtype=np.float64)
        where = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError("Atomic numbers and positions must be plain numbers.") from error
    if exact.ndim != 1 or not len(exact) or where.shape != (len(exact), 3):
        raise InvalidInputError(
            f"Atomic numbers of shape {exact.shape} came with positions of shape {where.shape}.",
            hint="Give one row of three coordinates (Å) for each of at least one atom.",
        )
    if not np.isfinite(where).all():
        raise InvalidInputError("A coordinate is not finite.")
    if not np.isfinite(exact).all() or not (exact == np.round(exact)).all() or exact.min() < 1:
        raise InvalidInputError("Atomic numbers must be whole numbers from 1 on; ghost atoms are not supported.")
    return exact.astype(np.int64), where


def _from_atoms(atoms: Any, charge: int | None, multiplicity: int | None) -> Molecule:
    numbers, positions = _checked(atoms.get_atomic_numbers(), atoms.get_positions())
    periodic = any(atoms.pbc)
    stated = Stated()
    stated.say_keys(getattr(atoms, "info", {}))
    arrays = getattr(atoms, "arrays", {})
    moments = np.asarray(arrays.get("initial_magmoms", ()), dtype=np.float64)
    # vectors say nothing of a multiplicity
    along_axis = moments.tolist() if moments.ndim == 1 else []
    stated.say_atoms(np.asarray(arrays.get("initial_charges", ()), dtype=np.float64).tolist(), along_axis)
    stated.settle(int(numbers.sum()), periodic=periodic)
    return Molecule(
        numbers,
        positions,
        _settled("charge", charge, stated.charge, 0),
        _settled("multiplicity", multiplicity, stated.multiplicity, 1),
        np.array(atoms.cell, dtype=np.float64) if periodic else None,
        (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
    )


def _is_qcschema(value: Any) -> TypeGuard[Any]:
    if isinstance(value, Mapping):
        return "symbols" in value and "geometry" in value
    return hasattr(value, "symbols") and hasattr(value, "geometry") and hasattr(value, "molecular_charge")


def _from_qcschema(value: Any, charge: int | None, multiplicity: int | None) -> Molecule:
    """A QCSchema molecule (bohr), as QCElemental's object or as a mapping."""

    def of(name: str) -> Any:
        return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)

    try:
        symbols = [str(symbol).strip() for symbol in of("symbols")]
    except TypeError as error:
        raise InvalidInputError("The symbols of the molecule are no list.") from error
    if unknown := [symbol for symbol in symbols if symbol.lower() not in NUMBER_OF_SYMBOL]:
        raise InvalidInputError(f"{unknown[0][:20]!r} is not the symbol of an element.")
    numbers = [NUMBER_OF_SYMBOL[symbol.lower()] for symbol in symbols]
    if (real := of("real")) is not None and not all(real):
        raise InvalidInputError("The molecule has ghost atoms, which are not supported.")
    try:
        bohr = np.array(of("geometry"), dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise InvalidInputError("The geometry is not three coordinates (bohr) for each atom.") from error
    said: dict[str, int | None] = {}
    for name in ("molecular_charge", "molecular_multiplicity"):
        number = of(name)
        if number is not None and not float(number).is_integer():
            raise InvalidInputError(f"{name} is {number}, which is no whole number.")
        said[name] = None if number is None else int(number)
    return Molecule(
        *_checked(numbers, bohr * ANGSTROM_PER_BOHR),
        _settled("charge", charge, said["molecular_charge"], 0),
        _settled("multiplicity", multiplicity, said["molecular_multiplicity"], 1),
    )


def _settled(name: str, asked: int | None, said: int | None, default: int) -> int:
    if asked is not None and said is not None and asked != said:
        raise InvalidInputError(f"{name} {asked} was asked for, but the molecule itself says {said}.")
    return next(value for value in (asked, said, default) if value is not None)


def _from_mole(mol: Any, charge: int | None, multiplicity: int | None) -> Molecule:
    if not getattr(mol, "_built", True):
        mol.build(False, False)
    if hasattr(mol, "lattice_vectors"):
        raise InvalidInputError(
            "A periodic Cell came to what is for molecules.",
            hint="Ask for crystal(), crystal_guess(), bands() or dos().",
        )
    if mol.has_ecp():
        raise InvalidInputError("The Mole uses effective core potentials; the models are all-electron.")
    if mol.cart:
        raise InvalidInputError("The Mole uses Cartesian functions.", hint="Set mol.cart = False.")
    numbers, positions = _checked(mol.atom_charges(), mol.atom_coords(unit="Angstrom"))
    said_charge = _settled("charge", charge, int(mol.charge), 0)
    return Molecule(numbers, positions, said_charge, _settled("multiplicity", multiplicity, int(mol.spin) + 1, 1))


def ao_labels(mol: Any) -> tuple[str, ...]:
    """The labels of a Mole's orbitals as the server writes them: ``"0 O 2px"``.

    PySCF prints the symbol that the user chose (``H1``, ``C@2``); the element alone is what both sides know.
    """
    labels = mol.ao_labels(fmt=None)
    return tuple(f"{atom} {mol.atom_pure_symbol(atom)} {shell}{component}" for atom, _, shell, component in labels)
