"""The smallest network that still has every part; tests run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TINY: Final[Mapping[str, object]] = {
    "backbone": "deeph_e3",
    "deeph_e3": {
        "irreps_mid": "6x0e+4x1o+3x2e+2x3o",
        "embedding_channels": 6,
        "blocks": 2,
        "hidden": 8,
        "radial_size": 8,
    },
    "tracegrad": {"mode": "both", "after": "every", "rank": 6, "hidden": 12, "n_scalars": 10},
}
