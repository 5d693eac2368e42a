"""What is measured: kinds of request, and at how many rounds and loads."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from headrace.loadtest.feature_data import FIRST_ABSENT, HISTORY, OBJECT, WIDE, WIDE_FIELDS
from headrace.loadtest.peers.adapters import Ask
from headrace.loadtest.peers.rows import Size
from headrace.loadtest.peers.table import OUR_SERVER, Peer

ABSENT_POOL = 2_000
"""Keys without a row that one cell asks for in one round: others in each, so that ours has to learn
of them anew and they do not expire while they are measured."""
OPEN_ASKS = 200
BIG_VALUES = 20_000
"""Values in an answer above which a slow peer is measured once."""
ENDLESS_VALUES = 100_000
"""And above which it is not measured: one answer takes it seconds."""
BIG_ANSWER_VALUES = 2_000
BIG_ANSWER_CONNECTIONS = 8
SLOW_LONGER = 2
SLOW_CONNECTIONS = 4
OPEN_LONGER = 2
OPEN_SLOW_LONGER = 6
"""Slower than ours, peers are asked for longer: a percentile needs requests."""
HALF = 0.5


class Cell(NamedTuple):
    """One kind of request."""

    group: str
    keys: int
    absent_percent: int = 0

    @property
    def name(self) -> str:
        """As the raw file has it."""
        absent = f", {self.absent_percent} % absent" if self.absent_percent else ""
        keys = f"{self.keys} key" if self.keys == 1 else f"{self.keys} keys"
        return f"{self.group.partition('::')[2]}, {keys}{absent}"

    def asks(self, count: int, round_number: int, size: Size) -> Iterator[Ask]:
        """Requests of a round: the same for every peer, others in each round."""
        source = random.Random(f"{self.name} {round_number}")
        absent = self.absent_keys(round_number)
        some_absent = self.absent_percent > 0
        for _ in range(count):
            keys = [
                source.choice(absent)
                if some_absent and source.random() * 100 < self.absent_percent
                else source.randrange(size.of(self.group))
                for _ in range(self.keys)
            ]
            yield Ask(self.group, keys, some_absent)

    def open_asks(self, size: Size) -> list[Ask]:
        """Requests of the open loop, where the answer to each is known before."""
        return list(self.asks(OPEN_ASKS, 1, size))

    def absent_keys(self, round_number: int) -> range:
        """The keys without a row that a round asks for."""
        first = FIRST_ABSENT + (round_number * 101 + self.absent_percent) * ABSENT_POOL
        return range(first, first + ABSENT_POOL)


class Plan(NamedTuple):
    """How much of everything."""

    cells: Sequence[Cell]
    rounds: int
    """Of the main cells; the others get `side_rounds` of a second."""
    side_rounds: int
    seconds: int
    open_keys: Sequence[int]
    """Keys a request of the open-loop part."""
    open_shares: Sequence[float]
    """Rates, as shares of what each server did in a closed loop."""
    open_rounds: int
    """Of ours and its controls at half our rate; the others and the other rates get fewer."""
    open_seconds: float
    """Of one round of theirs; the others get longer ones."""
    connections: int = 64
    open_connections: int = 64
    bodies: int = 500
    size: Size = Size()

    @property
    def open_cells(self) -> list[Cell]:
        """Of the open-loop part."""
        return [Cell(OBJECT, keys) for keys in self.open_keys]

    def rounds_of(self, cell: Cell, peer: Peer) -> int:
        """Fewer where a request takes so long that rounds add nothing but minutes; 0 for never."""
        values = cell.keys * (WIDE_FIELDS if cell.group == WIDE else 20)
        if cell.group == HISTORY and not peer.has_history:
            return 0
        if peer.is_variant and (cell.group == WIDE or cell.absent_percent):
            return 0
        if peer.slow and values > BIG_VALUES:
            return 0 if values > ENDLESS_VALUES else 1
        return self.rounds if cell in MAIN_CELLS else self.side_rounds

    def seconds_of(self, cell: Cell, peer: Peer) -> int:
        """Of one round; a slow peer is driven for longer, as its requests are counted in dozens."""
        return (self.seconds if cell in MAIN_CELLS else 1) * (SLOW_LONGER if peer.slow else 1)

    def connections_of(self, cell: Cell, peer: Peer) -> int:
        """Fewer for a slow peer: what it has begun when a round ends is work that nobody counts.

        And for big answers: of so many at once a server that bounds its queue refuses some.
        """
        if peer.slow:
            return min(self.connections, SLOW_CONNECTIONS)
        big = cell.keys * (WIDE_FIELDS if cell.group == WIDE else 20) > BIG_ANSWER_VALUES
        return min(self.connections, BIG_ANSWER_CONNECTIONS) if big else self.connections

    def open_rounds_of(self, peer: Peer, share: float) -> int:
        """Most of ours at half its rate, which a promise is about, and of its controls there."""
        if peer.server is not None or peer.is_variant:
            return 0
        if peer.paced_as is not None:
            return self.open_rounds if share == HALF else 0
        if peer.name == OUR_SERVER:
            return self.open_rounds if share == HALF else min(3, self.open_rounds)
        return min(2 if share == HALF else 1, self.open_rounds)

    def open_seconds_of(self, peer: Peer) -> float:
        """Of one round, after warming up."""
        if OUR_SERVER in (peer.name, peer.paced_as):
            return self.open_seconds
        return self.open_seconds * (OPEN_SLOW_LONGER if peer.slow else OPEN_LONGER)


MAIN_CELLS = tuple(Cell(OBJECT, keys) for keys in (1, 10, 100))
CELLS = (
    *MAIN_CELLS,
    Cell(OBJECT, 500),
    *(Cell(WIDE, keys) for keys in (1, 10, 100, 500)),
    Cell(HISTORY, 1),
    *(Cell(OBJECT, 100, percent) for percent in (5, 37, 100)),
)
FULL = Plan(
    CELLS,
    rounds=5,
    side_rounds=3,
    seconds=2,
    open_keys=(1, 10, 100),
    open_shares=(0.25, HALF, 0.75),
    open_rounds=9,
    open_seconds=0.75,
)
QUICK = FULL._replace(
    cells=(Cell(OBJECT, 1), Cell(OBJECT, 100), Cell(HISTORY, 1), Cell(OBJECT, 100, 37)),
    rounds=2,
    side_rounds=1,
    seconds=1,
    open_keys=(1, 100),
    open_shares=(HALF,),
    open_rounds=2,
    open_seconds=0.5,
    bodies=100,
    size=Size(objects=2_000, wide=100, histories=200),
)
