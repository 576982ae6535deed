"""The network: alternates backbone blocks and TraceGrad modules, then reads out irrep coefficients and trace labels.

    inputs -> backbone.start -> [backbone.block -> TraceGrad] x n -> heads

After every backbone block, or the last one, a TraceGrad module makes non-linear scalars z from the block features f and adds
their gradient: f + alpha * (|f| / |v|) * v (the norm ratio is detached, NextHAM's form; ``residual = "plain"`` is the paper's
f + v). The trace head decodes all z; it is needed in training only.

Coefficients leave standardised: times the scale (plus, on diagonal blocks, the mean) of their element pair and shell
pair they are the target in hartree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import torch
from torch import Tensor, nn

from model.architectures.interface import InputCoefficients, OwnReadOut
from model.architectures.qhnet.network import QHNet, QHNetConfig
from model.architectures.qhnet_published import QHNetStrict, QHNetStrictConfig
from model.architectures.qhnetv2.network import QHNetV2, QHNetV2Config
from model.blocks.spaces import BlockSpace
from model.errors import CheckpointError
from model.nn.irreps import Layout
from model.nn.read_out import ReadOut
from model.nn.so2 import SectorLayout, sum_of_squares
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph
from model.tracegrad.full_contraction import FullScalars
from model.tracegrad.gradient import GradientFeature
from model.tracegrad.invariants import SectorScalars, SelfProductScalars
from model.tracegrad.trace import LABELS, TraceDecoder

BACKBONES: Final[Mapping[str, tuple[Any, Any]]] = {
    "qhnet": (QHNet, QHNetConfig),
    "qhnet_strict": (QHNetStrict, QHNetStrictConfig),
    "qhnetv2": (QHNetV2, QHNetV2Config),
}
TRACEGRAD_CHOICES: Final = {
    "mode": ("none", "trace", "grad", "both"),
    "after": ("every", "last"),
    "contraction": ("low_rank", "full"),
    "residual": ("norm_scaled", "plain"),
    "labels": LABELS,
}


@dataclass(frozen=True)
class TraceGradConfig:
    """What of TraceGrad is used.

    Attributes:
        mode: "none"; "trace" (trace label only); "grad" (gradient feature only); "both".
        after: "every" backbone block, as in the paper, or the "last" one: half the price where there are two, and no
            difference was measured (docs/decisions/0007-tracegrad-here.md).
        contraction: "low_rank", or "full", the paper's weight for every pair of channels (not in bond frames).
        rank: number of invariants u.
        hidden: width of z's MLP and of the trace decoder.
        n_scalars: number of non-linear scalars z per module.
        residual: "norm_scaled", or "plain", the paper's f + v.
        labels: of the trace: "log" (of the standardised target), "layer_norm" (as in the released code) or "raw" (the
            paper's text).

    The paper's literal form: after "every", contraction "full", rank 1024, residual "plain", labels "raw".
    """

    mode: str = "both"
    after: str = "last"
    contraction: str = "low_rank"
    rank: int = 16
    hidden: int = 64
    n_scalars: int = 36
    residual: str = "norm_scaled"
    labels: str = "log"

    def has_module_after(self, block: int, n_blocks: int) -> bool:
        """Whether a module follows this backbone block."""
        return self.mode != "none" and (self.after == "every" or block == n_blocks - 1)


@dataclass(frozen=True)
class NetworkConfig:
    """The whole architecture, as it stands in a card.

    Attributes:
        backbone: a key of ``BACKBONES``.
        backbone_config: its hyper-parameters.
        tracegrad: TraceGrad's.
    """

    backbone: str
    backbone_config: Any
    tracegrad: TraceGradConfig

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> NetworkConfig:
        """Read {"backbone": ..., "qhnet": {...}, "tracegrad": {...}}; unknown or missing keys are refused.

        Raises:
            CheckpointError: names what is allowed.
        """
        values = dict(mapping)
        name = values.pop("backbone", None)
        if name not in BACKBONES:
            raise CheckpointError(f"Backbone {name!r} is not known.", allowed=list(BACKBONES))
        backbone = _read(BACKBONES[name][1], values.pop(name, {}), name)
        tracegrad = _read(TraceGradConfig, values.pop("tracegrad", {}), "tracegrad")
        if values:
            raise CheckpointError(f"Unknown architecture keys: {', '.join(sorted(values))}.")
        for key, allowed in TRACEGRAD_CHOICES.items():
            if getattr(tracegrad, key) not in allowed:
                raise CheckpointError(f"TraceGrad {key} {getattr(tracegrad, key)!r} is not known.", allowed=allowed)
        return cls(name, backbone, tracegrad)

    def to_mapping(self) -> dict[str, Any]:
        """Inverse of :meth:`from_mapping`."""
        return {
            "backbone": self.backbone,
            self.backbone: asdict(self.backbone_config),
            "tracegrad": asdict(self.tracegrad),
        }


def _read(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise CheckpointError(f"Unknown keys under {where!r}: {', '.join(unknown)}.", allowed=sorted(known))
    return kind(**values)


@dataclass(frozen=True)
class Output:
    """What the network says of a batch.

    Attributes:
        diagonal: standardised coefficients of diagonal blocks, (atom, coefficient).
        pair: standardised coefficients of pair blocks, (pair, coefficient).
        trace: predicted trace labels of all blocks, diagonal first, (block, shell pair), or None.
    """

    diagonal: Tensor
    pair: Tensor
    trace: Tensor | None


class TraceGradModule(nn.Module):
    """TraceGrad after one backbone block: z, and v added to the features.

    Args:
        layout: of the features: a ``Layout`` for (item, component, channel), a ``SectorLayout`` for features in bond frames.
        channels: of a ``Layout``.
        config: what of TraceGrad is used.
    """

    def __init__(self, layout: Layout | SectorLayout, channels: int, config: TraceGradConfig) -> None:
        super().__init__()
        self.config = config
        invariants: SelfProductScalars | SectorScalars | FullScalars
        if isinstance(layout, SectorLayout):
            if config.contraction == "full":
                raise CheckpointError(
                    "TraceGrad contraction 'full' is not made for features in bond frames: a sector has hundreds of "
                    "channels, and their pairs more weights than memory.",
                    hint="Use contraction 'low_rank' with this backbone.",
                )
            invariants = SectorScalars(layout, config.rank)
        elif config.contraction == "full":
            invariants = FullScalars(layout, channels, config.rank)
        else:
            invariants = SelfProductScalars(layout, channels, config.rank)
        self.gradient = GradientFeature(invariants, config.rank, config.hidden, config.n_scalars)
        self.strength = nn.Parameter(torch.tensor(0.2 if config.residual == "norm_scaled" else 1.0))

    def forward(self, features: Any) -> tuple[Tensor, Any]:
        """Features, one tensor or sectors -> z and the new features."""
        z, v = self.gradient(features)
        if self.config.mode == "trace":
            return z, features
        if isinstance(features, Tensor):
            return z, torch.addcmul(features, v, self._strength((features,), (v,)))
        strength = self._strength(features, v)
        return z, tuple(torch.addcmul(part, change, strength) for part, change in zip(features, v, strict=True))

    def _strength(self, features: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> Tensor:
        """Factor of v, (item, 1, 1) or a scalar."""
        if self.config.residual == "plain":
            return self.strength
        own, change = (sum_of_squares(tuple(part.detach() for part in parts)) for parts in (features, v))
        count = sum(part.shape[1] * part.shape[2] for part in features)
        return self.strength * (own / (change + 1e-12 * count)).sqrt()[:, None, None]


def of_tracegrad(name: str) -> bool:
    """Whether a parameter of a network belongs to TraceGrad: its modules and decoders."""
    return name.partition(".")[0] in ("diagonal_tracegrad", "pair_tracegrad", "diagonal_decoder", "pair_decoder")


class HamiltonianNetwork(nn.Module):
    """Structure and known matrices in, standardised irrep coefficients out.

    Args:
        config: the architecture.
        basis: gives elements and the template.
    """

    element_index: Tensor
    shell_pair: Tensor

    def __init__(self, config: NetworkConfig, basis: OrbitalSpace) -> None:
        super().__init__()
        self.config = config
        expansion = BlockSpace.of(basis.template)
        n_elements = len(basis.elements)
        lookup = torch.full((max(basis.elements) + 1,), -1, dtype=torch.int64)
        for index, number in enumerate(basis.elements):
            lookup[number] = index
        self.register_buffer("element_index", lookup, persistent=False)
        self.register_buffer("shell_pair", torch.from_numpy(expansion.trace_index()), persistent=False)
        self.n_elements = n_elements
        self.backbone: Any = BACKBONES[config.backbone][0](config.backbone_config, expansion.coefficients, n_elements)
        tracegrad = config.tracegrad
        backbone = self.backbone
        blocks = [
            str(index) for index in range(backbone.n_blocks) if tracegrad.has_module_after(index, backbone.n_blocks)
        ]
        self.diagonal_tracegrad = nn.ModuleDict(
            {
                block: TraceGradModule(backbone.diagonal_layout, backbone.diagonal_channels, tracegrad)
                for block in blocks
            }
        )
        self.pair_tracegrad = nn.ModuleDict(
            {block: TraceGradModule(backbone.pair_layout, backbone.pair_channels, tracegrad) for block in blocks}
        )
        self.own_read_out = isinstance(backbone, OwnReadOut)
        if not self.own_read_out:
            hidden, coefficients = config.backbone_config.hidden, expansion.coefficients
            self.diagonal_read_out = ReadOut(
                backbone.diagonal_layout, backbone.diagonal_channels, coefficients, n_elements, hidden
            )
            self.pair_read_out = ReadOut(
                backbone.pair_layout, backbone.pair_channels, coefficients, n_elements**2, hidden
            )
        self.has_trace_head = tracegrad.mode in ("trace", "both")
        if self.has_trace_head:
            width = len(blocks) * tracegrad.n_scalars
            n_shell_pairs = len(basis.template) ** 2
            self.diagonal_decoder = TraceDecoder(width, tracegrad.hidden, n_shell_pairs)
            self.pair_decoder = TraceDecoder(width, tracegrad.hidden, n_shell_pairs)

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
        atom_type, pair_type = self.types(graph)
        features, context = self.backbone.start(graph, inputs, atom_type)
        diagonal_scalars, pair_scalars = [], []
        for index in range(self.backbone.n_blocks):
            features = self.backbone.block(index, graph, features, context)
            block = str(index)
            if block in self.pair_tracegrad:
                z, diagonal = self.diagonal_tracegrad[block](features.diagonal)
                diagonal_scalars.append(z)
                z, pair = self.pair_tracegrad[block](features.pair)
                pair_scalars.append(z[self.backbone.listed_pairs(context)] if self.own_read_out else z)
                features = type(features)(features.node, diagonal, pair)
        trace = None
        if with_trace and self.has_trace_head:
            trace = torch.cat(
                [
                    self.diagonal_decoder(torch.cat(diagonal_scalars, dim=-1)),
                    self.pair_decoder(torch.cat(pair_scalars, dim=-1)),
                ]
            )
        if self.own_read_out:
            diagonal, pair = self.backbone.read_out(graph, features, context)
        else:
            diagonal = self.diagonal_read_out(features.diagonal, atom_type)
            pair = self.pair_read_out(features.pair, pair_type)
        return Output(diagonal=diagonal, pair=pair, trace=trace)
