"""Requests: the options of each route, and the same options with a structure (the JSON body).

A batch has one set of options for all its structures. The options are the form fields of a multipart request and the query
parameters of a raw body, under the same names.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from service.schemas.base import WireModel
from service.schemas.structures import WireStructure

Output = Literal[
    "orbital_energies",
    "hamiltonian",
    "overlap",
    "mo_coeff",
    "density_matrix",
    "blocks",
    "overlap_blocks",
    "density_blocks",
    "fermi_energy",
]
OUTPUTS: tuple[str, ...] = get_args(Output)
CRYSTAL_OUTPUTS: tuple[str, ...] = ("blocks", "overlap_blocks", "density_blocks", "fermi_energy")
MOLECULE_OUTPUTS: tuple[str, ...] = OUTPUTS[: OUTPUTS.index("blocks") + 1]
DEFAULT_CRYSTAL_OUTPUTS: tuple[str, ...] = ("fermi_energy",)
AOOrder = Literal["pyscf", "e3nn"]
EnergyUnit = Literal["hartree", "eV"]
Outputs = Annotated[tuple[Output, ...], Field(max_length=len(OUTPUTS))]
Mesh = Annotated[str, Field(max_length=11, pattern=r"^[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){2}$")]
"""A Gamma-centred mesh of k-points, "6x6x1"."""
MAX_K_POINTS: Final = 2000
JSON_ONLY: Final = frozenset({"kpts", "overlap"})
"""Options that are no form fields or query parameters."""
KCoordinate = Annotated[float, Field(ge=-1000.0, le=1000.0)]
KPoint = tuple[KCoordinate, KCoordinate, KCoordinate]
KPoints = Annotated[list[KPoint], Field(min_length=1, max_length=MAX_K_POINTS)]
Shift = Annotated[int, Field(ge=-500, le=500)]
EnergyEV = Annotated[float, Field(ge=-1000.0, le=1000.0)]
Window = tuple[EnergyEV, EnergyEV]
"""Lowest and highest energy from the Fermi level, eV."""
Width = Annotated[float, Field(ge=0.001, le=10.0)]
"""Standard deviation of a level, eV."""
PathName = Annotated[str, Field(min_length=2, max_length=100, pattern=r"^[A-Za-z0-9,]+$")]
PathPoints = Annotated[int, Field(ge=2, le=MAX_K_POINTS)]
States = Annotated[int, Field(ge=2, le=400)]
"""Bands around the Fermi level."""


class StructureOptions(WireModel):
    """Options of every route that takes a structure.

    Attributes:
        charge: total charge in units of e; default 0.
        multiplicity: 2S + 1; default 1.
        pbc: false takes a cell for a box around a molecule, true for a crystal's; null for what the structure states.
        model: name of a loaded model; null for the one that fits structure, functional and basis best.
        xc: the functional the caller will run; a mismatch with the model is a warning.
        basis: the basis the caller will run; if no model has it, the answer is in the model's own, with a warning.
        kmesh: k-points on which a crystal's levels are filled; null for one whose spacing suits the cell.
        energy_unit: unit of energies and Hamiltonians.
        format_out: format of the answer; the query parameter and the Accept header say the same.
    """

    charge: Annotated[int, Field(ge=-100, le=100)] = 0
    multiplicity: Annotated[int, Field(ge=1, le=100)] = 1
    pbc: bool | None = None
    model: Annotated[str, Field(max_length=64)] | None = None
    xc: Annotated[str, Field(max_length=100)] | None = None
    basis: Annotated[str, Field(max_length=100)] | None = None
    kmesh: Mesh | None = None
    energy_unit: EnergyUnit = "hartree"
    format_out: Annotated[str, Field(max_length=40)] | None = None


class CommonOptions(StructureOptions):
    """Options of the routes that answer with matrices.

    Attributes:
        ao_order: order of the AOs in every AO-indexed array.
    """

    ao_order: AOOrder = "pyscf"


class PredictOptions(CommonOptions):
    """Options of ``/v1/predict``.

    Attributes:
        outputs: what to send back; with ``orbital_energies`` come occupations, homo, lumo and gap. Where it is left out, a
            crystal's are ``DEFAULT_CRYSTAL_OUTPUTS``.
    """

    outputs: Annotated[Outputs, Field(min_length=1)] = ("orbital_energies",)


class GuessOptions(CommonOptions):
    """Options of ``/v1/initial-guess``.

    Attributes:
        outputs: further arrays to add to the four of a guess, or to those of a crystal's in k (json, npz and safetensors
            only).
        project: to the ``basis`` that was asked for, where it is not the model's: the occupied orbitals and their density.
        orbital: of a cube, the orbital to draw: homo, lumo, homo-1, lumo+2, or its number from 0; null for the density.
        kpts: fractional k-points of a crystal's guess, all of the same weight, instead of kmesh (JSON bodies only).
    """

    outputs: Outputs = ()
    project: bool = False
    orbital: Annotated[str, Field(max_length=8, pattern=r"^((homo|lumo)([+-][0-9]{1,3})?|[0-9]{1,4})$")] | None = None
    kpts: KPoints | None = None


class BandsOptions(StructureOptions):
    """Options of ``/v1/bands``.

    Attributes:
        path: names of special points, "GMKG", with a comma between pieces that do not touch; null for the usual path.
        npoints: k-points of the path, about.
        kpts: fractional k-points instead of a path (JSON bodies only).
        states: only so many bands around the Fermi level, which large cells find from sparse matrices; null for all, or of
            a job whose cell is too large for that, as many as ``crystals.plan.DEFAULT_STATES``.
        window_ev: only bands that enter it, from the Fermi level; null for all. Of a picture, what it shows.
    """

    path: PathName | None = None
    npoints: PathPoints | None = None
    kpts: KPoints | None = None
    states: States | None = None
    window_ev: Window | None = None


class DosOptions(StructureOptions):
    """Options of ``/v1/dos``.

    Attributes:
        window_ev: lowest and highest energy, from the Fermi level.
        sigma_ev: standard deviation of the Gaussian that each level becomes.
    """

    window_ev: Window = (-10.0, 10.0)
    sigma_ev: Width = 0.1


class OverlapBlock(WireModel):
    """Block of atom ``i`` at home and atom ``j`` in the cell ``shift``, rows of orbitals of ``i``."""

    i: Annotated[int, Field(ge=0, le=100_000)]
    j: Annotated[int, Field(ge=0, le=100_000)]
    shift: tuple[Shift, Shift, Shift]
    matrix: Annotated[list[list[float]], Field(min_length=1)]


class OwnOverlap(WireModel):
    """The caller's S(R) of a crystal.

    Attributes:
        blocks: of a pair and its reverse one is enough; missing ones are zero.
        ao_order: of their rows and columns.
    """

    blocks: Annotated[list[OverlapBlock], Field(min_length=1)]
    ao_order: AOOrder = "pyscf"


class StructureBody(WireModel):
    """What a JSON body of one structure has beside its options.

    Attributes:
        overlap: S(R) of a crystal, for models that cannot compute it.
    """

    structure: WireStructure
    overlap: OwnOverlap | None = None


class BandsRequest(BandsOptions, StructureBody):
    """JSON body of ``/v1/bands``."""


class DosRequest(DosOptions, StructureBody):
    """JSON body of ``/v1/dos``."""


class PredictRequest(PredictOptions, StructureBody):
    """JSON body of ``/v1/predict``."""


class GuessRequest(GuessOptions, StructureBody):
    """JSON body of ``/v1/initial-guess``."""


class BatchRequest(PredictOptions):
    """JSON body of ``/v1/predict/batch``: structures, and the options of all of them."""

    structures: Annotated[list[WireStructure], Field(min_length=1)]
