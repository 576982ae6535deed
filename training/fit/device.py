"""What a run computes on: the device, its number format, and the memory allocator."""

from __future__ import annotations

import ctypes

import torch

from training.tables import ConfigError

GLIBC_M_TRIM_THRESHOLD, GLIBC_M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """The device of a run, with float32 products that are float32.

    TF32 keeps ten bits of a factor: an error of some 50 µEh in H, of the order of a trained network's own.

    Args:
        name: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: no such device here.
    """
    torch.set_float32_matmul_precision("highest")  # sets torch.backends.cuda.matmul.allow_tf32 to False too
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f'[run] device is {name!r}; allowed are "auto", "cpu", "cuda" and "cuda:N".')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"[run] device is {name!r}, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            'set device = "cpu" or "auto", or install a CUDA build of PyTorch.'
        )
    return device


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed blocks instead of giving them back: a step's page faults cost a fifth of its time."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(GLIBC_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(GLIBC_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # not glibc: nothing to tune
        return
