"""A list of modules that knows their type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

Member = TypeVar("Member", bound=nn.Module)


class Modules(nn.ModuleList, Generic[Member]):
    """``nn.ModuleList`` whose members have one type; by index or in a loop, not by slices."""

    if TYPE_CHECKING:
        from collections.abc import Iterator

        def __getitem__(self, index: int) -> Member: ...  # type: ignore[override]

        def __iter__(self) -> Iterator[Member]: ...
