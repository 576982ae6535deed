"""Names of the kinds of reference Hamiltonians; their classes are in ``registry``, which loads torch."""

from __future__ import annotations

from typing import Final

REFERENCE_KINDS: Final = ("none", "fitted", "two_centre")
"""As a checkpoint's card and run files say them."""
