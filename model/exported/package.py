"""Which package belongs to a model: its name is made of everything that it was compiled from."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import torch

from model.errors import ModelError
from model.exported.runner import ExportedForward
from model.hamiltonian_model import HamiltonianModel
from model.nn import kernel_files

logger = logging.getLogger(__name__)

SOURCES: Final = Path(__file__).resolve().parents[1]


def file_name(model: HamiltonianModel, level: str) -> str:
    """Name of the package of a model: weights and tables, architecture, the program's own code, torch, processor.

    Args:
        model: the model.
        level: of the processor, a key of ``kernel_files.LEVELS``.
    """
    return f"forward-{_digest_of(model)}-torch{torch.__version__}-{level}.so"


def _digest_of(model: HamiltonianModel) -> str:
    digest = hashlib.sha256(_digest_of_code().encode())
    digest.update(json.dumps(model.network.config.to_mapping(), sort_keys=True).encode())
    for part in (model.network, model.standardisation):
        for name, value in (*part.named_parameters(), *part.named_buffers()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:24]


def find(model: HamiltonianModel, folder: Path) -> ExportedForward | None:
    """The package of a model, loaded; None, and where that is no matter of course a line in the log, if there is none.

    Args:
        model: as loaded; of float64 networks, and of those on a GPU, there is none.
        folder: of packages; it need not be there.
    """
    parameter = next(model.network.parameters())
    if parameter.device.type != "cpu" or parameter.dtype != torch.float32 or not folder.is_dir():
        return None
    paths = [folder.resolve() / file_name(model, level) for level in kernel_files.levels()]
    path = next((one for one in paths if one.is_file()), None)
    if path is None:
        logger.info("%s has no package of this network, torch, program and processor: it runs as it is", folder)
        return None
    open_to_all = [one for one in (path, path.parent) if one.stat().st_mode & stat.S_IWOTH]
    if open_to_all:
        logger.warning("%s can be written to by everybody, so %s is not loaded", open_to_all[0], path.name)
        return None
    try:
        return ExportedForward(path, reads_edges=model.network.config.edge_cutoff_angstrom > 0)
    except (OSError, RuntimeError) as error:
        logger.warning("%s cannot be loaded, the network runs as it is: %s", path.name, error)
        return None


def or_without(model: HamiltonianModel, check: Callable[[], None]) -> None:
    """Do a check; if it fails with a package, again without it, and the network itself runs from then on.

    Raises:
        ModelError: it fails without a package.
    """
    try:
        check()
    except ModelError as error:
        if model.exported is None:
            raise
        logger.warning("the package is left, the network itself runs: %s", error)
        model.exported = None
        check()


@cache
def _digest_of_code() -> str:
    """Of the sources of ``model``: weights alone do not say what is computed from them."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\n".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
