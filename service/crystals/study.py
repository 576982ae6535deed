"""Study: what is solved with H(R) and S(R) of a prediction: Fermi level, density matrix, how near S is to being singular.

Runs in a thread of the eigensolves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.electronic.bands import PROJECTION_THRESHOLD, Bands, band_energies
from model.electronic.density import KDensity, density_matrix, density_start
from model.electronic.dos import DensityOfStates, density_of_states
from model.electronic.eigen import eigvalsh
from model.electronic.fermi import FermiLevel, fermi_level, k_mesh
from model.electronic.overlap import OVERLAP_THRESHOLD
from model.electronic.sparse import SparseLevels
from model.errors import IntegralError
from model.units import EV_PER_HARTREE
from service.crystals.plan import Plan
from service.errors import ServiceError

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction

GRID_PER_WIDTH: Final = 4
"""Energies of a density of states within one sigma."""

DENSE_ORBITALS: Final = 1000
"""Up to here one eigenvalue of S is found from the whole of it; beyond, from sparse matrices."""

NEARLY_SINGULAR: Final = 1e-4
"""Smallest eigenvalue of S below which an answer warns: an error of 1 meV in H may become 10 eV in a band."""


@dataclass(frozen=True, eq=False)
class Study:
    """What was solved; None where the plan needs it not.

    Attributes:
        overlap: S(R); None where the model has none and nobody needs it.
        level: Fermi level, hartree.
        density: D(R).
        bands: along the path.
        dos: on its grid, hartree.
        start: of an SCF in k.
        smallest_overlap: smallest eigenvalue of S(k) over the k-points that were looked at.
        warnings: what people should know.
        milliseconds: what it took.
        first_band: number of bands below the first of ``bands``.
    """

    overlap: BlockSet | None
    level: FermiLevel | None
    density: BlockSet | None
    bands: Bands | None
    dos: DensityOfStates | None
    start: KDensity | None
    smallest_overlap: float | None
    warnings: tuple[str, ...]
    milliseconds: float
    first_band: int = 0


Told = Callable[[int, int], None]
"""Told how many k-points are solved, of how many."""


def make_study(prediction: CrystalPrediction, plan: Plan, n_electrons: int, told: Told | None = None) -> Study:
    """Solve what an answer needs, with dense matrices at k-points.

    Args:
        prediction: H(R) and the source of S(R).
        plan: what is needed.
        n_electrons: of a cell, those that the basis describes.
        told: after each k-point of bands.

    Raises:
        ServiceError: ``invalid_request`` where the model has no overlap, ``numerical_failure`` where S is not positive.
        ElectronCountError: electrons that do not fit into the bands.
    """
    started = time.perf_counter()
    hamiltonian = prediction.hamiltonian
    needed = plan.mesh is not None or plan.guess is not None or "overlap_blocks" in plan.outputs
    overlap = known_overlap(prediction, needed=needed)
    damping = prediction.damping if plan.mesh is not None or plan.guess is not None else None
    level = density = smallest = along = dos = start = None
    projected = 0

    def blocks_of_density(points: NDArray[np.float64], weights: NDArray[np.float64]) -> BlockSet:
        assert overlap is not None
        made = density_matrix(hamiltonian, overlap, points, weights, n_electrons=n_electrons, damping=damping)
        return made.blocks

    if overlap is not None and plan.guess is not None:
        points, weights = plan.guess, np.full(len(plan.guess), 1.0 / len(plan.guess))
        start = density_start(
            hamiltonian.in_order(plan.order),
            overlap.in_order(plan.order),
            points,
            weights,
            n_electrons,
            None if damping is None else damping.in_order(plan.order),
        )
        smallest = float(start.smallest_overlap.min())
        none = np.zeros(len(points), dtype=np.int64)
        level = fermi_level(
            Bands(points, start.energies, start.smallest_overlap, none, hamiltonian.spin), weights, n_electrons
        )
        if plan.density:
            density = blocks_of_density(points, weights)
    elif overlap is not None and plan.mesh is not None:
        points, weights = k_mesh(plan.mesh, halved=hamiltonian.spin != "spinor")
        if plan.path is not None:
            points = np.concatenate([points, plan.path.points])
            # the path's gap counts, its electrons do not
            weights = np.concatenate([weights, np.zeros(len(plan.path.points))])
        bands = band_energies(
            hamiltonian,
            overlap,
            points,
            damping=damping,
            on_point=None if told is None else lambda done: told(done, len(points)),
        )
        smallest, projected = float(bands.smallest_overlap.min()), int(bands.n_projected.max())
        refuse_negative(smallest)
        level = fermi_level(bands, weights, n_electrons)
        if plan.path is not None:
            along = last_points(bands, len(plan.path.points))
        if plan.sigma_ev is not None and plan.window_ev is not None:
            sigma = plan.sigma_ev / EV_PER_HARTREE
            low, high = (edge / EV_PER_HARTREE for edge in plan.window_ev)
            grid = level.energy + np.linspace(low, high, math.ceil((high - low) / sigma * GRID_PER_WIDTH) + 1)
            dos = density_of_states(bands, weights, grid, sigma)
        if plan.density:
            density = blocks_of_density(points, weights)
    elif overlap is not None:
        smallest = smallest_eigenvalue(overlap, prediction.structure.pbc)
    return Study(
        overlap,
        level,
        density,
        along,
        dos,
        start,
        smallest,
        overlap_warnings(smallest, projected),
        1e3 * (time.perf_counter() - started),
    )


def last_points(bands: Bands, count: int) -> Bands:
    """The last k-points of some bands."""
    return replace(
        bands,
        k_points=bands.k_points[-count:],
        energies=bands.energies[:, -count:],
        smallest_overlap=bands.smallest_overlap[-count:],
        n_projected=bands.n_projected[-count:],
    )


def smallest_eigenvalue(overlap: BlockSet, pbc: tuple[bool, bool, bool]) -> float:
    """Smallest eigenvalue of S at the k-points that are their own negatives, Gamma among them, where S(k) is real."""
    ends = product(*((0.0, 0.5) if is_periodic else (0.0,) for is_periodic in pbc))
    if overlap.n_orbitals > DENSE_ORBITALS:
        return min(SparseLevels(overlap, overlap, point).smallest_overlap() for point in ends)
    sums = BlochSum(overlap)
    lowest = (eigvalsh(np.asarray(sums(point)).real)[0] for point in ends)
    return float(min(lowest))


def known_overlap(prediction: CrystalPrediction, *, needed: bool) -> BlockSet | None:
    try:
        overlap = prediction.integrals.overlap
    except IntegralError as error:
        if needed:
            raise ServiceError(
                "invalid_request",
                "This model's basis functions are known to no program here, so there is no overlap, and nothing that needs "
                "one: no Fermi level, bands or densities.",
                field="outputs",
                allowed=["blocks"],
                hint="Send S(R) of this structure in overlap, or ask for the blocks in json, npz or safetensors.",
            ) from error
        return None
    assert isinstance(overlap, BlockSet)
    return overlap


def refuse_negative(smallest: float) -> None:
    if smallest <= OVERLAP_THRESHOLD:
        raise ServiceError(
            "numerical_failure",
            f"The overlap matrix is not positive definite: its smallest eigenvalue over the k-points is {smallest:.1e}. "
            "Levels and densities of it mean nothing.",
            field="structure",
            hint="Are two atoms too close, or is the model's pair cutoff too short for this cell? The blocks alone can "
            "be had with outputs=blocks.",
        )


def overlap_warnings(smallest: float | None, projected: int) -> tuple[str, ...]:
    found = []
    if smallest is not None and smallest <= OVERLAP_THRESHOLD:
        found.append(
            f"The overlap is not positive definite: its smallest eigenvalue is {smallest:.1e}. No levels or densities can be "
            "made of these matrices."
        )
    elif smallest is not None and smallest < NEARLY_SINGULAR:
        found.append(
            f"The overlap is nearly singular: its smallest eigenvalue is {smallest:.1e}, and an error of the predicted "
            "Hamiltonian may be magnified by up to its inverse. Do not trust single bands."
        )
    if projected:
        found.append(
            f"Up to {projected} combinations of orbitals at a k-point depend on the others (eigenvalue of the overlap at "
            f"most {PROJECTION_THRESHOLD:.0e}) and were projected out; their bands are missing, high ones as a rule."
        )
    return tuple(found)
