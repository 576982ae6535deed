"""Trace labels and their decoder (TraceGrad, Theorem 1 and Eq. 7).

T = tr(Q Q^T) of the sub-block Q of a shell pair is invariant under rotation: the sum of its squared entries. By default it
is taken of the standardised regression target, per element of the sub-block, and on a logarithmic scale, because the raw
trace spans twelve orders of magnitude and core s-s blocks would drown the rest (docs/decisions/0002-network.md). The paper's
text and its released code are settings.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

FLOOR: Final = 1e-3
"""Added before the logarithm: standardised blocks whose mean square is below this count as zero."""

LABELS: Final = ("log", "layer_norm", "raw")


def trace_labels(coefficients: Tensor, shell_pair: Tensor, n_shell_pairs: int, kind: str = "log") -> Tensor:
    """Trace label of each sub-block.

    Args:
        coefficients: irrep coefficients, (block, coefficient), standardised for "log", in hartree for the others; the
            expansion is orthogonal, so their squares sum to tr(Q Q^T).
        shell_pair: flat shell-pair index of each coefficient, (coefficient,).
        n_shell_pairs: number of shell pairs of the template (36 for def2-SVP).
        kind: "log": log(mean square + FLOOR); "raw": tr(Q Q^T), the paper's Theorem 1; "layer_norm": the same, normalised
            over the shell pairs of each block, as in the released code.

    Returns:
        (block, n_shell_pairs).
    """
    total = coefficients.new_zeros((len(coefficients), n_shell_pairs))
    total.index_add_(1, shell_pair, coefficients.square())
    if kind == "raw":
        return total
    if kind == "layer_norm":
        return layer_norm(total, (n_shell_pairs,))
    # bincount would read the largest index, and a GPU would wait for it
    count = total.new_zeros(n_shell_pairs).index_add_(0, shell_pair, total.new_ones(len(shell_pair)))
    return torch.log(total / count + FLOOR)


class TraceDecoder(nn.Module):
    """MLP from the scalars z of all TraceGrad modules to the trace labels.

    Args:
        n_scalars: width of all z together.
        hidden: hidden width.
        n_shell_pairs: labels per block.
    """

    def __init__(self, n_scalars: int, hidden: int, n_shell_pairs: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(n_scalars, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, n_shell_pairs),
        )

    def forward(self, scalars: Tensor) -> Tensor:
        """(block, n_scalars) -> (block, n_shell_pairs)."""
        out: Tensor = self.mlp(scalars)
        return out
