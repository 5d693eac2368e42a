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
from headrace.sync.offline.ranges import counting, is_inside, widest_first

MERGED_FILES = 32
"""So many small files of one partition become one: each poll of downsync makes a file."""

MERGED_BYTES = 8 << 20
"""A file of this size is left alone, which bounds how often a row is written again."""

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

    def stored(self, group: Group) -> list[tuple[Path, int | None]]:
        """Every file that holds rows of the group, in a stable order; where ranges overlap, with
        the command offset from which on its rows count.

        A file whose range lies within another's counts for nothing: it was merged, should the
        process that merged have died before it removed it, or comes from a worker that was late.
        """
        paths = sorted((self._root / table_name(group.name)).glob("*/*.parquet"))
        ranges = {path: held for path in paths if (held := _range(path))}
        others = [(path, None) for path in paths if path not in ranges]
        return [*others, *counting(ranges.items())]

    def transformed(self, group: Group, run_id: str) -> Path:
        return self._root / table_name(group.name) / "transform" / f"{run_id}.parquet"

    def sent(self, group: Group) -> Path:
        return self._memory(group) / "sent.parquet"

    def pinned(self, group: Group, run_id: str) -> Path:
        return self._memory(group) / f"run-{run_id}.parquet"

    def ranged(self, group: Group, token: LogRange) -> Path:
        name = f"{token.topic}-{token.partition}-{token.first_offset}-{token.next_offset}.parquet"
        return self._root / table_name(group.name) / "downsync" / name

    def replaced(self, group: Group, token: LogRange) -> list[Path]:
        """Files of ranges wholly inside `token`, its own file excepted."""
        return [path for path, held in self._of_partition(group, token) if is_inside(held, token)]

    def mergeable(self, group: Group, token: LogRange) -> list[tuple[Path, LogRange]]:
        """The small files that end where `token` begins, oldest first, once there are many.

        Whoever appends `token` has noted everything before it, so no redo replaces these any more.
        """
        run: list[tuple[Path, LogRange]] = []
        for path, held in self._of_partition(group, token):
            if held.next_offset > token.first_offset:
                continue
            if path.stat().st_size > MERGED_BYTES:
                run = []
            else:
                run.append((path, held))
        return run if len(run) >= MERGED_FILES else []

    def _of_partition(self, group: Group, token: LogRange) -> list[tuple[Path, LogRange]]:
        folder = self.ranged(group, token).parent
        found = [(path, held) for path in folder.glob("*.parquet") if (held := _range(path))]
        place = (token.topic, token.partition)
        same = [(path, held) for path, held in found if (held.topic, held.partition) == place]
        return sorted(same, key=lambda item: widest_first(item[1]))

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


def _range(path: Path) -> LogRange | None:
    match = _RANGE_NAME.fullmatch(path.name)
    return match and LogRange(match[1], int(match[2]), int(match[3]), int(match[4]))
