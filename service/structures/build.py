"""Wire to model: the structure of a request becomes plain numbers, then a ``Structure``; every assumed value is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from model.geometry import CHECK, is_absurd, made_whole
from model.structure import SYMBOLS, Structure
from model.units import ANGSTROM_PER_BOHR
from service.errors import ServiceError
from service.schemas.requests import StructureOptions
from service.schemas.structures import AtomsStructure, FileStructure, QCSchemaMolecule, WireStructure
from service.structures.formats import resolve_format
from service.structures.pool import ParserPool, RawStructure

_NUMBER_OF_SYMBOL: Final = {symbol.lower(): number for number, symbol in enumerate(SYMBOLS) if number > 0} | {
    isotope: 1 for isotope in "dt"
}
_REPORTED_DEFAULTS: Final = ("outputs", "ao_order", "energy_unit")


@dataclass(frozen=True)
class SizeLimits:
    """Caps on one structure: numbers of atoms and of atomic orbitals, and eigensolves of a crystal.

    Attributes:
        max_orbitals: where matrices are dense.
        max_k_cost: k-points times the cube of the orbitals (of both spins, for spinors).
        max_sparse_orbitals: the same as max_orbitals where matrices are sparse; 0 where that makes no difference.
        of_jobs: the caps of jobs, where a larger structure may be sent as one; else None.
    """

    max_atoms: int
    max_orbitals: int
    max_k_cost: int
    max_sparse_orbitals: int = 0
    of_jobs: SizeLimits | None = None

    def check_atoms(self, count: int) -> None:
        """Raise ``too_many_atoms`` before anything is allocated for a structure."""
        if count > self.max_atoms:
            larger = self.of_jobs is not None and count <= self.of_jobs.max_atoms
            raise self._too_large("too_many_atoms", "atoms", count, self.max_atoms, larger=larger)

    def check_orbitals(self, count: int, *, sparse: bool = False, sparse_as_job: bool = False) -> None:
        """Raise ``too_many_orbitals`` before a matrix is allocated for a structure.

        Args:
            count: atomic orbitals.
            sparse: nothing dense is made for it.
            sparse_as_job: nothing dense would be made for it in a job.
        """
        limit = self.orbitals(sparse=sparse)
        if count > limit:
            jobs = self.of_jobs
            larger = jobs is not None and count <= jobs.orbitals(sparse=sparse or sparse_as_job)
            larger = larger and jobs is not None and self.max_atoms <= jobs.max_atoms
            raise self._too_large("too_many_orbitals", "atomic orbitals", count, limit, larger=larger)

    def orbitals(self, *, sparse: bool) -> int:
        """The cap on orbitals."""
        return max(self.max_orbitals, self.max_sparse_orbitals) if sparse else self.max_orbitals

    def check_k_points(self, count: int, each: float, *, what: str, each_as_job: float) -> None:
        """Raise ``too_many_k_points`` before the first of them is solved.

        Args:
            count: k-points.
            each: what one costs, in orbitals cubed.
            what: of which cell, in words.
            each_as_job: the same in a job.
        """
        if count * each <= self.max_k_cost:
            return
        fit = int(self.max_k_cost // each)
        hints = [f"At most {fit} k-points fit: send a smaller kmesh, or fewer points of a path." if fit else ""]
        if self.of_jobs is not None and count * each_as_job <= self.of_jobs.max_k_cost:
            hints.append("POST /v1/jobs takes it as it is.")
        elif not fit:
            hints.append("Send a smaller cell; the blocks of /v1/predict need no k-points.")
        raise ServiceError(
            "too_many_k_points",
            f"{count} k-points of {what} cost {count * each:.1e} (k-points times orbitals cubed); "
            f"at most {self.max_k_cost:.1e} are taken here.",
            field="kmesh",
            hint=" ".join(filter(None, hints)),
        )

    def _too_large(self, code: str, what: str, count: int, limit: int, *, larger: bool) -> ServiceError:
        hint, jobs = "Send a smaller structure.", self.of_jobs
        if larger and jobs is not None:
            hint = (
                f"Send it as a job (POST /v1/jobs), which takes up to {jobs.max_atoms} atoms and {jobs.max_orbitals} atomic "
                f"orbitals ({jobs.orbitals(sparse=True)} for blocks and bands of a crystal)."
            )
        return ServiceError(
            code, f"The structure has {count} {what}; at most {limit} are taken here.", field="structure", hint=hint
        )


async def read_structure(wire: WireStructure | RawStructure, parsers: ParserPool, limits: SizeLimits) -> RawStructure:
    """The plain numbers of a structure, whichever way it came; lengths in Å.

    Args:
        wire: as sent; plain numbers are what they are.
        parsers: read it if it is a file.
        limits: on its atoms.

    Raises:
        ServiceError: what the file formats and parsers raise; ``invalid_request`` and ``unsupported_element`` for a
            QCSchema molecule that does not fit together.
    """
    if isinstance(wire, RawStructure):
        return wire
    if isinstance(wire, FileStructure):
        file_format = resolve_format(wire.format)
        return await parsers.parse(file_format, wire.text, max_atoms=limits.max_atoms, frame=wire.frame)
    if isinstance(wire, AtomsStructure):
        cell = [list(vector) for vector in wire.cell] if wire.cell is not None else None
        return RawStructure(numbers=wire.numbers, positions=wire.positions, cell=cell, pbc=wire.pbc)
    return _from_qcschema(wire.molecule)


@dataclass(frozen=True)
class Built:
    """A structure of a request.

    Attributes:
        structure: as the model takes it.
        defaults: what was assumed to make it one.
        notes: what its reader chose or converted, for the caller.
    """

    structure: Structure
    defaults: list[str]
    notes: tuple[str, ...]


def build_structure(raw: RawStructure, options: StructureOptions, limits: SizeLimits) -> Built:
    """Check the caps, settle charge, multiplicity and periodicity, build the ``Structure``.

    Raises:
        ServiceError: ``too_many_atoms``; ``invalid_request`` for a charge that contradicts the file, or a crystal that is
            called a molecule.
        StructureError: not a physical structure.
    """
    limits.check_atoms(len(raw.numbers))
    defaults: list[str] = []
    charge = _settle("charge", options.charge, raw.charge, options, defaults)
    multiplicity = _settle("multiplicity", options.multiplicity, raw.multiplicity, options, defaults)
    pbc = raw.pbc if options.pbc is None else (options.pbc,) * 3
    notes = raw.notes
    positions = _array(raw.positions)
    if any(raw.pbc) and not any(pbc) and raw.numbers:
        positions, moved = _molecule_in_box(raw, pbc=raw.pbc)
        notes = (*notes, *moved)
    structure = Structure(
        numbers=_array(raw.numbers),
        positions_angstrom=positions,
        charge=charge,
        multiplicity=multiplicity,
        # A cell without periodicity is a box drawn around a molecule.
        cell_angstrom=_array(raw.cell) if raw.cell is not None and any(pbc) else None,
        pbc=pbc,
    )
    if not structure.is_periodic and is_absurd(structure.numbers, structure.positions_angstrom):
        raise ServiceError(
            "invalid_request",
            "The distances are those of no molecule: no atom has another at the length of a bond.",
            field="structure",
            hint=f"{CHECK[0].upper()}{CHECK[1:]}",
        )
    return Built(structure, defaults, notes)


def _molecule_in_box(raw: RawStructure, pbc: tuple[bool, bool, bool]) -> tuple[Any, tuple[str, ...]]:
    """Positions of a molecule that its periodic box may have cut, and a note if it had."""
    numbers, positions, cell = _array(raw.numbers), _array(raw.positions), _array(raw.cell)
    if np.shape(positions) != (len(raw.numbers), 3) or np.shape(cell) != (3, 3) or not np.isfinite(positions).all():
        return positions, ()  # Structure's own checks answer for it
    if abs(np.linalg.det(cell)) < 1e-6 or not 0 < numbers.min() <= numbers.max() < len(SYMBOLS):
        return positions, ()
    placed, crystal = made_whole(numbers, positions, cell, pbc)
    if crystal:
        raise ServiceError(
            "invalid_request",
            "pbc=false takes the cell for a box around a molecule, but atoms are bonded across it: it is a crystal's.",
            field="pbc",
            hint="Send it as a crystal, or a box with vacuum around the molecule.",
        )
    if np.abs(placed - positions).max() < 1e-6:
        return positions, ()
    return placed, ("The box had cut the molecule; its parts were put next to each other.",)


def option_defaults(options: StructureOptions, model_name: str, settled: Sequence[str] = ()) -> list[str]:
    """The options that the caller left open, as ``name=value``.

    Args:
        options: as validated.
        model_name: of the model that answers.
        settled: those that depend on the structure, which come instead of the general ones of their name.
    """
    applied = [] if options.model is not None else [f"model={model_name}"]
    for name in _REPORTED_DEFAULTS:
        value = getattr(options, name, None)
        if any(text.startswith(f"{name}=") for text in settled):
            continue
        if name not in options.model_fields_set and value:
            applied.append(f"{name}={','.join(value) if isinstance(value, tuple) else value}")
    return [*applied, *settled]


def _settle(name: str, option: int, stated: int | None, options: StructureOptions, defaults: list[str]) -> int:
    """The caller's option, else what the source states, else the default; the last two are reported."""
    if name in options.model_fields_set:
        if stated is not None and stated != option:
            raise ServiceError(
                "invalid_request",
                f"The option {name} is not the {name} that the structure itself states.",
                field=name,
                hint=f"Leave out one of the two {name}s.",
            )
        return option
    if stated is not None:
        defaults.append(f"{name}={stated} (stated by the structure)")
        return stated
    defaults.append(f"{name}={option}")
    return option


def _from_qcschema(molecule: QCSchemaMolecule) -> RawStructure:
    numbers = []
    for index, symbol in enumerate(molecule.symbols):
        number = _NUMBER_OF_SYMBOL.get(symbol.strip().lower())
        if number is None:
            raise ServiceError(
                "unsupported_element",
                "A symbol is not that of an element.",
                field=f"structure.molecule.symbols[{index}]",
                hint="Use element symbols such as C, N and O; ghost and dummy atoms are not supported.",
            )
        numbers.append(number)
    if molecule.real is not None and not all(molecule.real):
        raise ServiceError(
            "unsupported_element",
            "Ghost atoms are not supported.",
            field="structure.molecule.real",
            hint="Remove them.",
        )
    flat: list[Any] = []
    for item in molecule.geometry:
        flat.extend(item if isinstance(item, tuple) else (item,))
    if len(flat) != 3 * len(numbers):
        raise ServiceError(
            "invalid_request",
            f"{len(numbers)} symbols came with {len(flat)} coordinates.",
            field="structure.molecule.geometry",
            hint="Send three coordinates for each atom, in bohr.",
        )
    positions = [[value * ANGSTROM_PER_BOHR for value in flat[3 * i : 3 * i + 3]] for i in range(len(numbers))]
    return RawStructure(
        numbers=numbers,
        positions=positions,
        charge=_integer("molecular_charge", molecule.molecular_charge),
        multiplicity=_integer("molecular_multiplicity", molecule.molecular_multiplicity),
    )


def _integer(name: str, value: float | None) -> int | None:
    if value is None:
        return None
    if not value.is_integer() or abs(value) > 100:
        raise ServiceError(
            "invalid_request",
            "Fractional or huge charges and multiplicities are not supported.",
            field=f"structure.molecule.{name}",
            hint="Send a small whole number.",
        )
    return int(value)


def _array(values: Any) -> Any:
    # Structure's own checks answer for what does not fit; a ragged list must reach them as it is.
    try:
        return np.asarray(values)
    except ValueError:
        return values
