"""Lane answers of one connection that are due: in request order, some of them here already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Due:
    """One answer that is due. Calling it delivers the response, maybe after its caller left."""

    __slots__ = ("_ready", "keep_alive", "response", "weight")

    def __init__(self, weight: int, ready: Callable[[], None], *, keep_alive: bool) -> None:
        self.response: bytes | None = None
        self.keep_alive = keep_alive
        self.weight = weight
        """Bytes of the request that are held until the answer is written."""
        self._ready = ready

    def __call__(self, response: bytes) -> None:
        self.response = response
        self._ready()


class DueAnswers:
    """The queue of one connection."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[Due] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, due: Due) -> None:
        """Queue an answer behind those of earlier requests."""
        self._queue.append(due)

    def withdraw(self, due: Due) -> None:
        """Take back an answer that will not come from the lane after all."""
        self._queue.remove(due)

    def next_ready(self) -> Due | None:
        """Take the oldest answer if it is here; None while it is not, or when nothing is due."""
        if self._queue and self._queue[0].response is not None:
            return self._queue.popleft()
        return None

    def clear(self) -> int:
        """Drop all of them; the bytes that they held."""
        held = sum(due.weight for due in self._queue)
        self._queue.clear()
        return held
