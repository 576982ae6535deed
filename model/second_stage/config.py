"""Hyper-parameters of the second stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.errors import CheckpointError

MODES: Final = ("none", "exact", "faithful")
READS: Final = ("output", "last", "middle")


@dataclass(frozen=True)
class SecondStageConfig:
    """Settings of the second stage.

    Attributes:
        mode: "none"; "exact" (symmetry holds to rounding); "faithful" (as published: symmetry is learned, if at all).
        hidden: width of tokens and atoms.
        blocks: number of Transformer blocks.
        heads: of the attention.
        lmax: faithful only: highest l of the bonds' harmonics among a token's inputs.
        reads: what of the first stage it reads: "output", its standardised coefficients; "last", the features after its last
            block; "middle", those after its middle block, where it has two or more.
        radial_size: number of radial functions.
        invariants: exact only: inner products of each irrep, or of each sector of a bond frame.
        rank: exact only: channels of each irrep (sector) that a token's own weights mix.
        bond_frames: exact only: pairs' features are turned into the frames of their bonds, where every |m| has invariants and
            mixings of its own (docs/decisions: a third less error on graphene). An architecture whose features live there has
            it anyway.

    Raises:
        CheckpointError: a word or a number that cannot be.
    """

    mode: str = "none"
    hidden: int = 64
    blocks: int = 3
    heads: int = 4
    lmax: int = 4
    reads: tuple[str, ...] = ("output", "last")
    radial_size: int = 16
    invariants: int = 24
    rank: int = 8
    bond_frames: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))  # a list, if read from a file
        if self.mode not in MODES:
            raise CheckpointError(f"Second stage mode {self.mode!r} is not known.", allowed=MODES)
        unknown = [name for name in self.reads if name not in READS]
        if unknown or "last" not in self.reads or len(set(self.reads)) != len(self.reads):
            raise CheckpointError(
                f"A second stage cannot read {', '.join(self.reads) or 'nothing'}.",
                allowed=READS,
                hint='Name each at most once, and "last" among them.',
            )
        if min(self.hidden, self.blocks, self.heads, self.radial_size, self.invariants, self.rank) < 1 or self.lmax < 0:
            raise CheckpointError("All numbers of a second stage are 1 or more (lmax: 0 or more).")
        if self.hidden % self.heads:
            raise CheckpointError(
                f"A second stage of width {self.hidden} cannot have {self.heads} heads of equal width."
            )

    @property
    def is_used(self) -> bool:
        """Whether there is a second stage."""
        return self.mode != "none"

    def read_blocks(self, n_blocks: int) -> tuple[int, ...]:
        """Blocks of the first stage after which features are read, in order.

        Raises:
            CheckpointError: the first stage has no block in the middle.
        """
        if "middle" not in self.reads:
            return (n_blocks - 1,)
        if n_blocks < 2:
            raise CheckpointError(
                f"A second stage cannot read the middle of {n_blocks} block.", hint='Leave "middle" out of its reads.'
            )
        return ((n_blocks - 1) // 2, n_blocks - 1)
