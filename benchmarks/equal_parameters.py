"""A control for comparisons of modules: the backbone without the module, wider by as many parameters as the module has."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Final

from model.architectures.deeph_e3.config import DeepHE3Config
from model.network_config import NetworkConfig

STEPS: Final = 200
"""Widths between one and two times the old ones that are tried."""


def widened(network: NetworkConfig, target: int, count: Callable[[NetworkConfig], int]) -> NetworkConfig:
    """DeepH-E3 without TraceGrad whose parameters are nearest to a number.

    All multiplicities of the middle irreps and the embeddings grow by one factor, rounded; depth, harmonics and radial
    functions stay.

    Args:
        network: with DeepH-E3 as its backbone.
        target: parameters to have.
        count: parameters of a network.

    Raises:
        ValueError: another backbone, or a target beyond twice the widths.
    """
    backbone = network.backbone_config
    if not isinstance(backbone, DeepHE3Config):
        raise ValueError(
            f"Widths of {network.backbone!r} are not known here; give a network with the backbone 'deeph_e3'."
        )
    plain = dataclasses.replace(network, tracegrad=dataclasses.replace(network.tracegrad, mode="none"))

    def at(step: int) -> NetworkConfig:
        factor = 1.0 + step / STEPS
        irreps = re.sub(r"(\d+)x", lambda found: f"{round(int(found[1]) * factor)}x", backbone.irreps_mid)
        channels = round(backbone.embedding_channels * factor)
        return dataclasses.replace(
            plain, backbone_config=dataclasses.replace(backbone, irreps_mid=irreps, embedding_channels=channels)
        )

    low, high = 0, STEPS
    if not count(at(low)) <= target <= count(at(high)):
        raise ValueError(f"No width between one and two times has {target} parameters; give a target between them.")
    while high - low > 1:  # parameters grow with the factor
        middle = (low + high) // 2
        low, high = (middle, high) if count(at(middle)) <= target else (low, middle)
    return min(at(low), at(high), key=lambda found: abs(count(found) - target))
