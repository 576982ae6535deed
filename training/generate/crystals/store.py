"""Files of a crystal data set: a shard per structure while it is made, one HDF5 file when it is done.

Every file is written beside its place and renamed; a process may be killed at any moment and no half file is ever read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py

from training.atomic import replaced, write_text
from training.generate.crystals.crystal_file import write_label
from training.generate.crystals.label import CrystalLabel
from training.generate.crystals.plan import Crystal
from training.generate.shard_folder import ShardFolder

DATA_FILE: Final = "crystals.h5"
LEVEL_FILE: Final = "crystals.level.json"
"""Beside the data; the reader of ``training.data`` finds the level of theory there."""
FAILURES_FILE: Final = "failures.jsonl"
GROUP: Final = "crystal"


@dataclass(frozen=True)
class CrystalFailure:
    """A structure that is not in the data set, and why."""

    name: str
    key: str
    reason: str


class CrystalStore(ShardFolder):
    """The shards of a crystal data set."""

    def write(self, crystal: Crystal, label: CrystalLabel, attributes: dict[str, Any]) -> None:
        """Write a structure's shard."""
        with replaced(self.shard(crystal.key)) as partial, h5py.File(partial, "w") as file:
            write_label(file.create_group(GROUP), label, attributes)

    def fail(self, crystal: Crystal, reason: str) -> None:
        """Note why a structure has no label."""
        write_text(self.reason(crystal.key), json.dumps({"reason": reason}))

    def failures(self, crystals: Sequence[Crystal]) -> list[CrystalFailure]:
        """Failed structures of a plan."""
        return [
            CrystalFailure(crystal.name, crystal.key, json.loads(path.read_text(encoding="utf-8"))["reason"])
            for crystal in crystals
            if (path := self.reason(crystal.key)).is_file() and not self.shard(crystal.key).is_file()
        ]

    def merge(self, target: Path, crystals: Sequence[Crystal], attributes: dict[str, Any]) -> int:
        """Write the data file with all labels that there are.

        Returns:
            number of structures; nothing is written if there are none.
        """
        labelled = [crystal for crystal in crystals if self.shard(crystal.key).is_file()]
        if not labelled:
            return 0
        with replaced(target) as partial, h5py.File(partial, "w") as file:
            file.attrs.update(attributes)
            for crystal in labelled:
                with h5py.File(self.shard(crystal.key)) as shard:
                    shard.copy(GROUP, file, crystal.name)
                # the split is the plan's, not the shard's: another division needs no new label
                file[crystal.name].attrs["split"] = crystal.split
        return len(labelled)

    def program_of(self, crystals: Sequence[Crystal]) -> dict[str, str]:
        """Version of the program that made the first label, as ``program_version``."""
        for crystal in crystals:
            if self.shard(crystal.key).is_file():
                with h5py.File(self.shard(crystal.key)) as file:
                    return {"program_version": str(file[GROUP].attrs["code"]).rpartition(" ")[2]}
        return {}
