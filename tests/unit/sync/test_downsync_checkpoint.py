"""The checkpoint: offset and emissions agree after a crash at any put (semantics 26)."""

from __future__ import annotations

import pytest

from headrace.sync.downsync_checkpoint import DELTAS_MAX, Checkpoint
from headrace.sync.errors import CommitRefused

PLACE = ("realtime", 3)


class State:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, name: str) -> bytes | None:
        return self.values.get(name)

    async def put(self, name: str, value: bytes) -> None:
        self.values[name] = value


async def test_a_partition_never_seen_begins_at_nothing() -> None:
    checkpoint = await Checkpoint.load(State(), PLACE)
    assert (checkpoint.next_offset, checkpoint.last_emitted_ms) == (0, {})


async def test_a_loaded_checkpoint_equals_the_saved_one_at_every_step() -> None:
    state = State()
    checkpoint = await Checkpoint.load(state, PLACE)
    expected: dict[bytes, int] = {}
    for step in range(1, 3 * DELTAS_MAX + 7):
        emitted = {b"key%d" % (step % 40): step}
        expected |= emitted
        await checkpoint.save(step * 10, emitted)
        loaded = await Checkpoint.load(state, PLACE)
        assert (loaded.next_offset, loaded.last_emitted_ms) == (step * 10, expected)


async def test_a_put_holds_only_what_changed() -> None:
    state = State()
    checkpoint = await Checkpoint.load(state, PLACE)
    await checkpoint.save(1, {b"key%d" % number: number for number in range(10_000)})
    await checkpoint.save(2, {b"one": 1})
    assert len(state.values["sync/downsync/realtime/3/delta/2"]) < 40


async def test_stored_values_are_bounded_in_number() -> None:
    state = State()
    checkpoint = await Checkpoint.load(state, PLACE)
    for step in range(4 * DELTAS_MAX):
        await checkpoint.save(step, {})
    assert len(state.values) <= DELTAS_MAX + 1


async def test_partitions_do_not_share_a_checkpoint() -> None:
    state = State()
    await (await Checkpoint.load(state, PLACE)).save(9, {b"k": 1})
    assert (await Checkpoint.load(state, ("realtime", 4))).next_offset == 0


@pytest.mark.parametrize("saved_before", [0, DELTAS_MAX - 1, DELTAS_MAX])
async def test_a_worker_that_was_overtaken_is_refused(saved_before: int) -> None:
    state = State()
    first = await Checkpoint.load(state, PLACE)
    for step in range(saved_before):
        await first.save(step, {})
    second = await Checkpoint.load(state, PLACE)
    await second.save(500, {b"k": 2})
    with pytest.raises(CommitRefused, match="up to offset 500"):
        await first.save(400, {b"k": 1})
    assert (await Checkpoint.load(state, PLACE)).next_offset == 500
