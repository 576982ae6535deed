"""The smallest network that still has every part; tests run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TINY: Final[Mapping[str, object]] = {
    "backbone": "qhnetv2",
    "qhnetv2": {
        "node_channels": 8,
        "pair_channels": 8,
        "exchange_channels": 4,
        "frame_channels": 8,
        "product_channels": 4,
        "layers": 2,
        "hidden": 16,
    },
    "tracegrad": {"mode": "both", "rank": 6, "hidden": 12, "n_scalars": 10},
}
