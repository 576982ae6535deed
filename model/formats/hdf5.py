"""HDF5 from strangers: only plain arrays inside the file itself are read, and never more than a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from model.errors import DamagedFileError, MissingFileError, ModelError

MAXIMUM_VALUES: Final = 2**30
"""Entries of one array: 8 GB of float64."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read-only. The body of the ``with`` only reads: what h5py raises in it means a damaged file.

    Raises:
        MissingFileError: not there.
        DamagedFileError: not HDF5, or damaged.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is not there.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DamagedFileError(f"{path} is not an HDF5 file.", hint="Copy it again; was it cut off?") from error
    try:
        yield file
    except ModelError:
        raise
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:  # what h5py makes of a damaged structure
        raise DamagedFileError(
            f"{path} is damaged: {str(error)[:200]}", hint="Copy it again; was it cut off?"
        ) from error
    finally:
        file.close()


def read_array(group: Any, name: str, kinds: str, dimensions: int, where: str) -> NDArray[Any]:
    """One array of a file.

    Args:
        group: h5py file or group.
        name: of the dataset.
        kinds: numpy kinds that are allowed, such as ``"iu"``.
        dimensions: number of axes.
        where: the file, for errors.

    Raises:
        DamagedFileError: missing, a link out of the file, too large, or of another kind or rank.
    """
    dataset = plain_dataset(group, name, where)
    if dataset.dtype.kind not in kinds or dataset.ndim != dimensions:
        raise DamagedFileError(
            f"{where}: {name!r} is an array of {dataset.dtype} with {dataset.ndim} axes; expected kind {kinds!r} (numpy) "
            f"with {dimensions}."
        )
    if dataset.size > MAXIMUM_VALUES:
        raise DamagedFileError(f"{where}: {name!r} has {dataset.size} values; at most {MAXIMUM_VALUES} are read.")
    return np.asarray(dataset[()])


def plain_dataset(group: Any, name: str, where: str) -> Any:
    """A dataset whose data lie in this very file.

    Raises:
        DamagedFileError: missing, or it leads to another file.
    """
    link = group.get(name, getlink=True)
    if link is None:
        raise DamagedFileError(f"{where} has no {name!r}; it has {', '.join(list(group)[:12]) or 'nothing'}.")
    if not isinstance(link, h5py.HardLink):
        raise DamagedFileError(f"{where}: {name!r} is a link to another place; only arrays in the file are read.")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise DamagedFileError(f"{where}: {name!r} is not a plain array.")
    return dataset
