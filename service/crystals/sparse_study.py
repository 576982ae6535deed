"""What is solved of a large cell: the states around the Fermi level at each k-point, from sparse matrices.

Runs in a thread of the eigensolves; no matrix of it is dense.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from model.electronic.bands import PROJECTION_THRESHOLD
from model.electronic.fermi import k_mesh
from model.electronic.sparse_fermi import near_bands
from model.errors import ElectronCountError, NumericalError
from service.crystals.plan import Plan
from service.crystals.study import Study, Told, known_overlap, last_points, overlap_warnings, refuse_negative
from service.errors import ServiceError

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction


def make_sparse_study(prediction: CrystalPrediction, plan: Plan, n_electrons: int, told: Told | None = None) -> Study:
    """Find the Fermi level, and bands around it; the rest of a ``Study`` is for dense matrices.

    Args:
        prediction, n_electrons, told: as of ``make_study``.
        plan: with a mesh, and a number of states.

    Raises:
        ServiceError: ``invalid_request`` where the model has no overlap, ``numerical_failure`` where S is not positive, or
            what :func:`model.electronic.sparse_fermi.near_bands` raises.
    """
    started = time.perf_counter()
    assert plan.mesh is not None
    assert plan.states is not None
    hamiltonian = prediction.hamiltonian
    overlap = known_overlap(prediction, needed=True)
    assert overlap is not None
    points, weights = k_mesh(plan.mesh, halved=hamiltonian.spin != "spinor")
    n_mesh = len(points)
    if plan.path is not None:
        points = np.concatenate([points, plan.path.points])
        weights = np.concatenate([weights, np.zeros(len(plan.path.points))])
    try:
        near = near_bands(
            hamiltonian,
            overlap,
            points,
            n_electrons,
            n_states=plan.states,
            damping=prediction.damping,
            n_checked=n_mesh,
            on_point=None if told is None else lambda done: told(done, len(points)),
        )
        smallest = float(np.nanmin(near.bands.smallest_overlap))
        refuse_negative(smallest)
        level = near.level(weights, n_electrons)
    except (NumericalError, ElectronCountError) as error:  # of a crystal that needs other states than were asked for
        raise ServiceError(
            "numerical_failure", error.detail, field="states", hint=error.hint or "Ask for more states."
        ) from error
    warnings = list(overlap_warnings(smallest, 0))
    if near.n_dependent:
        warnings.append(
            f"Up to {near.n_dependent} combinations of orbitals at a k-point depend on the others (eigenvalue of the overlap "
            f"at most {PROJECTION_THRESHOLD:.0e}); sparse matrices do not project them out, so ghost bands are possible."
        )
    return Study(
        overlap,
        level,
        None,
        None if plan.path is None else last_points(near.bands, len(plan.path.points)),
        None,
        None,
        smallest,
        tuple(warnings),
        1e3 * (time.perf_counter() - started),
        near.first,
    )
