"""Peak memory of a structure, before anything of it is computed: a formula for molecules and one for crystals.

Measured, beyond what the process holds when it is idle, step by step for sizes of 5 to 122 atoms (benchmarks/memory_peak.py,
docs/decisions); with A atoms, N orbitals (rows of H), B blocks of the network, and in bytes:

    integrals   12e6 + min(17 A N^2, 8e8) + 120 N^2       three-centre integrals, in chunks of 256 MiB
    network     a + b B + 120 N^2                         a, b by backbone, on the CPU
    levels      300 R^2                                   R rows of H(k), of crystals; sparse ones by their factors
    answer      60 for each number of an answer           arrays in the asked order, their text, the text's bytes

The three steps come one after the other, so the largest counts; what N^2 keeps is in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple


class NetworkCost(NamedTuple):
    """Bytes of a forward pass on the CPU: of any structure, and of each block."""

    base: float
    block: float


NETWORKS: Final[Mapping[str, NetworkCost]] = {
    "qhnetv2": NetworkCost(36e6, 0.115e6),
    "deeph_e3": NetworkCost(28e6, 0.0275e6),
}
"""By backbone, at the widths of the shipped checkpoints."""

OTHER_NETWORK: Final = NetworkCost(64e6, 0.5e6)
"""Of a backbone that was not measured; the published QHNet by e3nn takes 0.46 MB a block (docs/benchmarks.md)."""

INTEGRALS_BASE: Final = 12e6
INTEGRALS_TRIANGLE: Final = 17.0
INTEGRALS_CHUNKS: Final = 8e8
KEPT_MATRIX: Final = 120.0
LEVELS_MATRIX: Final = 300.0
ANSWER_NUMBER: Final = 60.0
EXPORT: Final = 96e6
"""What PySCF's writers of files take beside the matrices."""

MARGIN: Final = 1.1
"""On all of it: allocators keep more than is asked of them."""


@dataclass(frozen=True)
class Size:
    """What the memory of a structure depends on.

    Attributes:
        atoms: number of atoms.
        orbitals: atomic orbitals.
        blocks: of the network: atoms and pairs of atoms.
        rows: of H(k); twice the orbitals with spinors.
    """

    atoms: int
    orbitals: int
    blocks: int
    rows: int


def estimate(
    size: Size,
    *,
    backbone: str,
    on_cpu: bool,
    periodic: bool,
    answer_numbers: int,
    export: bool,
    sparse_levels: int | None = None,
) -> int:
    """Bytes that a prediction will need at most.

    Args:
        size: of the structure.
        backbone: of the network, by the name on the card.
        on_cpu: whether the network runs in this memory rather than a GPU's.
        periodic: whether levels may be solved at k-points, and no integrals are made.
        answer_numbers: numbers of the answer's arrays.
        export: whether PySCF or another writer makes a file of it.
        sparse_levels: of crystals, bytes of their levels where H(k) is sparse.
    """
    matrix = float(size.orbitals) ** 2
    network = NETWORKS.get(backbone, OTHER_NETWORK)
    passed = network.base + network.block * size.blocks if on_cpu else network.base
    answer = ANSWER_NUMBER * answer_numbers + (EXPORT if export else 0.0)
    if periodic:
        per_block = matrix / max(1, size.atoms) ** 2 * (size.rows / size.orbitals) ** 2
        held = INTEGRALS_BASE + 48.0 * per_block * size.blocks
        levels = LEVELS_MATRIX * float(size.rows) ** 2 if sparse_levels is None else float(sparse_levels)
        return int(MARGIN * (held + max(passed, levels, answer)))
    integrals = INTEGRALS_BASE + min(INTEGRALS_TRIANGLE * size.atoms * matrix, INTEGRALS_CHUNKS)
    steps = (integrals + KEPT_MATRIX * matrix, passed + KEPT_MATRIX * matrix, KEPT_MATRIX * matrix + answer)
    return int(MARGIN * max(steps))
