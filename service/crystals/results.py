"""A crystal's prediction and what was solved with it as the arrays, meta and checks of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.electronic.density import KDensity
from model.integrals.source import orbital_labels
from model.units import EV_PER_HARTREE
from service.answers.arrays import Result
from service.crystals.plan import Plan
from service.crystals.study import Study
from service.schemas.requests import AOOrder, StructureOptions
from service.schemas.responses import Checks, Meta, Timings

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import CrystalPrediction


def crystal_result(
    prediction: CrystalPrediction,
    study: Study,
    plan: Plan,
    card: Card,
    options: StructureOptions,
    about: Mapping[str, Any],
    warnings: Sequence[str],
    defaults_applied: Sequence[str],
) -> Result:
    """Put together everything that an answer says; see ``answers.arrays.make_result``.

    Args:
        prediction: the model's answer.
        study: what was solved with it.
        plan: what was asked.
        card: of the model.
        options: order and unit.
        about, warnings, defaults_applied: as of ``make_result``.
    """
    factor = EV_PER_HARTREE if options.energy_unit == "eV" else 1.0
    order: AOOrder = getattr(options, "ao_order", "pyscf")
    matrices = {"blocks": prediction.hamiltonian, "overlap_blocks": study.overlap, "density_blocks": study.density}
    blocks = {
        name: _scaled(found.in_order(order), factor if name == "blocks" else 1.0)
        for name, found in matrices.items()
        if name in plan.outputs and found is not None
    }
    arrays: dict[str, NDArray[Any]] = {}
    if blocks:
        arrays["atom_offsets"] = np.asarray(prediction.hamiltonian.atom_offsets, dtype=np.int64)
    scalars: dict[str, Any] = {}
    level = study.level
    if study.bands is not None or study.dos is not None:
        arrays, scalars = _levels(study, plan, factor)
    if study.start is not None and plan.guess is not None:
        arrays |= _start(study.start, plan.guess, factor)
    if level is not None and ("fermi_energy" in plan.outputs or scalars):
        scalars["fermi_energy"] = level.energy * factor
        scalars["gap"] = None if level.gap is None else level.gap * factor
        scalars["is_metal"] = level.is_metal
    structure, space = prediction.structure, replace(prediction.hamiltonian.space, order=order)
    meta = Meta(
        model=card.name,
        version=card.version,
        sha256=card.weights_sha256,
        xc=card.xc,
        basis=card.basis.name,
        ao_order=order,
        ao_labels=list(orbital_labels(structure, space)),
        energy_unit=options.energy_unit,
        n_electrons=space.count_electrons(structure.numbers, structure.charge),
        n_ao=prediction.hamiltonian.n_orbitals,
        projected=False,
        **{**about, "timings_ms": Timings(**{name: round(value, 3) for name, value in about["timings_ms"].items()})},
    )
    checks = Checks(
        trace_error=None,
        idempotency_error=None,
        symmetry_error=None,
        gap=None if level is None or level.gap is None else level.gap * factor,
        smallest_overlap_eigenvalue=study.smallest_overlap,
        in_domain=prediction.in_domain,
        out_of_domain=[] if prediction.in_domain else ["training_set"],
    )
    said = [*prediction.warnings, *study.warnings, *warnings]
    return Result(arrays, scalars, None, meta, checks, said, list(defaults_applied), lattice_blocks=blocks)


def _start(start: KDensity, points: NDArray[np.float64], factor: float) -> dict[str, NDArray[Any]]:
    """What an SCF in k starts from, under the names that PySCF's users know."""
    arrays = {
        "kpts": points,
        "dm_kpts": _one_spin(start.matrices),
        "mo_coeff_kpts": _one_spin(start.coefficients),
        "mo_occ_kpts": _one_spin(start.occupations),
        "mo_energy_kpts": _one_spin(start.energies * factor),
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _levels(study: Study, plan: Plan, factor: float) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What bands and densities of states have."""
    arrays: dict[str, NDArray[Any]] = {}
    scalars: dict[str, Any] = {"smallest_overlap_eigenvalue": study.smallest_overlap}
    if study.bands is not None and study.level is not None and plan.path is not None:
        energies = study.bands.energies
        kept = np.arange(energies.shape[-1])
        if plan.window_ev is not None:
            low, high = (study.level.energy + edge / EV_PER_HARTREE for edge in plan.window_ev)
            kept = np.flatnonzero(((energies >= low) & (energies <= high)).any(axis=(0, 1)))
        arrays = {
            "kpts": plan.path.points,
            "distances": plan.path.distances,
            "energies": _one_spin(energies[..., kept] * factor),
            "band_indices": kept + study.first_band,
        }
        scalars["labels"] = [{"index": index, "label": label} for index, label in plan.path.labels]
        scalars["path"] = plan.path.name
    elif study.dos is not None:
        arrays = {
            "energies": study.dos.energies * factor,
            "dos": _one_spin(study.dos.values / factor),
            "integrated": _one_spin(study.dos.integrated),
        }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, scalars


def _one_spin(values: NDArray[Any]) -> NDArray[Any]:
    """Without the axis of spins where there is one."""
    return np.asarray(values[0] if len(values) == 1 else values)


def _scaled(blocks: BlockSet, factor: float) -> BlockSet:
    return blocks if factor == 1.0 else blocks.with_values(blocks.values * factor)
