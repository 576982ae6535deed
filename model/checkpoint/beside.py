"""Files that may lie beside a checkpoint's weights and say more of them: JSON, checked, and of these weights alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.checkpoint.limits import check_size
from model.errors import CheckpointError

MAX_BYTES: Final = 8 * 2**20


class OfWeights(BaseModel):
    """What such a file holds, and of which weights.

    Attributes:
        weights_sha256: of the weights that it was fitted to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


Kind = TypeVar("Kind", bound=OfWeights)


def read_beside(path: Path, kind: type[Kind], weights_sha256: str, *, relation: str, again: str) -> Kind | None:
    """A file beside a checkpoint's weights; None if there is none.

    Args:
        path: of the file, in the checkpoint's folder.
        kind: what it holds.
        weights_sha256: of the weights.
        relation: in words, what it has to do with weights: "was fitted to the errors of".
        again: in words, how another one is made.

    Raises:
        CheckpointError: a file that cannot be read, or is of other weights.
    """
    if not path.is_file():
        return None
    name = f"{path.parent.name}/{path.name}"
    check_size(path, MAX_BYTES)
    try:
        found = kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        raise CheckpointError(
            f"{name} cannot be read: {str(error)[:200]}.", hint="Copy it again, or leave it out."
        ) from error
    if found.weights_sha256 != weights_sha256:
        raise CheckpointError(
            f"{name} {relation} weights {found.weights_sha256[:16]}..., not of these.",
            hint=f"Fit it again ({again}), or leave it out.",
        )
    return found
