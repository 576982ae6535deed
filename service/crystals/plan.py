"""Plan: which k-points an answer about a crystal needs, settled and paid for before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.electronic.fermi import k_mesh
from model.structure import Structure
from service.answers.output_formats import (
    GUESS_FORMATS,
    PICTURE_FORMATS,
    PREDICT_FORMATS,
    WITH_DENSITY,
    OutputFormat,
    refuse_other_systems,
)
from service.crystals.cell_size import CellSize, check_cost, sparse_states
from service.crystals.meshes import DOS_SPACING, MESH_SPACING, Mesh, chosen_mesh
from service.crystals.paths import DEFAULT_POINTS, KPath, own_path, special_path
from service.errors import ServiceError
from service.schemas.requests import (
    CRYSTAL_OUTPUTS,
    DEFAULT_CRYSTAL_OUTPUTS,
    MOLECULE_OUTPUTS,
    AOOrder,
    BandsOptions,
    DosOptions,
    GuessOptions,
    PredictOptions,
    StructureOptions,
)
from service.structures.build import SizeLimits

MOST_WIDTHS: Final = 5000
"""Widths of the Gaussian in the window of a density of states."""

MOST_ENTRIES: Final = 2**22
"""Of D(k) in one answer: 64 MiB, and as much again of C(k)."""


@dataclass(frozen=True)
class Plan:
    """What is to be solved.

    Attributes:
        outputs: names of the arrays to send.
        mesh: on which levels are filled; None if nobody needs the Fermi level.
        density: whether D(R) is wanted.
        defaults: what the caller left open.
        path: along which bands are wanted.
        window_ev: of bands or of a density of states, from the Fermi level.
        sigma_ev: width of a density of states; None where there is to be none.
        states: to be found around the Fermi level at each k-point, from sparse matrices; None for all, from dense ones.
        guess: k-points at which an SCF is to start, of the same weight, fractional, (k, 3).
        order: of the orbitals there.
    """

    outputs: tuple[str, ...]
    mesh: Mesh | None
    density: bool
    defaults: tuple[str, ...]
    path: KPath | None = None
    window_ev: tuple[float, float] | None = None
    sigma_ev: float | None = None
    states: int | None = None
    guess: NDArray[np.float64] | None = None
    order: AOOrder = "pyscf"

    @property
    def k_points(self) -> int:
        """At how many k-points H(k) is solved."""
        meshed = 0 if self.mesh is None else math.prod(self.mesh)
        on_path = 0 if self.path is None else len(self.path.points)
        return meshed + on_path + (0 if self.guess is None else len(self.guess))


def plan_crystal(
    options: StructureOptions, form: OutputFormat, structure: Structure, size: CellSize, limits: SizeLimits
) -> Plan:
    """Settle what a request about a crystal asks for.

    Args:
        options: as validated.
        form: of the answer.
        structure: periodic.
        size: of its matrices.
        limits: caps.

    Raises:
        ServiceError: ``invalid_request`` for what crystals do not have, ``too_many_orbitals``, ``too_many_k_points``.
    """
    formats = GUESS_FORMATS if isinstance(options, GuessOptions) else PREDICT_FORMATS
    refuse_other_systems(form, formats, is_periodic=True)
    if isinstance(options, GuessOptions) and form.holds_arrays:
        return _plan_guess(options, structure, size, limits)
    if isinstance(options, BandsOptions | DosOptions):
        return _plan_levels(options, form, structure, size, limits)
    asked: tuple[str, ...] = ()
    defaults = []
    if isinstance(options, PredictOptions):
        asked = options.outputs
        if "outputs" not in options.model_fields_set:
            asked = DEFAULT_CRYSTAL_OUTPUTS if form.holds_arrays else ()
            defaults = [f"outputs={','.join(asked)}"] if asked else []
        _refuse_outputs(asked, CRYSTAL_OUTPUTS, "A crystal")
    if form.holds_arrays and not {"fermi_energy", "density_blocks"} & set(asked):
        limits.check_orbitals(size.orbitals, sparse=True)  # blocks, and S's smallest eigenvalue
        return Plan(asked, None, False, tuple(defaults))
    mesh = chosen_mesh(options.kmesh, structure, MESH_SPACING)
    if options.kmesh is None:
        defaults.append(f"kmesh={'x'.join(map(str, mesh))}")
    density = "density_blocks" in asked or form in WITH_DENSITY
    points = (math.prod(mesh) // 2 + 1) * (2 if density else 1)
    states = None if density else sparse_states(None, size, structure, points, limits)
    if states is not None:
        defaults.append(f"states={states}")
    _check_size(size, structure, points, limits, sparse=states is not None, sparse_as_job=not density)
    return Plan(asked, mesh, density, tuple(defaults), states=states)


def _plan_guess(options: GuessOptions, structure: Structure, size: CellSize, limits: SizeLimits) -> Plan:
    """A start of an SCF in k: on the whole of a mesh, or at the caller's own points."""
    limits.check_orbitals(size.orbitals)
    _refuse_outputs(options.outputs, CRYSTAL_OUTPUTS, "A crystal")
    defaults = []
    if options.kpts is None:
        mesh = chosen_mesh(options.kmesh, structure, MESH_SPACING)
        if options.kmesh is None:
            defaults.append(f"kmesh={'x'.join(map(str, mesh))}")
        check_cost(size, structure, math.prod(mesh), limits, sparse=False)  # before it is made
        points, _ = k_mesh(mesh)
    elif options.kmesh is not None:
        raise ServiceError(
            "invalid_request", "There are k-points and a mesh.", field="kpts", hint="Send kpts or kmesh, not both."
        )
    else:
        points = np.asarray(options.kpts, dtype=np.float64)
        still = [not is_periodic for is_periodic in structure.pbc]
        if np.any(points[:, still]):
            raise ServiceError(
                "invalid_request",
                "A k-point has a component along a direction that is not periodic.",
                field="kpts",
                hint="Send 0 there, or say with pbc that the direction is periodic.",
            )
    most = max(MOST_ENTRIES // size.rows**2, 1)
    if len(points) > most:
        raise ServiceError(
            "too_many_k_points",
            f"{len(points)} k-points of {size.rows} orbitals make more matrix entries than one answer holds.",
            field="kmesh" if options.kpts is None else "kpts",
            hint=f"Ask for at most {most} k-points; blocks of /v1/predict give the matrices at any number of them.",
        )
    density = "density_blocks" in options.outputs
    check_cost(size, structure, len(points) * (2 if density else 1), limits, sparse=False)
    outputs = tuple(dict.fromkeys(("fermi_energy", *options.outputs)))
    return Plan(outputs, None, density, tuple(defaults), guess=points, order=options.ao_order)


def _plan_levels(
    options: BandsOptions | DosOptions, form: OutputFormat, structure: Structure, size: CellSize, limits: SizeLimits
) -> Plan:
    if form in PICTURE_FORMATS:
        require_matplotlib()
    window = options.window_ev
    if window is not None and not window[0] < window[1]:
        raise ServiceError(
            "invalid_request",
            "The window does not begin below its end.",
            field="window_ev",
            hint="Lowest and highest energy from the Fermi level in eV, [-5, 5].",
        )
    defaults = []
    path = sigma = None
    if isinstance(options, BandsOptions):
        path = _path(options, structure)
        if options.path is None and options.kpts is None:
            defaults.append(f"path={path.name}")
        if options.npoints is None and options.kpts is None:
            defaults.append(f"npoints={DEFAULT_POINTS}")
    else:
        assert window is not None
        sigma = options.sigma_ev
        if (window[1] - window[0]) / sigma > MOST_WIDTHS:
            raise ServiceError(
                "invalid_request",
                f"The window is more than {MOST_WIDTHS} times as wide as sigma_ev.",
                field="window_ev",
                hint="Send a narrower window or a larger sigma_ev.",
            )
        for name, value in (("window_ev", f"{window[0]:g},{window[1]:g}"), ("sigma_ev", f"{sigma:g}")):
            if name not in options.model_fields_set:
                defaults.append(f"{name}={value}")
    mesh = chosen_mesh(options.kmesh, structure, MESH_SPACING if path is not None else DOS_SPACING)
    if options.kmesh is None:
        defaults.append(f"kmesh={'x'.join(map(str, mesh))}")
    points = math.prod(mesh) // 2 + 1 + (0 if path is None else len(path.points))
    states = None
    if isinstance(options, BandsOptions):
        states = sparse_states(options.states, size, structure, points, limits)
        if options.states is None and states is not None:
            defaults.append(f"states={states}")
    as_job = may_be_sparse(options)
    _check_size(size, structure, points, limits, sparse=states is not None, sparse_as_job=as_job)
    return Plan((), mesh, False, tuple(defaults), path, window, sigma, states)


def _check_size(
    size: CellSize, structure: Structure, points: int, limits: SizeLimits, *, sparse: bool, sparse_as_job: bool
) -> None:
    """Refuse too many orbitals or k-points; ``sparse_as_job``: a job would make nothing dense of it."""
    sparse_as_job = sparse_as_job and not size.collinear
    limits.check_orbitals(size.orbitals, sparse=sparse, sparse_as_job=sparse_as_job)
    check_cost(size, structure, points, limits, sparse=sparse, sparse_as_job=sparse_as_job)


def may_be_sparse(options: StructureOptions) -> bool:
    """Whether what is asked for can be had without a dense matrix."""
    wanted = options.outputs if isinstance(options, PredictOptions) else ("density_blocks",)
    return isinstance(options, BandsOptions) or "density_blocks" not in wanted


def require_matplotlib() -> None:
    """Refuse pictures before anything is computed for them.

    Raises:
        ServiceError: ``not_acceptable`` where matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ServiceError(
            "not_acceptable",
            "This server cannot draw: matplotlib is not installed.",
            field="format_out",
            allowed=["json", "npz", "safetensors"],
            hint="Ask for the numbers, or install the server with the extra 'pictures'.",
        ) from error


def _path(options: BandsOptions, structure: Structure) -> KPath:
    if options.kpts is None:
        return special_path(structure, options.path, options.npoints)
    if options.path is not None or options.npoints is not None:
        raise ServiceError(
            "invalid_request",
            "There are k-points and a path.",
            field="kpts",
            hint="Send kpts alone, or path and npoints.",
        )
    return own_path(structure, options.kpts)


def refuse_without_cell(options: StructureOptions, structure: Structure) -> None:
    """Refuse bands and densities of states of what has no periodic direction.

    Raises:
        ServiceError: ``invalid_request``.
    """
    if isinstance(options, BandsOptions | DosOptions) and not structure.is_periodic:
        raise ServiceError(
            "invalid_request",
            "Bands and densities of states are of crystals; the structure has no periodic direction.",
            field="pbc",
            hint="Send the lattice vectors and say which directions are periodic (pbc); a molecule's levels are "
            "orbital_energies of /v1/predict.",
        )


def refuse_crystal_options(options: StructureOptions, form: OutputFormat) -> None:
    """Refuse what molecules do not have.

    Raises:
        ServiceError: ``invalid_request``.
    """
    formats = GUESS_FORMATS if isinstance(options, GuessOptions) else PREDICT_FORMATS
    refuse_other_systems(form, formats, is_periodic=False)
    if getattr(options, "overlap", None) is not None:
        raise ServiceError(
            "invalid_request",
            "An overlap S(R) is for crystals; the structure has no periodic direction.",
            field="overlap",
            hint="Leave it out: a molecule's is computed.",
        )
    if getattr(options, "kpts", None) is not None:
        raise ServiceError(
            "invalid_request",
            "k-points are for crystals; the structure has no periodic direction.",
            field="kpts",
            hint="Leave them out, or send the lattice vectors and pbc.",
        )
    if options.kmesh is not None:
        raise ServiceError(
            "invalid_request",
            "A kmesh is for crystals; the structure has no periodic direction.",
            field="kmesh",
            hint="Leave it out, or send the lattice vectors and pbc.",
        )
    _refuse_outputs(getattr(options, "outputs", ()), MOLECULE_OUTPUTS, "A molecule")


def _refuse_outputs(asked: Sequence[str], allowed: Sequence[str], what: str) -> None:
    if not set(asked) <= set(allowed):
        raise ServiceError(
            "invalid_request",
            f"{what} does not have all of the asked outputs.",
            field="outputs",
            allowed=list(allowed),
            hint="Ask for those that are allowed; the structure's pbc says whether it is a crystal.",
        )
