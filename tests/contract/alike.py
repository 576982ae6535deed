"""Answers that say the same: their numbers may differ by rounding, since a product of matrices depends on where they lie."""

from __future__ import annotations

import io
import re
import zipfile

import h5py
import numpy as np

NUMBER = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")


def texts_alike(one: bytes, other: bytes, tolerance: float) -> bool:
    """Whether two texts differ in their decimal numbers alone, and in those by no more than so much."""
    texts = [text.decode() for text in (one, other)]
    if NUMBER.sub("#", texts[0]) != NUMBER.sub("#", texts[1]):
        return False
    first, second = (np.array([float(found) for found in NUMBER.findall(text)]) for text in texts)
    return bool(np.abs(first - second).max(initial=0.0) <= tolerance)


def archives_alike(one: bytes, other: bytes, tolerance: float) -> bool:
    """Whether two zips have the same members: HDF5 files of the same arrays, and texts."""
    with zipfile.ZipFile(io.BytesIO(one)) as first, zipfile.ZipFile(io.BytesIO(other)) as second:
        if first.namelist() != second.namelist():
            return False
        pairs = [(name, first.read(name), second.read(name)) for name in first.namelist()]
    return all(
        _arrays_alike(a, b, tolerance) if name.endswith(".h5") else texts_alike(a, b, tolerance) for name, a, b in pairs
    )


def _arrays_alike(one: bytes, other: bytes, tolerance: float) -> bool:
    with h5py.File(io.BytesIO(one)) as first, h5py.File(io.BytesIO(other)) as second:
        if list(first) != list(second):
            return False
        return all(
            first[name].shape == second[name].shape
            and (
                np.abs(first[name][()] - second[name][()]).max(initial=0.0) <= tolerance
                if first[name].dtype.kind in "fc"
                else np.array_equal(first[name][()], second[name][()])
            )
            for name in first
        )
