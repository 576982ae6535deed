"""A crystal's prediction and what was solved with it as the arrays, meta and checks of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.integrals.source import orbital_labels
from model.units import EV_PER_HARTREE
from service.answers.arrays import Result
from service.crystals.study import Study
from service.schemas.requests import AOOrder, StructureOptions
from service.schemas.responses import Checks, Meta, Timings

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import CrystalPrediction


def crystal_result(
    prediction: CrystalPrediction,
    study: Study,
    card: Card,
    options: StructureOptions,
    outputs: Sequence[str],
    about: Mapping[str, Any],
    warnings: Sequence[str],
    defaults_applied: Sequence[str],
) -> Result:
    """Put together everything that an answer says; see ``answers.arrays.make_result``.

    Args:
        prediction: the model's answer.
        study: what was solved with it.
        card: of the model.
        options: order and unit.
        outputs: names of the arrays to send.
        about, warnings, defaults_applied: as of ``make_result``.
    """
    factor = EV_PER_HARTREE if options.energy_unit == "eV" else 1.0
    order: AOOrder = getattr(options, "ao_order", "pyscf")
    matrices = {"blocks": prediction.hamiltonian, "overlap_blocks": study.overlap, "density_blocks": study.density}
    blocks = {
        name: _scaled(found.in_order(order), factor if name == "blocks" else 1.0)
        for name, found in matrices.items()
        if name in outputs and found is not None
    }
    arrays: dict[str, NDArray[Any]] = {}
    if blocks:
        arrays["atom_offsets"] = np.asarray(prediction.hamiltonian.atom_offsets, dtype=np.int64)
    scalars: dict[str, Any] = {}
    level = study.level
    if level is not None and "fermi_energy" in outputs:
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
    )
    said = [*prediction.warnings, *study.warnings, *warnings]
    return Result(arrays, scalars, None, meta, checks, said, list(defaults_applied), lattice_blocks=blocks)


def _scaled(blocks: BlockSet, factor: float) -> BlockSet:
    return blocks if factor == 1.0 else blocks.with_values(blocks.values * factor)
