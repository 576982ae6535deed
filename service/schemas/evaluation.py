"""``/v1/evaluate``: options, request and answer."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from service.schemas.base import WireModel
from service.schemas.requests import StructureOptions
from service.schemas.responses import Checks, Meta
from service.schemas.structures import WireStructure

GivenOrder = Literal["pyscf", "e3nn", "openmx", "siesta", "abacus", "gpaw", "orca"]
"""``model.orbitals.orders.ORDERS``."""
FILE_OPTIONS: Final = frozenset({"fock"})
"""Options that are files in a multipart body."""


class EvaluateOptions(StructureOptions):
    """Options of ``/v1/evaluate``. ``energy_unit`` is the unit of the matrix that came, and of what is answered.

    Attributes:
        ao_order: order and signs of the orbitals of the matrices that came, by the program that has them.
        fock: an npz (npy, safetensors) file with the arrays ``fock``, (ao, ao), and best also ``overlap``; base64 in a JSON
            body, a part of that name in a multipart body.
    """

    ao_order: GivenOrder = "pyscf"
    fock: Annotated[str, Field(min_length=1)]


class EvaluateRequest(EvaluateOptions):
    """JSON body of ``/v1/evaluate``."""

    structure: WireStructure


class Figures(WireModel):
    """Figures of a matrix against the caller's (docs/metrics.md); energies in the answer's unit.

    Attributes:
        hamiltonian, hamiltonian_diagonal, hamiltonian_off_diagonal: mean error of all entries, of the blocks of one atom, of
            those of two.
        occupied_energies: mean error of the occupied orbitals' energies.
        homo, lumo, gap: predicted less the caller's.
        psi, psi_overlap: mean cosine of the occupied orbitals in percent, without and with the overlap.
        subspace: distance of the occupied spaces: root of the sum of sin^2 of the angles between them.
        homo_distance, lumo_distance: of the frontier levels, 0 the same, 1 orthogonal.
        error_oo, error_ov, error_vv: shares of the squared error among occupied and empty orbitals; ov moves the density.
        density, density_per_electron: of the density, to first order in the error of the matrix.
        density_exact, density_exact_per_electron: of the very density that ``/v1/initial-guess`` gives.
    """

    hamiltonian: float
    hamiltonian_diagonal: float
    hamiltonian_off_diagonal: float
    occupied_energies: float
    homo: float
    lumo: float
    gap: float
    psi: float
    psi_overlap: float
    subspace: float
    homo_distance: float
    lumo_distance: float
    error_oo: float
    error_ov: float
    error_vv: float
    density: float
    density_per_electron: float
    density_exact: float
    density_exact_per_electron: float


class FrontierLevels(WireModel):
    """Frontier levels, in the answer's unit."""

    homo: float
    lumo: float | None
    gap: float | None


class EvaluateResults(WireModel):
    """What was compared, and what came of it.

    Attributes:
        errors: of the prediction.
        reference_errors: of H0, its part without the network; null where the model has none.
        predicted, given: frontier levels of both matrices.
        intruder: whether a frontier level of the prediction is another orbital than the caller's.
        orbital_energies, orbital_energies_given: of both matrices.
    """

    errors: Figures
    reference_errors: Figures | None
    predicted: FrontierLevels
    given: FrontierLevels
    intruder: bool
    orbital_energies: list[float] | None = None
    orbital_energies_given: list[float] | None = None


class EvaluateChecks(Checks):
    """With how far the caller's overlap is from ours (largest element); null if none came."""

    overlap_error: float | None = None


class EvaluateAnswer(WireModel):
    """Body of a JSON answer of ``/v1/evaluate``."""

    meta: Meta
    results: EvaluateResults
    checks: EvaluateChecks
    warnings: list[str]
    defaults_applied: list[str]
