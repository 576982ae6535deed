"""What a caller has (a PySCF Mole, an ase.Atoms, numbers and positions) turned into what the server takes.

Neither PySCF nor ASE is imported: an object is known by its methods, so that this module costs nothing where those
packages are absent. Lengths leave in Å.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import InvalidInputError


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

    def structure(self) -> dict[str, Any]:
        """The JSON object ``structure`` of a request; charge and multiplicity stand beside it."""
        return {
            "kind": "atoms",
            "numbers": self.numbers.tolist(),
            "positions": self.positions_angstrom.tolist(),
            "cell": None if self.cell_angstrom is None else self.cell_angstrom.tolist(),
            "pbc": list(self.pbc),
        }


def is_mole(value: object) -> bool:
    """Whether ``value`` is a PySCF Mole (or walks and quacks like one)."""
    return all(hasattr(value, name) for name in ("atom_coords", "atom_charges", "ao_labels", "intor_symmetric"))


def as_molecule(value: Any, *, charge: int | None = None, multiplicity: int | None = None) -> Molecule:
    """A :class:`Molecule` from a Mole, an ase.Atoms, or a pair (numbers, positions in Å).

    ``charge`` and ``multiplicity`` default to what the molecule itself says (a Mole always, an ase.Atoms in its ``info``),
    else to 0 and 1.

    Raises:
        InvalidInputError: of another kind, not finite, or outside what a structure on the wire can say.
    """
    if isinstance(value, Molecule):
        return value
    if is_mole(value):
        return _from_mole(value, charge, multiplicity)
    if hasattr(value, "get_atomic_numbers") and hasattr(value, "get_positions"):
        return _from_atoms(value, charge, multiplicity)
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return Molecule(*_checked(*value), 0 if charge is None else charge, 1 if multiplicity is None else multiplicity)
    raise InvalidInputError(
        f"A {type(value).__name__} is no molecule that this client knows.",
        hint="Give a PySCF Mole, an ase.Atoms, or (numbers, positions_in_angstrom).",
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
    cell = np.array(atoms.cell, dtype=np.float64) if any(atoms.pbc) else None
    return Molecule(
        numbers,
        positions,
        _settled("charge", charge, _stated(atoms, "charge", "total_charge"), 0),
        _settled("multiplicity", multiplicity, _stated(atoms, "multiplicity", "spin_multiplicity"), 1),
        cell,
        (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
    )


def _stated(atoms: Any, *names: str) -> int | None:
    """What ``atoms.info`` says under one of these names, which ASE's readers fill from files and the server knows too."""
    info = getattr(atoms, "info", {})
    for name in names:
        value = info.get(name)
        if isinstance(value, Real) and not isinstance(value, bool):
            if float(value).is_integer():
                return int(float(value))
            raise InvalidInputError(f"atoms.info[{name!r}] is {value}, which is no whole number.")
    return None


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
