"""Connections that one process accepts and hands to its workers, always to the least busy.

Workers that share a listening socket take connections as the kernel wakes them: of 64 to 4 workers
that came to 36 and 1 in one run. Here the parent accepts, knows how many connections each worker
has, and passes each new one (SCM_RIGHTS) to the ready worker with the fewest. A request costs
nothing more: only its connection took another way.

Every worker has a pair of sockets and a slot of a board in memory that all share. In the slot the
worker alone writes two counts: connections it has taken, and those that ended. The parent alone
counts what it handed over, so nobody writes what another one writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import socket
import struct
from collections.abc import Callable

logger = logging.getLogger(__name__)

READY = b"r"
HANDED = b"c"
_COUNT = struct.Struct("=q")
_SLOT_BYTES = 2 * _COUNT.size
UNTAKEN_MAX = 16
"""Connections a worker may leave untaken before others are preferred: it is stuck, or about to."""
TAKEN_A_TURN_MAX = 64


class Board:
    """Two counts a worker, in memory that parent and workers share. Made before the first fork."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, max(1, slots) * _SLOT_BYTES)

    def clear(self, slot: int) -> None:
        """Before a worker is forked for the slot."""
        self.write(slot, 0, 0)

    def write(self, slot: int, taken: int, ended: int) -> None:
        _COUNT.pack_into(self._memory, slot * _SLOT_BYTES, taken)
        _COUNT.pack_into(self._memory, slot * _SLOT_BYTES + _COUNT.size, ended)

    def read(self, slot: int) -> tuple[int, int]:
        """Taken, ended."""
        taken: int = _COUNT.unpack_from(self._memory, slot * _SLOT_BYTES)[0]
        ended: int = _COUNT.unpack_from(self._memory, slot * _SLOT_BYTES + _COUNT.size)[0]
        return taken, ended


class WorkerSeat:
    """The parent's side of one worker."""

    def __init__(self, board: Board, slot: int) -> None:
        self.board = board
        self.slot = slot
        self.ready = False
        self._handed = 0
        self._link: socket.socket | None = None

    def open(self) -> socket.socket:
        """Before the fork: forget the last worker; what is given is the new worker's end."""
        self.close()
        self.board.clear(self.slot)
        self._handed = 0
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(0)
        return theirs

    def close(self) -> None:
        self.ready = False
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def link(self) -> socket.socket | None:
        """Readable when the worker has something to say; None when there is no worker."""
        return self._link

    @property
    def connections(self) -> int:
        """Handed over and not ended."""
        return self._handed - self.board.read(self.slot)[1]

    @property
    def preference(self) -> tuple[bool, int]:
        """The smaller, the better."""
        untaken = self._handed - self.board.read(self.slot)[0]
        return untaken >= UNTAKEN_MAX, self.connections

    def listen(self) -> None:
        """The link is readable: the worker is ready, or takes no more connections."""
        said = b""
        if self._link is not None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                said = self._link.recv(1)
        if said == READY:
            self.ready = True
        else:
            self.close()

    def hand(self, connection: socket.socket) -> bool:
        """Whether the worker was given the connection; the caller keeps its own copy."""
        if self._link is None:
            return False
        try:
            socket.send_fds(self._link, [HANDED], [connection.fileno()])
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        self._handed += 1
        return True


def hand_to_least_busy(seats: list[WorkerSeat], connection: socket.socket) -> bool:
    """Give a connection to the ready worker with the fewest; False when none takes it."""
    for seat in sorted((seat for seat in seats if seat.ready), key=lambda seat: seat.preference):
        if seat.hand(connection):
            return True
    return False


class Inbox:
    """A worker's side: connections come here instead of from a listening socket."""

    def __init__(
        self, link: socket.socket, board: Board, slot: int, address: tuple[str, int]
    ) -> None:
        self.address = address
        """That callers use."""
        self._link = link
        self._board = board
        self._slot = slot
        self._taken = 0
        self._ended = 0
        self._serve: Callable[[socket.socket], None] | None = None

    def open(self, serve: Callable[[socket.socket], None]) -> None:
        """From now on call `serve` with each connection, in this loop. Says that we are ready."""
        self._serve = serve
        self._link.settimeout(0)
        asyncio.get_running_loop().add_reader(self.fileno(), self._take)
        self._link.send(READY)

    def fileno(self) -> int:
        """Of the link that connections come by."""
        return self._link.fileno()

    def end(self) -> None:
        """One of the connections ended."""
        self._ended += 1
        self._board.write(self._slot, self._taken, self._ended)

    def close(self) -> None:
        """Take what was handed over so far, and no more."""
        if self._serve is None:
            return
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        with contextlib.suppress(OSError):
            # What is queued stays readable, and from here on the parent's sends fail.
            self._link.shutdown(socket.SHUT_RD)
        while self._take_one():
            pass
        self._link.close()
        self._serve = None

    def _take(self) -> None:
        for _ in range(TAKEN_A_TURN_MAX):
            if not self._take_one():
                return

    def _take_one(self) -> bool:
        try:
            said, descriptors, _, _ = socket.recv_fds(self._link, 1, 1)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            said, descriptors = b"", []
        if not said:
            # The parent is gone; what tells us to stop is its lifeline.
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            return False
        self._taken += len(descriptors)
        self._board.write(self._slot, self._taken, self._ended)
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.settimeout(0)
            if self._serve is not None:
                self._serve(connection)
        return True
