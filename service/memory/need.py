"""The estimate of a request: what its structure, its model and the answer it asks for come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from model.structure import Structure
from service.answers.output_formats import JSON, OutputFormat
from service.memory.estimate import Size, estimate

if TYPE_CHECKING:
    from model.predictor import Predictor
    from service.crystals.cell_size import CellSize
    from service.crystals.plan import Plan

MATRICES: Final = frozenset({"hamiltonian", "overlap", "mo_coeff", "density_matrix", "blocks"})
"""Outputs of a molecule with a number for each pair of orbitals."""

BINARY: Final = 0.5
"""What a number of a binary answer takes of one in JSON."""

LATTICE_MATRICES: Final = frozenset({"blocks", "overlap_blocks", "density_blocks"})


def need_of(
    predictor: Predictor, structure: Structure, n_orbitals: int, form: OutputFormat, outputs: Sequence[str]
) -> int:
    """Bytes that a request about a molecule will need at most; counts the pairs, so it belongs in a thread.

    Args:
        predictor: takes the structure.
        structure: to be predicted.
        n_orbitals: of it.
        form: of the answer.
        outputs: names of the answer's arrays.
    """
    return estimate(
        Size(len(structure), n_orbitals, predictor.count_blocks(structure), n_orbitals),
        backbone=str(predictor.card.architecture["backbone"]),
        on_cpu=not predictor.device.startswith("cuda"),
        periodic=False,
        answer_numbers=len(MATRICES.intersection(outputs)) * n_orbitals**2,
        export=not form.holds_arrays,
    )


def need_of_crystal(
    predictor: Predictor, structure: Structure, size: CellSize, blocks: int, form: OutputFormat, plan: Plan
) -> int:
    """Bytes that a request about a crystal will need at most.

    Args:
        predictor: takes the structure.
        structure: to be predicted.
        size: of its matrices.
        blocks: of the network.
        form: of the answer.
        plan: what is solved, and sent.
    """
    atoms = len(structure)
    numbers = len(LATTICE_MATRICES.intersection(plan.outputs)) * 2 * blocks * (size.rows // atoms) ** 2
    if plan.guess is not None:  # D(k) and C(k), complex
        numbers += 4 * len(plan.guess) * size.rows**2
    dense = plan.states is None and (plan.mesh is not None or plan.guess is not None)
    return estimate(
        Size(atoms, size.orbitals, blocks, size.rows),
        backbone=str(predictor.card.architecture["backbone"]),
        on_cpu=not predictor.device.startswith("cuda"),
        periodic=True,
        answer_numbers=numbers if form is JSON else int(numbers * BINARY),
        export=not form.holds_arrays,
        sparse_levels=None if dense else size.sparse_bytes(structure),
    )
