"""NetworkConfig: architecture, TraceGrad and second stage with all hyper-parameters, as in a card and in a run file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, TypeVar, get_type_hints

from model.architectures.declaration import BackboneConfig, Declaration
from model.architectures.registry import ARCHITECTURES
from model.blocks.block_set import Spin
from model.errors import CheckpointError
from model.second_stage.config import SecondStageConfig
from model.tracegrad.config import TraceGradConfig

Table = TypeVar("Table", bound=BackboneConfig | TraceGradConfig | SecondStageConfig)
Symmetry = Literal["O(3)", "SO(3)", "approximate"]
"""What a network promises of motions: exact for all, for rotations only, or measured (translations and orders stay exact)."""

MOST: Final[Mapping[str, int]] = {
    **dict.fromkeys(("lmax", "node_lmax", "harmonics_lmax"), 8),
    **dict.fromkeys(("layers", "blocks", "node_layers", "pair_layers", "heads"), 64),
    "embedding_rows": 120,
}
"""Of whole numbers, by name; far beyond anything that was ever trained."""

WIDEST: Final = 4096
"""Of all other whole numbers."""

LONGEST: Final = 1e4
"""Of other numbers: lengths in Å, floors of norms."""

LONGEST_TEXT: Final = 500


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
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise CheckpointError(f"Backbone {name!r:.40} is not known.", allowed=list(ARCHITECTURES))
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
    if not isinstance(values, Mapping):
        raise CheckpointError(f"What stands under {where!r} is no table.")
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise CheckpointError(f"Unknown keys under {where!r}: {', '.join(unknown)}.", allowed=sorted(known))
    hints = get_type_hints(kind)
    for name, value in values.items():
        _check(hints[name], value, f"{where}.{name}", MOST.get(name, WIDEST))
    return kind(**values)


def _check(hint: object, value: object, where: str, most: int) -> None:
    """Refuse a value of another kind than its field has, or one that no network has: a card may say anything."""
    if hint is int:
        fits, allowed = type(value) is int and 0 <= value <= most, f"a whole number from 0 to {most}"
    elif hint is bool:
        fits, allowed = isinstance(value, bool), "true or false"
    elif hint is float:
        fits = type(value) in (int, float) and math.isfinite(value) and 0 <= value <= LONGEST  # type: ignore[arg-type, operator]
        allowed = f"a number from 0 to {LONGEST:g}"
    elif hint is str:
        fits, allowed = isinstance(value, str) and len(value) <= LONGEST_TEXT, "a text"
    else:  # a tuple of one kind; a list, if read from a file
        item = float if hint == tuple[float, ...] else str
        fits, allowed = isinstance(value, list | tuple) and len(value) <= MOST["layers"] + 1, "a list"
        if fits:
            for each in value:  # type: ignore[attr-defined]
                _check(item, each, where, most)
    if not fits:
        raise CheckpointError(f"{where} is {value!r:.60}; allowed is {allowed}.")
