"""The three JSON ways to send a structure: atoms, the text of a file, a QCSchema molecule."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from service.schemas.base import Vector, WireInteger, WireModel

MAX_FRAMES: Final = 100_000
"""More than a file of a megabyte can hold."""


class AtomsStructure(WireModel):
    """Atomic numbers and positions.

    Attributes:
        numbers: atomic numbers, one for each atom.
        positions: Cartesian positions in Å, one row of three for each atom.
        cell: lattice vectors as rows, in Å, or null for a molecule.
        pbc: periodicity along each lattice vector.
    """

    kind: Literal["atoms"]
    numbers: list[WireInteger]
    positions: list[Vector]
    cell: tuple[Vector, Vector, Vector] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)


class FileStructure(WireModel):
    """The text of a structure file.

    Attributes:
        format: an ASE format name of the accepted list (``xyz``, ``extxyz``, ``cif`` ...).
        text: the whole file.
        frame: which of its structures, from 1; null for the only one.
    """

    kind: Literal["file"]
    format: Annotated[str, Field(max_length=40)]
    text: str
    frame: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None


class QCSchemaMolecule(WireModel):
    """A QCSchema (v1 or v2) molecule; geometry in bohr.

    Only elements, geometry, charge and multiplicity are used. The remaining fields of the schema are accepted and
    ignored, except ``real``: ghost atoms are refused.
    """

    symbols: list[Annotated[str, Field(max_length=8)]]
    geometry: list[float] | list[Vector]
    molecular_charge: float | None = None
    molecular_multiplicity: float | None = None
    real: list[bool] | None = None

    schema_name: Any = None
    schema_version: Any = None
    validated: Any = None
    name: Any = None
    comment: Any = None
    identifiers: Any = None
    masses: Any = None
    atomic_numbers: Any = None
    mass_numbers: Any = None
    atom_labels: Any = None
    connectivity: Any = None
    fragments: Any = None
    fragment_charges: Any = None
    fragment_multiplicities: Any = None
    fix_com: Any = None
    fix_orientation: Any = None
    fix_symmetry: Any = None
    provenance: Any = None
    id: Any = None
    extras: Any = None


class QCSchemaStructure(WireModel):
    """A QCSchema molecule as a structure."""

    kind: Literal["qcschema"]
    molecule: QCSchemaMolecule


WireStructure = Annotated[AtomsStructure | FileStructure | QCSchemaStructure, Field(discriminator="kind")]
