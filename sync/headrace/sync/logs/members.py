"""Consumer-group membership on the SQLite log: who is alive, who reads which partition.

A member is alive while it renews its session *and* its lock file is locked. The kernel drops that
lock when a process dies, so after `kill -9` its partitions go to the next member that heartbeats,
within a second; the session covers a process that lives but is frozen.
"""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path
from typing import IO

import msgspec

from headrace.sync.logs.partitions import share_of


class Membership(msgspec.Struct, frozen=True):
    """One member of one group on one topic."""

    group: str
    topic: str
    member: str


class Claims(msgspec.Struct, frozen=True):
    """What a member holds after a heartbeat: committed next offsets by partition id.

    `settled` is False while partitions of its share are still held by another member.
    """

    committed: dict[int, int]
    settled: bool


class MemberLock:
    """The lock file of one living member."""

    def __init__(self, folder: Path, member: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / member
        self._file: IO[bytes] = self._path.open("wb")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


def renew(
    connection: sqlite3.Connection, me: Membership, *, folder: Path, now_ms: int, session_ms: int
) -> Claims:
    """Stay a member, let the dead go, give up what is not my share and claim what is free of it."""
    connection.execute(
        "INSERT INTO member (consumer_group, topic, member, expires_at_ms) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET expires_at_ms = excluded.expires_at_ms",
        (me.group, me.topic, me.member, now_ms + session_ms),
    )
    living = _bury_the_dead(connection, me, folder=folder, now_ms=now_ms)
    numbers = _partition_numbers(connection, me.topic)
    share = share_of(me.member, living, numbers.values())
    held: dict[int, int] = {}
    settled = True
    for partition_id, number in numbers.items():
        owner, next_offset = _position(connection, me.group, partition_id)
        if number in share and owner in (None, me.member):
            _own(connection, me.group, partition_id, me.member)
            held[partition_id] = next_offset
        elif number in share:
            settled = False
        elif owner == me.member:
            _own(connection, me.group, partition_id, None)
    return Claims(held, settled)


def leave(connection: sqlite3.Connection, me: Membership) -> None:
    """Give up every partition and the membership."""
    _remove(connection, me, me.member)


def _bury_the_dead(
    connection: sqlite3.Connection, me: Membership, *, folder: Path, now_ms: int
) -> list[str]:
    rows = connection.execute(
        "SELECT member, expires_at_ms FROM member WHERE consumer_group = ? AND topic = ?",
        (me.group, me.topic),
    ).fetchall()
    living: list[str] = []
    for member, expires_at_ms in rows:
        if member == me.member or (expires_at_ms > now_ms and _is_locked(folder / member)):
            living.append(member)
        else:
            _remove(connection, me, member)
    return living


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    path.unlink(missing_ok=True)
    return False


def _remove(connection: sqlite3.Connection, me: Membership, member: str) -> None:
    connection.execute(
        "UPDATE position SET member = NULL WHERE consumer_group = ? AND member = ? "
        "AND partition_id IN (SELECT id FROM partition WHERE topic = ?)",
        (me.group, member, me.topic),
    )
    connection.execute(
        "DELETE FROM member WHERE consumer_group = ? AND topic = ? AND member = ?",
        (me.group, me.topic, member),
    )


def _partition_numbers(connection: sqlite3.Connection, topic: str) -> dict[int, int]:
    rows = connection.execute(
        "SELECT id, number FROM partition WHERE topic = ? ORDER BY number", (topic,)
    )
    return dict(rows.fetchall())


def _position(
    connection: sqlite3.Connection, group: str, partition_id: int
) -> tuple[str | None, int]:
    """Owner and committed next offset; a group's first member makes its positions, at 0."""
    connection.execute(
        "INSERT OR IGNORE INTO position (consumer_group, partition_id) VALUES (?, ?)",
        (group, partition_id),
    )
    row: tuple[str | None, int] = connection.execute(
        "SELECT member, next_offset FROM position WHERE consumer_group = ? AND partition_id = ?",
        (group, partition_id),
    ).fetchone()
    return row


def _own(connection: sqlite3.Connection, group: str, partition_id: int, member: str | None) -> None:
    connection.execute(
        "UPDATE position SET member = ? WHERE consumer_group = ? AND partition_id = ?",
        (member, group, partition_id),
    )
