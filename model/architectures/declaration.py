"""What an architecture declares about itself: all that anybody outside its folder knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from torch import Tensor

from model.architectures.interface import Backbone
from model.blocks.block_set import Spin
from model.nn.irreps import CoefficientLayout


class BackboneConfig(Protocol):
    """Hyper-parameters of an architecture: a frozen dataclass with at least these."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def cutoff_angstrom(self) -> float:
        """Longest message."""
        ...

    @property
    def n_inputs(self) -> int:
        """Known matrices that it reads; 0 for none."""
        ...


Config = TypeVar("Config", bound=BackboneConfig)
Build = Callable[[BackboneConfig, CoefficientLayout, int, Tensor | None], Backbone]
"""Hyper-parameters, layout of the blocks' coefficients, number of elements, and the longest pair with a block of each ordered
pair of elements, (type pair,), Å, or None where there is no limit."""


@dataclass(frozen=True)
class Declaration:
    """One architecture; make it with :func:`declare`.

    Attributes:
        config: type of its hyper-parameters.
        build: makes the network; see ``Build``.
        tiny: a small whole network, as ``NetworkConfig.from_mapping`` reads it; tests run it.
        symmetry: "O(3)"; or "SO(3)" where mirror images are not exact.
        periodic: whether it takes crystals: several images of one pair of atoms, and pairs of an atom with its own image.
        spins: spin treatments of the blocks that it can give.
        messages: the list of the graph that they travel along: "edges", all pairs of atoms within the cutoff, or "pairs",
            those with a block; a graph for the latter needs no edges.
        weightless: hyper-parameters that no weight depends on: networks that differ in these only can share weights.
    """

    config: type[BackboneConfig]
    build: Build
    tiny: Mapping[str, object]
    symmetry: Literal["O(3)", "SO(3)"]
    periodic: bool
    spins: tuple[Spin, ...]
    messages: Literal["edges", "pairs"]
    weightless: frozenset[str]

    @property
    def reads_matrices(self) -> bool:
        """Whether it can read known matrices; how many is a hyper-parameter then."""
        return any(field.name == "n_inputs" for field in fields(self.config))

    def shares_weights(self, one: BackboneConfig, other: BackboneConfig) -> bool:
        """Whether networks with these hyper-parameters can share their weights."""
        return replace(one, **{name: getattr(other, name) for name in self.weightless}) == other


def declare(
    config: type[Config],
    network: Callable[[Config, CoefficientLayout, int, Tensor | None], Backbone],
    *,
    tiny: Mapping[str, object],
    symmetry: Literal["O(3)", "SO(3)"] = "O(3)",
    periodic: bool = True,
    spins: tuple[Spin, ...] = ("restricted", "unrestricted", "spinor"),
    messages: Literal["edges", "pairs"] = "edges",
    weightless: frozenset[str] = frozenset(),
) -> Declaration:
    """See :class:`Declaration`.

    Args:
        network: its class, called with the same as ``Build``.
    """
    unknown = weightless - {field.name for field in fields(config)}
    assert not unknown, f"no hyper-parameters: {sorted(unknown)}"

    def build(
        given: BackboneConfig, coefficients: CoefficientLayout, n_elements: int, pair_cutoffs: Tensor | None
    ) -> Backbone:
        assert isinstance(given, config)
        return network(given, coefficients, n_elements, pair_cutoffs)

    return Declaration(config, build, tiny, symmetry, periodic, spins, messages, weightless)
