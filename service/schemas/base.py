"""The strict base of all wire types, and the numbers they are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class WireModel(BaseModel):
    """Strict: no coercion, no unknown fields, no NaN and no infinity; frozen once read."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


Vector = tuple[float, float, float]
"""Three Cartesian components."""

Matrix = list[list[float]]
"""Row-major matrix."""

WireInteger = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
"""An integer that fits 32 bits; whether it is an element is for the model to say."""
