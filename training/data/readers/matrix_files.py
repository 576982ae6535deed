"""Formats ``deeph``, ``deeph-legacy``, ``abacus``, ``siesta`` and ``crystal-h5``: one source for all of ``model.formats``.

A data set is a folder of folders (or runs), one structure each, or one HDF5 file of many. Frames keep the file's own order of
orbitals (their space says which), in hartree and Å.

No such file states its functional. ``level.json`` in the data set's folder (beside an HDF5 file: ``NAME.level.json``) does:
``{"xc": "pbe", "basis": "dzp", "potentials": "gth-pbe", "program": "CP2K", "program_version": "2023.1"}``, all but ``xc`` and
``basis`` optional. Without it both are ``unknown``.

Split schemes: ``file`` where the file assigns splits, ``random`` (60 / 20 / 20 of a seeded permutation) for all, and
``random-231-113-113``: so many of the same permutation for train, val and test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.errors import FormatError, StructureError
from model.formats.matrices import Matrices, Outline
from model.formats.registry import Entry, entries
from model.formats.text import read_json
from model.level import UNKNOWN, Level
from model.orbitals.space import OrbitalSpace
from training.data.frame import DatasetError, Frame, FrameSource

SEED: Final = 42
SHARES: Final = {"train": 0.6, "val": 0.2}
"""The rest is the test; TraceGrad's crystals are split so (monolayers: 270 / 90 / 90)."""
SPLITS: Final = ("train", "val", "test")
SIZES: Final = re.compile(r"random-(\d+)-(\d+)-(\d+)")
LEVEL_FILE: Final = "level.json"


class MatrixFiles(FrameSource):
    """A data set of H(R) and S(R).

    Args:
        path: one structure, a folder of them, or an HDF5 file of many.
        format: key of ``model.formats.registry.FORMATS`` that all of them must have; None for what is recognised.

    Raises:
        DatasetError: nothing that can be read, structures of several formats, or one without a Hamiltonian.
    """

    def __init__(self, path: Path, format: str | None = None) -> None:
        self.path = path
        self.format = format
        try:
            self._entries = entries(path)
            self._outlines = [entry.outline() for entry in self._entries]
        except (FormatError, StructureError) as error:
            raise DatasetError(str(error)) from error
        self._refuse_mixtures()
        self.schemes = ("file", "random") if any(entry.split for entry in self._entries) else ("random",)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "format": self.format}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def level(self) -> Level:  # type: ignore[override]
        """Level of theory, as ``level.json`` states it.

        Raises:
            DatasetError: a file that is not of that form.
        """
        beside = self.path / LEVEL_FILE if self.path.is_dir() else self.path.with_suffix(f".{LEVEL_FILE}")
        spin = self._outlines[0].spin
        if not beside.is_file():
            return Level(UNKNOWN, UNKNOWN, spin, program=self._entries[0].format)
        try:
            stated = read_json(beside)
        except FormatError as error:
            raise DatasetError(str(error)) from error
        allowed = ("xc", "basis", "potentials", "program", "program_version")
        unknown = sorted(set(stated) - set(allowed))
        if unknown or not {"xc", "basis"} <= set(stated) or not all(isinstance(v, str) for v in stated.values()):
            raise DatasetError(
                f"{beside} must state xc and basis as text, and may state {', '.join(allowed[2:])}"
                f"{'; it has ' + ', '.join(unknown) if unknown else ''}."
            )
        return Level(spin=spin, **stated)

    @cached_property
    def space(self) -> OrbitalSpace:
        """Orbitals of all elements of the data set."""
        shells: dict[int, tuple[int, ...]] = {}
        for outline in self._outlines:
            shells |= {z: outline.space.shells_of(z) for z in set(outline.numbers.tolist())}
        return replace(self._outlines[0].space, shells=shells)

    def __len__(self) -> int:
        return len(self._entries)

    def splits(self, scheme: str) -> Mapping[str, NDArray[np.int64]]:
        sizes = SIZES.fullmatch(scheme)
        if sizes:
            return self._of_sizes([int(size) for size in sizes.groups()])
        self.check_scheme(scheme)
        if scheme == "file":
            names = np.array([entry.split for entry in self._entries])
            return {str(name): np.flatnonzero(names == name) for name in sorted(set(names.tolist()))}
        train, val = (round(share * len(self)) for share in SHARES.values())
        return self._of_sizes([train, val, len(self) - train - val])

    def _of_sizes(self, sizes: Sequence[int]) -> Mapping[str, NDArray[np.int64]]:
        """The first structures of a seeded permutation, in their order."""
        if sum(sizes) > len(self) or min(sizes) < 0:
            raise DatasetError(
                f"{self.path} has {len(self)} structures, too few for {' + '.join(map(str, sizes))}; complete the set, or "
                f"split it by another scheme ({', '.join(self.schemes)}, or random-TRAIN-VAL-TEST)."
            )
        order = np.random.RandomState(SEED).permutation(len(self)).astype(np.int64)
        return dict(zip(SPLITS, np.split(order[: sum(sizes)], np.cumsum(sizes)[:2]), strict=True))

    def molecules(self) -> NDArray[np.int64]:
        return np.arange(len(self), dtype=np.int64)

    def atom_counts(self) -> NDArray[np.int64]:
        return np.array([len(outline.numbers) for outline in self._outlines], dtype=np.int64)

    def charge_states(self, indices: NDArray[np.int64] | None = None) -> frozenset[tuple[int, int]]:
        """Neutral; no such file states a charge, and an odd number of electrons makes a doublet."""
        chosen = self._outlines if indices is None else [self._outlines[int(index)] for index in indices]
        return frozenset((0, 1 + int(outline.numbers.sum()) % 2) for outline in chosen)

    def frame(self, index: int, split: str) -> Frame:
        entry = self._entries[int(index)]
        try:
            matrices = entry.read()
            hamiltonian = self._in_space(matrices.require_hamiltonian(), matrices)
        except (FormatError, StructureError) as error:
            raise DatasetError(f"{self.path}, {entry.name}: {error}") from error
        return Frame(
            molecule=entry.name,
            index=0,
            structure=matrices.structure,
            hamiltonian=hamiltonian,
            overlap=None if matrices.overlap is None else self._in_space(matrices.overlap, matrices),
            fermi_energy_hartree=matrices.fermi_energy_hartree,
            split=split,
        )

    def close(self) -> None:
        """Nothing stays open."""

    def _in_space(self, blocks: BlockSet, matrices: Matrices) -> BlockSet:
        """The same blocks in the data set's space."""
        if matrices.spin != self._outlines[0].spin:
            raise DatasetError(f"{self.path}: {matrices.spin} and {self._outlines[0].spin} structures in one data set.")
        return replace(blocks, space=self.space)

    def _refuse_mixtures(self) -> None:
        """Raise unless all structures are of one format, one spin treatment and one basis, with a Hamiltonian each."""
        first, head = self._entries[0], self._outlines[0]
        shells: dict[int, tuple[tuple[int, ...], Entry]] = {}
        for entry, outline in zip(self._entries, self._outlines, strict=True):
            if entry.format != (self.format or first.format):
                wanted = f"the format {self.format!r}" if self.format else f"like {first.name} ({first.format})"
                raise DatasetError(f"{entry.path} is of the format {entry.format!r}, not {wanted}.")
            if not outline.has_hamiltonian:
                raise DatasetError(
                    f"{entry.path} has overlaps only, no Hamiltonian: pairs to predict on, nothing to learn from."
                )
            if outline.spin != head.spin:
                raise DatasetError(f"{entry.path} is {outline.spin}, {first.name} is {head.spin}; split them.")
            self._note_shells(shells, entry, outline)

    def _note_shells(self, shells: dict[int, tuple[tuple[int, ...], Entry]], entry: Entry, outline: Outline) -> None:
        for number in sorted(set(outline.numbers.tolist())):
            own = outline.space.shells_of(number)
            known, where = shells.setdefault(number, (own, entry))
            if known != own:
                raise DatasetError(
                    f"{entry.path} gives element {number} the shells {own}, {where.name} {known}; one basis a data set."
                )
