"""Files of the embedded offline store: names, durable appearance, locks.

```
<root>/<group>/transform/<run id>.parquet                             rows of one transform run
<root>/<group>/downsync/<topic>-<partition>-<first>-<next>.parquet    rows of a range of commands
<root>/_sync/<group>/sent.parquet, run-<run id>.parquet, lock         what upsync remembers
```
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from headrace.registry.catalog import Group
from headrace.registry.physical import table_name
from headrace.sync.errors import RunConflict
from headrace.sync.offline.ports import LogRange

_RANGE_NAME = re.compile(r"([\w.]+)-(\d+)-(\d+)-(\d+)\.parquet")


class OfflineFiles:
    """Where the files of each group lie."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, int] = {}

    @property
    def spill(self) -> Path:
        """Where DuckDB puts what does not fit into memory."""
        return self._root / "_sync" / "spill"

    def stored(self, group: Group) -> list[Path]:
        """Every file that holds rows of the group, in a stable order."""
        return sorted((self._root / table_name(group.name)).glob("*/*.parquet"))

    def transformed(self, group: Group, run_id: str) -> Path:
        return self._root / table_name(group.name) / "transform" / f"{run_id}.parquet"

    def sent(self, group: Group) -> Path:
        return self._memory(group) / "sent.parquet"

    def pinned(self, group: Group, run_id: str) -> Path:
        return self._memory(group) / f"run-{run_id}.parquet"

    def ranged(self, group: Group, token: LogRange) -> Path:
        name = f"{token.topic}-{token.partition}-{token.first_offset}-{token.next_offset}.parquet"
        return self._root / table_name(group.name) / "downsync" / name

    def overlapping(self, group: Group, token: LogRange) -> list[Path]:
        """Files of ranges that share an offset with `token`, its own file excepted."""
        own = self.ranged(group, token)
        return [
            path
            for path in own.parent.glob("*.parquet")
            if path != own and _overlaps(path.name, token)
        ]

    def lock(self, group: Group) -> None:
        """Take the group's run lock; the system frees it when the process dies, however it dies."""
        if group.name in self._locks:
            return
        folder = self._memory(group)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunConflict(
                f"another upsync of `{group.name}` is under way on `{self._root}`; "
                "wait until it ends or stop it"
            ) from None
        self._locks[group.name] = descriptor

    def unlock(self, group: Group) -> None:
        descriptor = self._locks.pop(group.name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Give up every lock of this process."""
        while self._locks:
            os.close(self._locks.popitem()[1])

    def _memory(self, group: Group) -> Path:
        return self._root / "_sync" / table_name(group.name)


@contextmanager
def appearing(path: Path) -> Generator[Path, None, None]:
    """Give a temporary name to write to; flush it and rename it to `path` when the block ends well.

    Whoever lists the folder sees the whole file or none (semantics 28).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.rename(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _overlaps(name: str, token: LogRange) -> bool:
    match = _RANGE_NAME.fullmatch(name)
    if match is None or (match[1], int(match[2])) != (token.topic, token.partition):
        return False
    return int(match[3]) < token.next_offset and token.first_offset < int(match[4])
