"""The kinds of reference Hamiltonians; another one is a class, its name in ``kinds``, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model.reference.fitted import FittedReference
from model.reference.interface import Reference
from model.reference.none import NoReference
from model.reference.two_centre import TwoCentreReference

REFERENCES: Final[Mapping[str, type[Reference]]] = {
    NoReference.kind: NoReference,
    FittedReference.kind: FittedReference,
    TwoCentreReference.kind: TwoCentreReference,
}
"""By the ``reference.kind`` of a checkpoint's card."""
