"""The estimate of a request: what its structure, its model and the answer it asks for come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from model.structure import Structure
from service.answers.output_formats import OutputFormat
from service.memory.estimate import Size, estimate

if TYPE_CHECKING:
    from model.predictor import Predictor

MATRICES: Final = frozenset({"hamiltonian", "overlap", "mo_coeff", "density_matrix", "blocks"})
"""Outputs of a molecule with a number for each pair of orbitals."""

LATTICE_MATRICES: Final = frozenset({"blocks", "overlap_blocks", "density_blocks"})


def need_of(
    predictor: Predictor, structure: Structure, n_orbitals: int, form: OutputFormat, outputs: Sequence[str]
) -> int:
    """Bytes that a request will need at most; counts the pairs, so it belongs in a thread.

    Args:
        predictor: takes the structure.
        structure: to be predicted.
        n_orbitals: of it.
        form: of the answer.
        outputs: names of the answer's arrays.
    """
    card = predictor.card
    rows = n_orbitals * (2 if card.spin == "spinor" else 1)
    size = Size(len(structure), n_orbitals, predictor.count_blocks(structure), rows)
    if structure.is_periodic:
        numbers = len(LATTICE_MATRICES.intersection(outputs)) * size.blocks * (rows // len(structure)) ** 2
    else:
        numbers = len(MATRICES.intersection(outputs)) * n_orbitals**2
    return estimate(
        size,
        backbone=str(card.architecture["backbone"]),
        on_cpu=not predictor.device.startswith("cuda"),
        periodic=structure.is_periodic,
        answer_numbers=numbers,
        export=not form.holds_arrays,
    )
