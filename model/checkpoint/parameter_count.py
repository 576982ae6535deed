"""How many parameters a network may have: not more than are stored, which is known while it is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from model.errors import CheckpointError


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse to go on with a network that has more parameters than were stored, as soon as it is known.

    Args:
        tensors: as stored.

    Raises:
        CheckpointError: from within the ``with``, where a module gets a parameter too many.
    """
    left, thread = sum(value.numel() for value in tensors.values()), get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        if get_ident() == thread and isinstance(parameter, nn.Parameter):
            left -= parameter.numel()
            if left < 0:
                raise CheckpointError(
                    "The weights do not fit the card's architecture: it has more parameters than are stored.",
                    hint="Card and weights are of different runs or versions; release the checkpoint again.",
                )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
