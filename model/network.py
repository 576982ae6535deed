"""The network: wiring only. Backbone blocks and TraceGrad modules in turn, then the heads, then the second stage.

    inputs -> start -> [block -> TraceGrad] x n -> read-out ------------------> + -> coefficients
                                   |                  +-> second stage (if any) +
                                   +-> z -> trace labels (in training only)

Coefficients leave standardised: times the scale (plus, on on-site blocks, the mean) of their element pair and shell pair
they are the target in hartree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from model.architectures.interface import Backbone, Features, InputCoefficients
from model.blocks.spaces import BlockSpace
from model.errors import CheckpointError
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph
from model.second_stage.module import SecondStage, Stage1
from model.second_stage.parts import Source
from model.tracegrad.module import TraceGradModule
from model.tracegrad.trace import TraceDecoder


@dataclass(frozen=True)
class Output:
    """What the network says of a batch.

    Attributes:
        diagonal: standardised coefficients of on-site blocks, (atom, coefficient).
        pair: standardised coefficients of pair blocks, (pair, coefficient).
        trace: predicted trace labels of all blocks, on-site first, (block, shell pair), or None.
    """

    diagonal: Tensor
    pair: Tensor
    trace: Tensor | None


class HamiltonianNetwork(nn.Module):
    """Structure and known matrices in, standardised irrep coefficients out.

    Args:
        config: the architecture, TraceGrad and the second stage.
        basis: gives elements and the template.
        block_space: what the coefficients stand for; blocks without spin if it is not given.
        pair_cutoffs: longest pair with a block, of each ordered pair of elements, (element pair,), Å; None for no limit.

    Raises:
        CheckpointError: the architecture cannot do what is asked of it.
    """

    element_index: Tensor
    shell_pair: Tensor
    backbone: Backbone

    def __init__(
        self,
        config: NetworkConfig,
        basis: OrbitalSpace,
        block_space: BlockSpace | None = None,
        pair_cutoffs: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        space = BlockSpace.of(basis.template) if block_space is None else block_space
        config.check(space.spin, periodic=pair_cutoffs is not None)
        n_elements = len(basis.elements)
        lookup = torch.full((max(basis.elements) + 1,), -1, dtype=torch.int64)
        for index, number in enumerate(basis.elements):
            lookup[number] = index
        self.register_buffer("element_index", lookup, persistent=False)
        self.register_buffer("shell_pair", torch.from_numpy(space.trace_index()), persistent=False)
        self.n_elements = n_elements
        backbone = config.declaration.build(config.backbone_config, space.coefficients, n_elements, pair_cutoffs)
        self.backbone = backbone
        tracegrad = config.tracegrad
        blocks = tracegrad.module_blocks(backbone.n_blocks)

        self.diagonal_tracegrad, self.pair_tracegrad = nn.ModuleDict(), nn.ModuleDict()
        layouts = {str(block): backbone.feature_layouts(block) for block in blocks}
        for block, found in layouts.items():
            if found.alike:
                continue
            self.diagonal_tracegrad[block] = TraceGradModule(found.diagonal, found.diagonal_channels, tracegrad)
        for block, found in layouts.items():
            self.pair_tracegrad[block] = TraceGradModule(found.pair, found.pair_channels, tracegrad)
        self.has_trace_head = tracegrad.has_trace
        if self.has_trace_head:
            width = len(blocks) * tracegrad.n_scalars
            if self.diagonal_tracegrad:
                self.diagonal_decoder = TraceDecoder(width, tracegrad.hidden, space.n_traces)
            self.pair_decoder = TraceDecoder(width, tracegrad.hidden, space.n_traces)
        self.is_first_stage_frozen = False
        self.second_stage = self._second_stage(space, pair_cutoffs) if config.second_stage.is_used else None

    def _second_stage(self, space: BlockSpace, pair_cutoffs: Tensor | None) -> SecondStage:
        settings, backbone = self.config.second_stage, self.backbone
        found = [backbone.feature_layouts(block) for block in settings.read_blocks(backbone.n_blocks)]
        return SecondStage(
            settings,
            [Source(layouts.diagonal, layouts.diagonal_channels) for layouts in found],
            [Source(layouts.pair, layouts.pair_channels) for layouts in found],
            space.coefficients,
            self.n_elements,
            float(self.config.backbone_config.cutoff_angstrom),
            pair_cutoffs,
        )

    def freeze_first_stage(self) -> None:
        """From now on only the second stage is trained; running statistics of the first one stay too.

        Raises:
            CheckpointError: there is no second stage.
        """
        if self.second_stage is None:
            raise CheckpointError("Without a second stage the first one cannot be frozen: nothing would be trained.")
        self.is_first_stage_frozen = True
        self.requires_grad_(False)
        self.second_stage.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module; a frozen first stage stays as it is when it predicts."""
        super().train(mode)
        if self.is_first_stage_frozen and self.second_stage is not None:
            for child in self.children():
                if child is not self.second_stage:
                    child.eval()
        return self

    def types(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Element index of each atom and ordered element-pair index of each pair."""
        atom_type = self.element_index[graph.numbers]
        row, column = graph.pair_index
        return atom_type, atom_type[row] * self.n_elements + atom_type[column]

    def forward(self, graph: AtomGraph, inputs: InputCoefficients, *, with_trace: bool = False) -> Output:
        """One forward pass of a batch.

        Args:
            graph: the batch.
            inputs: standardised coefficients of the known matrices.
            with_trace: decode the trace labels too.
        """
        diagonal_scalars: list[Tensor] = []
        pair_scalars: list[Tensor] = []

        read: list[Stage1] = []
        stage2 = self.second_stage
        wanted = () if stage2 is None else stage2.config.read_blocks(self.backbone.n_blocks)

        def after(index: int, features: Features, listed: Tensor | slice) -> Features:
            features = with_gradient(index, features, listed)
            if index in wanted:
                read.append((features.diagonal, tuple(part[listed] for part in features.pair)))
            return features

        def with_gradient(index: int, features: Features, listed: Tensor | slice) -> Features:
            block = str(index)
            if block not in self.pair_tracegrad:
                return features
            on_site = self.diagonal_tracegrad if block in self.diagonal_tracegrad else self.pair_tracegrad
            z, diagonal = on_site[block](features.diagonal)
            diagonal_scalars.append(z)
            z, pair = self.pair_tracegrad[block](features.pair)
            pair_scalars.append(z[listed])
            return replace(features, diagonal=diagonal, pair=pair)

        atom_type = self.element_index[graph.numbers]
        diagonal, pair = self.backbone.run(graph, inputs, atom_type, after)
        if stage2 is not None:
            change = stage2(graph, atom_type, read, (diagonal, pair))
            diagonal, pair = diagonal + change[0], pair + change[1]
        trace = None
        if with_trace and self.has_trace_head:
            on_site = self.diagonal_decoder if self.diagonal_tracegrad else self.pair_decoder
            trace = torch.cat(
                [
                    on_site(torch.cat(diagonal_scalars, dim=-1)),
                    self.pair_decoder(torch.cat(pair_scalars, dim=-1)),
                ]
            )
        return Output(diagonal=diagonal, pair=pair, trace=trace)

    def take_weights(self, config: NetworkConfig, weights: Mapping[str, Tensor]) -> None:
        """Weights of a network with the same backbone; those of parts whose settings differ stay as they are.

        Args:
            config: of that network.
            weights: its ``state_dict``.

        Raises:
            CheckpointError: one of another shape.
        """
        same = {"backbone"}
        if config.tracegrad == self.config.tracegrad:
            same |= {"diagonal_tracegrad", "pair_tracegrad", "diagonal_decoder", "pair_decoder"}
        if config.second_stage == self.config.second_stage:
            same.add("second_stage")
        taken = {name: value for name, value in weights.items() if name.split(".")[0] in same}
        own = self.state_dict()
        for name, value in taken.items():
            if name not in own or own[name].shape != value.shape:
                raise CheckpointError(
                    f"{name} of the weights to start with, {tuple(value.shape)}, is not of this network.",
                    hint="Elements, basis and spin must be the same.",
                )
        self.load_state_dict(own | taken)
