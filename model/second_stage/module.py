"""The second stage: features and output of the first one in, a correction of the output out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from model.nn.frames import WignerMatrices, bond_rotations, harmonics_from_wigner
from model.nn.irreps import CoefficientLayout, RaggedLayout
from model.nn.radial import ExponentialBernstein, longest_messages, smooth_cutoff
from model.nn.so2 import SectorLayout, Sectors
from model.pairs.graph import AtomGraph
from model.second_stage.config import SecondStageConfig
from model.second_stage.parts import Collection, Frames, IrrepParts, SectorParts, Source, of_coefficients
from model.second_stage.read_out import ComponentReadOut, MixingReadOut, ReadOut
from model.second_stage.tokens import ComponentTokens, InvariantTokens, Tokens
from model.second_stage.transformer import EdgeContext, GraphTransformer

Stage1 = tuple[Sectors, Sectors]
"""Features of on-site blocks and of the listed pairs after one block of the first stage."""
NO_FRAMES: Final = Frames()


class SecondStage(nn.Module):
    """Correction of standardised coefficients.

    Args:
        config: hyper-parameters; its mode is not "none".
        on_site, pair: layouts of the features that are read.
        coefficients: of the blocks.
        n_elements: number of elements.
        cutoff_angstrom: of messages.
        pair_cutoffs: longest pair with a block, of each ordered pair of elements, (element pair,), Å; None for no limit.
    """

    longest_message: Tensor
    on_site_tokens: Tokens
    pair_tokens: Tokens
    on_site_read_out: ReadOut
    pair_read_out: ReadOut

    def __init__(
        self,
        config: SecondStageConfig,
        on_site: Sequence[Source],
        pair: Sequence[Source],
        coefficients: CoefficientLayout,
        n_elements: int,
        cutoff_angstrom: float,
        pair_cutoffs: Tensor | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.coefficients = coefficients
        self.n_elements = n_elements
        faithful, hidden = config.mode == "faithful", config.hidden
        output = [Source(RaggedLayout(coefficients.layout, coefficients.multiplicity), 0)] * ("output" in config.reads)
        in_frames = not faithful and (
            config.bond_frames or any(isinstance(source.layout, SectorLayout) for source in pair)
        )
        self.on_site_parts = IrrepParts([*on_site, *output], coefficients)
        kind = SectorParts if in_frames else IrrepParts
        self.pair_parts: Collection = kind([*pair, *output], coefficients)
        self.on_site_tokens, self.on_site_read_out = _ends(config, self.on_site_parts, coefficients)
        self.pair_tokens, self.pair_read_out = _ends(config, self.pair_parts, coefficients)
        self.atom_embedding = nn.Embedding(n_elements, hidden)
        self.pair_embedding = nn.Embedding(n_elements**2, hidden)
        self.radial = ExponentialBernstein(config.radial_size, cutoff_angstrom)
        n_harmonics = (config.lmax + 1) ** 2 if faithful else 0
        self.transformer = GraphTransformer(hidden, config.blocks, config.heads, config.radial_size, n_harmonics)
        self.needs_frames = in_frames or any(isinstance(source.layout, SectorLayout) for source in pair)
        irreps = [irrep for source in (*pair, *output) for irrep in source.irreps.irreps]
        highest = max([ang for ang, _ in irreps] * self.needs_frames + [config.lmax] * faithful, default=0)
        self.wigner = WignerMatrices(highest) if self.needs_frames or faithful else None
        longest = longest_messages(cutoff_angstrom, n_elements**2, pair_cutoffs)
        self.register_buffer("longest_message", longest, persistent=False)

    def forward(
        self, graph: AtomGraph, atom_type: Tensor, features: Sequence[Stage1], output: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What is to be added to the output.

        Args:
            graph: the batch.
            atom_type: index of each atom's element, (atom,).
            features: of the first stage, in the order of the sources.
            output: its standardised coefficients of on-site blocks and listed pairs.

        Returns:
            (atom, coefficient) and (pair, coefficient).
        """
        row, column = graph.pair_index
        pair_type = atom_type[row] * self.n_elements + atom_type[column]
        to_frame = () if self.wigner is None else self.wigner(bond_rotations(graph.pair_vectors))
        frames = NO_FRAMES
        if self.needs_frames:
            frames = Frames(to_frame, [matrix.transpose(1, 2) for matrix in to_frame])
        with_output = "output" in self.config.reads
        on_site_output, pair_output = (
            [of_coefficients(values, self.coefficients)] if with_output else [] for values in output
        )
        on_site = self.on_site_parts.gather([own for own, _ in features] + on_site_output, NO_FRAMES)
        pair = self.pair_parts.gather([own for _, own in features] + pair_output, frames)
        edge = torch.cat(
            [
                self.on_site_tokens(on_site) + self.atom_embedding(atom_type),
                self.pair_tokens(pair) + self.pair_embedding(pair_type),
            ]
        )
        edge = self.transformer(edge, self._context(graph, pair_type, to_frame))
        return (
            self.on_site_read_out(edge[: graph.n_atoms], on_site, NO_FRAMES),
            self.pair_read_out(edge[graph.n_atoms :], pair, frames),
        )

    def _context(self, graph: AtomGraph, pair_type: Tensor, to_frame: Sequence[Tensor]) -> EdgeContext:
        n_atoms = graph.n_atoms
        first, second = graph.pair_index
        atoms = torch.arange(n_atoms, device=first.device)
        row, column = torch.cat([atoms, first]), torch.cat([atoms, second])
        # a block of two unlike atoms is computed once and speaks to both
        unlike = (graph.numbers[row] != graph.numbers[column]).nonzero().squeeze(1)
        distances = graph.pair_vectors.norm(dim=-1)
        weight = smooth_cutoff(distances, self.longest_message[pair_type].to(distances.dtype))
        weight = torch.cat([weight.new_ones(n_atoms), weight])
        radial = self.radial(distances)
        harmonics = None
        if self.config.mode == "faithful":
            size = (self.config.lmax + 1) ** 2
            on_site = radial.new_zeros((n_atoms, size))
            on_site[:, 0] = 1.0
            harmonics = torch.cat([on_site, harmonics_from_wigner(list(to_frame[: self.config.lmax + 1]))])
        return EdgeContext(
            n_atoms=n_atoms,
            row=row,
            column=column,
            token=torch.cat([torch.arange(len(row), device=row.device), unlike]),
            target=torch.cat([row, column[unlike]]),
            other=torch.cat([column, row[unlike]]),
            weight=torch.cat([weight, weight[unlike]]).unsqueeze(1),
            radial=torch.cat([radial.new_zeros((n_atoms, radial.shape[1])), radial]),
            harmonics=harmonics,
        )


def _ends(
    config: SecondStageConfig, parts: Collection, coefficients: CoefficientLayout
) -> tuple[ComponentTokens | InvariantTokens, ComponentReadOut | MixingReadOut]:
    """What makes tokens of parts, and what makes coefficients of tokens."""
    if config.mode == "faithful":
        return ComponentTokens(parts, config.hidden), ComponentReadOut(config.hidden, coefficients.slices[-1].stop)
    return (
        InvariantTokens(parts, config.invariants, config.hidden),
        MixingReadOut(parts, config.rank, config.hidden),
    )
