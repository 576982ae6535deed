"""All architectures by name: a key of a card's and a run file's "backbone". A new one is one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model.architectures import deeph_e3, qhnet, qhnet_published, qhnetv2
from model.architectures.declaration import Declaration

ARCHITECTURES: Final[Mapping[str, Declaration]] = {
    "deeph_e3": deeph_e3.DECLARATION,
    "qhnet": qhnet.DECLARATION,
    "qhnet_published": qhnet_published.DECLARATION,
    "qhnetv2": qhnetv2.DECLARATION,
}
