"""Files of a data set: a shard per molecule while it is made, one HDF5 file and a table when it is done.

A shard is a complete HDF5 file with one group, or a small JSON file with the reason of a failure. Every file is written
beside its place and then renamed, so a process may be killed at any moment and no half file is ever read.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from training.atomic import replaced, write_text
from training.data.sources import DatasetError
from training.generate.geometry import Geometry
from training.generate.label.molecule import Label
from training.generate.plan import Failure, Molecule
from training.generate.shard_folder import ShardFolder

DATA_FILE, TABLE_FILE, FAILURES_FILE = "focks.h5", "molecules.csv", "failures.jsonl"
GROUP: Final = "molecule"
DROPPED: Final = "dropped"
COLUMNS: Final = ("id", "smiles", "formula", "split", "pool", "heavy", "atoms", "ao", "frames")


@dataclass(frozen=True)
class LabelledFrame:
    """A geometry with its label."""

    geometry: Geometry
    label: Label


class ShardStore(ShardFolder):
    """The shards of a data set of molecules."""

    def _marker(self, key: str) -> Path:
        return self.folder / f"{key}.started"

    def start(self, key: str) -> None:
        """Note that a worker has taken a molecule: if it dies, this one is suspect."""
        self._marker(key).touch()

    def started(self, key: str) -> bool:
        """Whether a worker took a molecule and did not come back with it."""
        return self._marker(key).is_file() and not self.is_done(key)

    def forget_starts(self, molecules: Iterable[Molecule]) -> None:
        """Remove the notes of an earlier, interrupted call on these; others may be under way in another process."""
        for molecule in molecules:
            self._marker(molecule.key).unlink(missing_ok=True)

    def write(self, molecule: Molecule, frames: Sequence[LabelledFrame], dropped: Sequence[Failure]) -> None:
        """Write a molecule's shard."""
        n_ao = len(frames[0].label.fock)
        rows, columns = np.tril_indices(n_ao)
        with replaced(self.shard(molecule.key)) as partial, h5py.File(partial, "w") as file:
            group = file.create_group(GROUP)
            group.attrs["smiles"] = molecule.smiles
            group.attrs["formula"] = molecule.formula
            group.attrs[DROPPED] = json.dumps([dataclasses.asdict(failure) for failure in dropped])
            group["atomic_numbers"] = molecule.numbers.astype(np.int16)
            group["positions"] = np.stack([frame.geometry.positions for frame in frames])
            packed = np.stack([frame.label.fock[rows, columns] for frame in frames]).astype(np.float32)
            group.create_dataset("fock_tril", data=packed, compression="gzip", shuffle=True)
            group["energy"] = np.array([frame.label.energy for frame in frames])
            group["cycles_minao"] = np.array([frame.label.cycles_minao for frame in frames], dtype=np.int64)
            group["gap"] = np.array([frame.label.gap for frame in frames])
            group["grad"] = np.array([frame.label.gradient for frame in frames])
            group["T"] = np.array([frame.geometry.temperature for frame in frames])
            group["kind"] = np.array([frame.geometry.kind.encode() for frame in frames], dtype="S7")
        self._marker(molecule.key).unlink(missing_ok=True)

    def fail(self, failures: Sequence[Failure], key: str) -> None:
        """Note why a molecule has no labels."""
        text = json.dumps([dataclasses.asdict(failure) for failure in failures])
        write_text(self.reason(key), text)
        self._marker(key).unlink(missing_ok=True)

    def failures(self, molecules: Sequence[Molecule]) -> list[Failure]:
        """Failed molecules and dropped frames of a plan."""
        found: list[dict[str, Any]] = []
        for molecule in molecules:
            if self.shard(molecule.key).is_file():
                with h5py.File(self.shard(molecule.key)) as file:
                    found += json.loads(file[GROUP].attrs[DROPPED])
            elif self.reason(molecule.key).is_file():
                found += json.loads(self.reason(molecule.key).read_text(encoding="utf-8"))
        return [Failure(**values) for values in found]

    def labelled(self, molecules: Sequence[Molecule]) -> list[Molecule]:
        """Those that have a shard."""
        return [molecule for molecule in molecules if self.shard(molecule.key).is_file()]

    def merge(self, output: Path, molecules: Sequence[Molecule], pool: str, attributes: dict[str, Any]) -> int:
        """Write the data set: ``focks.h5`` and ``molecules.csv``.

        Returns:
            number of frames.

        Raises:
            DatasetError: there is no shard at all; nothing is written.
        """
        labelled = self.labelled(molecules)
        if not labelled:
            raise DatasetError(f"No molecule could be labelled; {output / FAILURES_FILE} says why.")
        width = max(3, len(str(len(labelled) - 1)))
        rows: list[tuple[Any, ...]] = []
        with replaced(output / DATA_FILE) as partial, h5py.File(partial, "w") as file:
            file.attrs.update(attributes)
            for number, molecule in enumerate(labelled):
                name = f"m{number:0{width}d}"
                with h5py.File(self.shard(molecule.key)) as shard:
                    shard.copy(GROUP, file, name)
                group = file[name]
                del group.attrs[DROPPED]
                # split and pool are the plan's, not the shard's: another division needs no new label
                group.attrs["split"] = molecule.split
                group.attrs["pool"] = pool
                group.attrs["charge"], group.attrs["multiplicity"] = molecule.charge, molecule.multiplicity
                n_frames, packed = group["fock_tril"].shape
                n_ao = int((np.sqrt(8 * packed + 1) - 1) / 2)
                heavy = int((molecule.numbers > 1).sum())
                rows.append(
                    (
                        name,
                        molecule.smiles,
                        molecule.formula,
                        molecule.split,
                        pool,
                        heavy,
                        len(molecule.numbers),
                        n_ao,
                        n_frames,
                    )
                )
        with replaced(output / TABLE_FILE) as table, table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        return sum(row[-1] for row in rows)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """One JSON object a line; rewritten as a whole."""
    write_text(path, "".join(json.dumps(dataclasses.asdict(failure)) + "\n" for failure in failures))
