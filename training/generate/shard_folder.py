"""A folder of shards: one file for each structure that is labelled, or one that says why it is not."""

from __future__ import annotations

from pathlib import Path


class ShardFolder:
    """Where shards are; what is in them is its subclasses'.

    Args:
        folder: made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def shard(self, key: str) -> Path:
        """Where a structure's labels are."""
        return self.folder / f"{key}.h5"

    def reason(self, key: str) -> Path:
        """Where it stands why there are none."""
        return self.folder / f"{key}.failed.json"

    def is_done(self, key: str) -> bool:
        """Whether a structure has been labelled, or has failed."""
        return self.shard(key).is_file() or self.reason(key).is_file()
