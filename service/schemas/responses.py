"""Responses: what comes back, as JSON; binary answers carry the same less the arrays."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.schemas.base import Matrix, WireModel
from service.schemas.requests import AOOrder, EnergyUnit


class Timings(WireModel):
    """Milliseconds: reading the file, waiting, integrals, forward pass, eigensolve, and all before encoding."""

    parse: float
    queue: float
    integrals: float
    forward: float
    eigensolve: float
    total: float


class Meta(WireModel):
    """Where the numbers come from and how to read them.

    Attributes:
        model: name of the checkpoint.
        version: its version.
        sha256: SHA-256 of its weights.
        xc: functional of the training labels, as a libxc name.
        basis: basis set of every AO-indexed array.
        projected: whether the arrays were projected to the basis that was asked for.
        ao_order: order of the AOs, as asked for.
        ao_labels: label of each AO, in that order: atom index, element, orbital.
        energy_unit: unit of energies and Hamiltonians.
        n_electrons: number of electrons.
        n_ao: number of AOs.
        device: where the forward pass ran.
        request_id: the X-Request-ID of this answer.
        timings_ms: milliseconds by stage.
        batch_size: structures in the forward pass that held this one.
        cached: whether the numbers were made for an earlier request of the same structure.
    """

    model: str
    version: str
    sha256: str
    xc: str
    basis: str
    projected: bool
    ao_order: AOOrder
    ao_labels: list[str]
    energy_unit: EnergyUnit
    n_electrons: int
    n_ao: int
    device: str
    request_id: str
    timings_ms: Timings
    batch_size: int
    cached: bool


class Estimate(WireModel):
    """A number that is expected, and an interval that is meant to hold it nine times of ten."""

    value: float
    lower: float
    upper: float


class Expected(WireModel):
    """Error to expect of a guess, from what the prediction shows of itself.

    Attributes:
        density_error_per_electron: norm of the occupied-virtual block of the guess's error over the root of the occupied
            orbitals.
        cycles_ratio: SCF cycles from the guess over those from PySCF's own, at the model's level and PySCF's defaults.
    """

    density_error_per_electron: Estimate
    cycles_ratio: Estimate


class Checks(WireModel):
    """Sanity of the predicted guess; null where the eigensolve was not needed.

    Attributes:
        trace_error: |trace(D S) - N|, electrons.
        idempotency_error: max |D S D - 2 D|.
        symmetry_error: max |D - D^T|.
        gap: LUMO less HOMO, in the answer's energy unit; of a crystal that of its bands, 0 for a metal.
        smallest_overlap_eigenvalue: of a crystal, over the k-points that were looked at: an error of H is magnified by up to
            its inverse. Null for molecules, and where the model has no overlap.
        in_domain: whether the structure resembles what the model was tested on: its size, its distances, and for a molecule
            whose orbitals were made that there is no intruder.
        out_of_domain: why it does not, a word each: ``size``, ``distances`` or ``intruder``, of a crystal ``training_set``.
        expected: error to expect of the guess; null out of the domain, without orbitals, for crystals, and where the errors
            of the model have not been measured.
    """

    trace_error: float | None
    idempotency_error: float | None
    symmetry_error: float | None
    gap: float | None
    smallest_overlap_eigenvalue: float | None = None
    in_domain: bool
    out_of_domain: list[str] = Field(default_factory=list)
    expected: Expected | None = None


class Block(WireModel):
    """Matrix between the AOs of atom i at home and of atom j in the cell ``shift``; of collinear spins two matrices.

    In binary answers ``matrix`` is absent, and the array is named ``blocks.<i>.<j>``; those of a crystal lie flat, one after
    another, in ``hamiltonian``, ``overlap`` and ``density``.
    """

    i: int
    j: int
    shift: tuple[int, int, int]
    matrix: Matrix | list[Matrix] | None = None


class Results(WireModel):
    """Only what was asked for is present. Matrices are row-major; ``mo_coeff[ao][mo]``.

    A crystal's guess has ``kpts`` (fractional) and for each, ``[k]`` first, ``dm_kpts`` and ``mo_coeff_kpts`` (complex: a
    last axis of real and imaginary part), ``mo_occ_kpts`` and ``mo_energy_kpts``; of collinear spins ``[spin][k]``.
    """

    orbital_energies: list[float] | None = None
    occupations: list[float] | None = None
    homo: float | None = None
    lumo: float | None = None
    gap: float | None = None
    hamiltonian: Matrix | None = None
    overlap: Matrix | None = None
    mo_coeff: Matrix | None = None
    density_matrix: Matrix | None = None
    blocks: list[Block] | None = None
    overlap_blocks: list[Block] | None = None
    density_blocks: list[Block] | None = None
    fermi_energy: float | None = None
    is_metal: bool | None = None
    kpts: list[tuple[float, float, float]] | None = None
    dm_kpts: list[Any] | None = None
    mo_coeff_kpts: list[Any] | None = None
    mo_occ_kpts: list[Any] | None = None
    mo_energy_kpts: list[Any] | None = None
    atom_offsets: list[int] | None = None


class Answer(WireModel):
    """Body of a JSON answer of ``/v1/predict`` and ``/v1/initial-guess``."""

    meta: Meta
    results: Results
    checks: Checks
    warnings: list[str]
    defaults_applied: list[str]


class BandLabel(WireModel):
    """Name of a special point, and the index of its k-point."""

    index: int
    label: str


class BandsResults(WireModel):
    """Bands along a path, in the answer's energy unit.

    Attributes:
        kpts: fractional k-points.
        distances: along the path, 1/Å (with 2 pi).
        labels: special points.
        path: their names; null for the caller's own k-points.
        energies: ``[k][band]``, ascending; of collinear spins ``[spin][k][band]``. Null where functions were projected out.
        band_indices: which bands these are, from 0, where a window leaves some out.
        fermi_energy: of the mesh and the path.
        gap: lowest empty less highest full energy of mesh and path; 0 for a metal.
        is_metal: whether a band is partly full.
        smallest_overlap_eigenvalue: of S(k), over mesh and path.
    """

    kpts: list[tuple[float, float, float]]
    distances: list[float]
    labels: list[BandLabel]
    path: str | None
    energies: list[list[float | None]] | list[list[list[float | None]]]
    band_indices: list[int]
    fermi_energy: float
    gap: float | None
    is_metal: bool
    smallest_overlap_eigenvalue: float


class DosResults(WireModel):
    """A density of states, of a cell, in the answer's energy unit.

    Attributes:
        energies: where.
        dos: electrons that fit per unit of energy; of collinear spins ``[spin][energy]``.
        integrated: electrons that fit below each energy, the same shape.
        fermi_energy, gap, is_metal: of the mesh.
        smallest_overlap_eigenvalue: of S(k), over the mesh.
    """

    energies: list[float]
    dos: list[float] | list[list[float]]
    integrated: list[float] | list[list[float]]
    fermi_energy: float
    gap: float | None
    is_metal: bool
    smallest_overlap_eigenvalue: float


class BandsAnswer(WireModel):
    """Body of a JSON answer of ``/v1/bands``."""

    meta: Meta
    results: BandsResults
    checks: Checks
    warnings: list[str]
    defaults_applied: list[str]


class DosAnswer(WireModel):
    """Body of a JSON answer of ``/v1/dos``."""

    meta: Meta
    results: DosResults
    checks: Checks
    warnings: list[str]
    defaults_applied: list[str]


class ProblemFinding(WireModel):
    """One of several findings about a request."""

    field: str | None = None
    detail: str


class ProblemBody(WireModel):
    """RFC 9457 problem; ``code`` is stable, texts are not."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | None = None
    hint: str | None = None
    allowed: list[str | int | float] | None = None
    errors: list[ProblemFinding] | None = None
    line: int | None = None
    frame: int | None = None


class BatchItem(WireModel):
    """One structure of a batch: ``answer`` where ``status`` is 200, else ``problem``."""

    index: int
    status: int
    answer: Answer | None = None
    problem: ProblemBody | None = None


class BatchMeta(WireModel):
    """Of the whole batch.

    Attributes:
        model: that answered the first structure that has an answer; where none has, the one that was asked for,
            or the default.
        models: all models that answered, by name.
    """

    model: str | None
    models: list[str]
    request_id: str
    count: int
    succeeded: int
    failed: int
    total_ms: float


class BatchAnswer(WireModel):
    """Body of a JSON answer of ``/v1/predict/batch``; items in the order of the structures."""

    meta: BatchMeta
    items: list[BatchItem]


class ModelList(WireModel):
    """Body of ``/v1/models``: the cards, each with ``default``, and the default names by kind of system."""

    models: list[dict[str, Any]]
    default: dict[str, str | None]


class Health(WireModel):
    """Body of the health routes."""

    status: str
    models: list[str] | None = None
