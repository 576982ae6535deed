"""Hyper-parameters of DeepH-E3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.architectures.deeph_e3.slots import parse_slots
from model.errors import CheckpointError

NORMS: Final = ("local", "graph")
PATHS: Final = ("fast", "reference")


@dataclass(frozen=True)
class DeepHE3Config:
    """Hyper-parameters. The published network is ``norm="graph", envelope=False``; all other defaults are published ones.

    Attributes:
        irreps_mid: features of nodes and edges between blocks; the first are even scalars.
        embedding_channels: even scalars of the first features: of an element, and Gaussians of a distance.
        blocks: number of blocks, each a node and an edge update; TraceGrad follows each.
        harmonics_lmax: highest l of the bonds' harmonics.
        hidden: width of the two hidden layers that make radial weights.
        radial_size: Gaussians that radial weights are made of, from 0 to ``cutoff_angstrom``.
        embedding_cutoff_angstrom: centre of the last Gaussian of the first edge features.
        cutoff_angstrom: centre of the last Gaussian of radial weights; with ``envelope`` messages vanish there smoothly, or
            where pairs end if that is nearer; without it there are messages along all pairs that have a block.
        norm: "graph", as published: means over all atoms or edges of a structure, so that a fragment far away changes the
            answer; or "local": running means over what was trained on, fixed afterwards.
        envelope: whether messages between atoms vanish smoothly before pairs end.
        fade_angstrom: over how much blocks of two atoms go smoothly to zero before their pairs end, Å; 0, as published:
            a block appears with a finite value. Molecules, whose pairs do not end, are not changed.
        path: how the same function is evaluated: "fast" (products in bond frames) or "reference" (e3nn's).

    Raises:
        CheckpointError: a word or number that cannot be.
    """

    irreps_mid: str = "64x0e+32x1o+16x2e+8x3o+8x4e"
    embedding_channels: int = 64
    blocks: int = 3
    harmonics_lmax: int = 4
    hidden: int = 64
    radial_size: int = 128
    embedding_cutoff_angstrom: float = 6.0
    cutoff_angstrom: float = 7.2
    norm: str = "local"
    envelope: bool = True
    fade_angstrom: float = 0.0
    path: str = "fast"

    def __post_init__(self) -> None:
        for name, value, allowed in (("norm", self.norm, NORMS), ("path", self.path, PATHS)):
            if value not in allowed:
                raise CheckpointError(f"DeepH-E3 {name} {value!r} is not known.", allowed=allowed)
        if parse_slots(self.irreps_mid)[0].irrep != (0, 1):
            raise CheckpointError(f"irreps_mid {self.irreps_mid!r} do not start with even scalars (0e).")
        if not 0.0 <= self.fade_angstrom < self.cutoff_angstrom:
            raise CheckpointError(
                f"fade_angstrom is {self.fade_angstrom}; allowed is 0 (no fade) to cutoff_angstrom, {self.cutoff_angstrom}."
            )
        if min(self.embedding_channels, self.radial_size) < 2 or self.blocks < 1:
            raise CheckpointError("DeepH-E3 needs at least one block, and two Gaussians of each kind.")

    @property
    def n_inputs(self) -> int:
        """Known matrices that are read."""
        return 0
