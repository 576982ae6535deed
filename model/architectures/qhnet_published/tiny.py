"""The smallest network that still has every part; tests run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TINY: Final[Mapping[str, object]] = {
    "backbone": "qhnet_published",
    "qhnet_published": {
        "channels": 6,
        "bottleneck": 4,
        "hidden": 8,
        "convolution_hidden": 5,
        "radial_size": 6,
    },
    "tracegrad": {"mode": "both", "rank": 6, "hidden": 12, "n_scalars": 10},
}
