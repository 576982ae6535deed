"""NetworkConfig: architecture, TraceGrad and second stage with all hyper-parameters, as in a card and in a run file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from model.architectures.declaration import BackboneConfig, Declaration
from model.architectures.registry import ARCHITECTURES
from model.blocks.block_set import Spin
from model.errors import CheckpointError
from model.second_stage.config import SecondStageConfig
from model.tracegrad.config import TraceGradConfig

Table = TypeVar("Table", bound=BackboneConfig | TraceGradConfig | SecondStageConfig)
Symmetry = Literal["O(3)", "SO(3)", "approximate"]
"""What a network promises of motions: exact for all, for rotations only, or measured (translations and orders stay exact)."""


@dataclass(frozen=True)
class NetworkConfig:
    """The whole network.

    Attributes:
        backbone: a key of ``ARCHITECTURES``.
        backbone_config: its hyper-parameters.
        tracegrad: TraceGrad's.
        second_stage: of the stage that corrects the backbone's answer; its mode is "none" where there is none.
    """

    backbone: str
    backbone_config: BackboneConfig
    tracegrad: TraceGradConfig
    second_stage: SecondStageConfig = field(default_factory=SecondStageConfig)

    @property
    def declaration(self) -> Declaration:
        """What the architecture declares about itself."""
        return ARCHITECTURES[self.backbone]

    @property
    def symmetry(self) -> Symmetry:
        """What the whole network promises."""
        return "approximate" if self.second_stage.mode == "faithful" else self.declaration.symmetry

    @property
    def edge_cutoff_angstrom(self) -> float:
        """Longest edge that a graph for this network needs; 0 if it needs none."""
        return float(self.backbone_config.cutoff_angstrom) if self.declaration.messages == "edges" else 0.0

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> NetworkConfig:
        """Read {"backbone": "qhnet", "qhnet": {...}, "tracegrad": {...}, "second_stage": {...}}; unknown keys are refused.

        Raises:
            CheckpointError: names what is allowed.
        """
        values = dict(mapping)
        name = values.pop("backbone", None)
        if name not in ARCHITECTURES:
            raise CheckpointError(f"Backbone {name!r} is not known.", allowed=list(ARCHITECTURES))
        backbone = _read(ARCHITECTURES[name].config, values.pop(name, {}), name)
        tracegrad = _read(TraceGradConfig, values.pop("tracegrad", {}), "tracegrad")
        second_stage = _read(SecondStageConfig, values.pop("second_stage", {}), "second_stage")
        if values:
            raise CheckpointError(f"Unknown architecture keys: {', '.join(sorted(values))}.")
        return cls(name, backbone, tracegrad, second_stage)

    def to_mapping(self) -> dict[str, Any]:
        """Inverse of :meth:`from_mapping`; of a second stage that is not there nothing is said."""
        found = {
            "backbone": self.backbone,
            self.backbone: asdict(self.backbone_config),
            "tracegrad": asdict(self.tracegrad),
        }
        return found | ({"second_stage": asdict(self.second_stage)} if self.second_stage.is_used else {})

    def check(self, spin: Spin, *, periodic: bool) -> None:
        """Refuse what the architecture does not declare.

        Raises:
            CheckpointError: a spin treatment, or crystals, that it cannot do.
        """
        declared = self.declaration
        if spin not in declared.spins:
            raise CheckpointError(f"Backbone {self.backbone!r} gives no {spin} blocks.", allowed=declared.spins)
        if periodic and not declared.periodic:
            raise CheckpointError(
                f"Backbone {self.backbone!r} is for molecules: it knows one image of each pair of atoms.",
                allowed=[name for name, other in ARCHITECTURES.items() if other.periodic],
            )

    def shares_backbone(self, other: NetworkConfig) -> bool:
        """Whether the other network can take over the weights of this one's backbone, whatever else differs."""
        return self.backbone == other.backbone and self.declaration.shares_weights(
            self.backbone_config, other.backbone_config
        )


def _read(kind: type[Table], values: Mapping[str, Any], where: str) -> Table:
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise CheckpointError(f"Unknown keys under {where!r}: {', '.join(unknown)}.", allowed=sorted(known))
    return kind(**values)
