"""What is left for computing: the limit, less what an idle service holds and what it may come to hold beside structures."""

from __future__ import annotations

import logging
from typing import Final

from service.memory.machine import memory_limit
from service.memory.usage import resident_bytes
from service.settings import Settings

logger = logging.getLogger(__name__)

PARSER_BYTES: Final = 90_000_000
"""A file parser process with ASE in it: 84 MB were measured."""

HEADROOM_SHARE: Final = 0.05
HEADROOM_BYTES: Final = 48_000_000
"""Connections, bodies, the page cache that a kernel does not give up at once."""

SMALLEST_BYTES: Final = 150_000_000
"""Promised in any case: a service that takes nothing at all is of no use."""


def capacity(settings: Settings) -> int | None:
    """Bytes for structures, to be asked once the models are loaded; None where the system tells no limit.

    Args:
        settings: ``memory_bytes`` goes before what the system says.
    """
    limit, held = settings.memory_bytes or memory_limit(), resident_bytes()
    if limit is None or held is None:
        logger.info("memory: no limit is known; structures are limited by atoms and orbitals alone")
        return None
    headroom = max(HEADROOM_BYTES, int(HEADROOM_SHARE * limit))
    left = limit - held - settings.cache_bytes - settings.parse_workers * PARSER_BYTES - headroom
    logger.info("memory: limit %.0f MB, idle %.0f MB, for structures %.0f MB", limit / 1e6, held / 1e6, left / 1e6)
    if left < SMALLEST_BYTES:
        logger.warning(
            "memory: too little is left for any structure but the smallest; raise the limit of the container"
        )
    return max(SMALLEST_BYTES, left)
