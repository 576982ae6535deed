"""The smallest network that still has every part; tests run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TINY: Final[Mapping[str, object]] = {
    "backbone": "qhnet",
    "qhnet": {
        "node_channels": 8,
        "pair_channels": 8,
        "node_layers": 1,
        "pair_layers": 2,
        "hidden": 16,
        "smooth_messages": True,
    },
    "tracegrad": {"mode": "both", "rank": 6, "hidden": 12, "n_scalars": 10},
}
