"""What the caller will run against what the model was made for: the functional (a warning) and the basis (an error)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from service.errors import ServiceError

_SAME_FUNCTIONAL: Final[Mapping[str, str]] = {"b3lypg": "b3lyp"}
"""Spellings of one functional in today's PySCF (2.3 and later), where b3lyp is the VWN-RPA flavour."""


def xc_warnings(asked: str | None, model_xc: str) -> list[str]:
    """A warning if the caller's functional is not the model's."""
    if asked is None or _functional(asked) == _functional(model_xc):
        return []
    return [
        f"xc mismatch: the model was trained on {model_xc}, and another functional was asked for. "
        "The guess stays valid, but will save fewer SCF cycles."
    ]


def check_basis(asked: str | None, model_basis: str) -> None:
    """Refuse another basis: matrices of two bases do not fit together.

    Raises:
        ServiceError: ``unsupported_basis``.
    """
    if asked is not None and _basis(asked) != _basis(model_basis):
        raise ServiceError(
            "unsupported_basis",
            "The guess is in the basis of the model, and another basis was asked for.",
            field="basis",
            allowed=[model_basis],
            hint="Run the SCF in this basis, or use a model that was trained for yours.",
        )


def _functional(name: str) -> str:
    key = "".join(name.lower().split())
    return _SAME_FUNCTIONAL.get(key, key)


def _basis(name: str) -> str:
    """PySCF's own reading of basis names: case, dashes, underscores and blanks do not count."""
    return "".join(name.lower().replace("-", "").replace("_", "").split())
