"""What of TraceGrad a network uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from model.errors import CheckpointError
from model.tracegrad.trace import LABELS

CHOICES: Final = {
    "mode": ("none", "trace", "grad", "both"),
    "after": ("every", "last"),
    "contraction": ("low_rank", "full"),
    "residual": ("norm_scaled", "plain"),
    "labels": LABELS,
}
LITERAL: Final[Mapping[str, Any]] = {
    "mode": "both",
    "after": "every",
    "contraction": "full",
    "rank": 1024,
    "hidden": 1024,
    "residual": "plain",
    "labels": "raw",
}
"""The paper's form (TraceGrad, arXiv:2405.05722); it has as many scalars z as blocks have shell pairs: set ``n_scalars``
accordingly. It multiplies the parameters of DeepH-E3 by 25 to 50."""


@dataclass(frozen=True)
class TraceGradConfig:
    """TraceGrad's settings.

    Attributes:
        mode: "none"; "trace" (trace label only); "grad" (gradient feature only); "both".
        after: "every" backbone block, as in the paper, or the "last" one: half the price where there are two, and no
            difference was measured (docs/decisions/0007-tracegrad-here.md).
        contraction: "low_rank", or "full", the paper's weight for every pair of channels (not in bond frames).
        rank: number of invariants u; of features with their own channels for each irrep, at most so many of each irrep.
        hidden: width of z's MLP and of the trace decoder.
        n_scalars: number of non-linear scalars z per module.
        residual: "norm_scaled", or "plain", the paper's f + v.
        affine: whether the LayerNorms of z have weights and biases, as in the released code.
        labels: of the trace: "log" (of the standardised target), "layer_norm" (as in the released code) or "raw" (the
            paper's text).

    The paper's literal form is :data:`LITERAL`; the released code's has ``affine`` and labels "layer_norm" besides.

    Raises:
        CheckpointError: a word that is none of these.
    """

    mode: str = "both"
    after: str = "last"
    contraction: str = "low_rank"
    rank: int = 16
    hidden: int = 64
    n_scalars: int = 36
    residual: str = "norm_scaled"
    labels: str = "log"
    affine: bool = False

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise CheckpointError(f"TraceGrad {key} {getattr(self, key)!r} is not known.", allowed=allowed)

    @property
    def has_trace(self) -> bool:
        """Whether trace labels are predicted."""
        return self.mode in ("trace", "both")

    def module_blocks(self, n_blocks: int) -> tuple[int, ...]:
        """The backbone blocks that a module follows."""
        return tuple(
            block
            for block in range(n_blocks)
            if self.mode != "none" and (self.after == "every" or block == n_blocks - 1)
        )
