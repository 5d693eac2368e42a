"""The watcher: atomic swaps, the last good catalog, and one look for many who ask."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from headrace.registry.catalog import (
    PORTION_BYTES,
    CatalogDocument,
    decode_document,
    encode_document,
)
from headrace.registry.compile import compile_registry
from headrace.registry.errors import CatalogUnreadable
from headrace.registry.load import load_texts
from headrace.registry.watch import (
    AT_ONCE_BYTES_MAX,
    CatalogWatcher,
    LiveCatalog,
    compile_beside,
    compile_document,
)

GROUP = b"""\
a::b:
  feature_type: Object
  owner: x
  schema: {k: {type: Text, is_key_field: true}, v: {type: Long, nullable: true}}
"""


def document_of(generation: int) -> CatalogDocument:
    document = compile_registry(
        load_texts({"f/a": b"", "features/a": GROUP}).registry, None, now_ms=0
    )
    return msgspec.structs.replace(document, generation=generation)


class Reader:
    """A catalog reader over a variable; counts its calls and can be held at one."""

    def __init__(self, text: bytes | None = None, generation: int = 0) -> None:
        self.text = text
        self.live = generation
        self.asked = 0
        self.loaded = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    def publish(self, generation: int, text: bytes | None = None) -> None:
        self.live = generation
        self.text = encode_document(document_of(generation)) if text is None else text

    async def generation(self) -> int:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.live

    async def load(self) -> bytes | None:
        self.loaded += 1
        return self.text


def watcher_of(reader: Reader) -> CatalogWatcher:
    return CatalogWatcher(reader, lambda: 77)


async def test_before_the_first_apply_there_is_nothing() -> None:
    watcher = watcher_of(Reader())
    assert await watcher.refresh() is None
    assert (watcher.problem, watcher.unreachable) == (None, None)


async def test_new_generation_is_compiled_and_given_to_all() -> None:
    reader = Reader()
    watcher = watcher_of(reader)
    seen: list[LiveCatalog] = []
    watcher.subscribe(seen.append)
    reader.publish(1)
    await watcher.refresh()
    reader.publish(2)
    live = await watcher.refresh()
    assert live is watcher.current
    assert live is not None
    assert (live.generation, live.compiled.generation, live.loaded_at_ms) == (2, 2, 77)
    assert [catalog.generation for catalog in seen] == [1, 2]


async def test_late_subscriber_gets_the_present_generation_at_once() -> None:
    reader = Reader()
    reader.publish(1)
    watcher = watcher_of(reader)
    await watcher.refresh()
    seen: list[int] = []
    end = watcher.subscribe(lambda live: seen.append(live.generation))
    assert seen == [1]
    end()
    reader.publish(2)
    await watcher.refresh()
    assert seen == [1]


async def test_same_generation_is_not_loaded_again() -> None:
    reader = Reader()
    reader.publish(1)
    watcher = watcher_of(reader)
    for _ in range(3):
        await watcher.refresh()
    assert (reader.asked, reader.loaded) == (3, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "the catalog document cannot be read: Input data was truncated"),
        (b'{"generation": "x"}', "the catalog document cannot be read: Expected `int`"),
        (b'{"format": 2, "generation": 2, "published_at_ms": 0}', "upgrade this process"),
        (
            encode_document(document_of(2)).replace(b'"Long"', b'"Lung"'),
            "generation 2 cannot be compiled",
        ),
    ],
    ids=["torn", "of other types", "newer", "not compilable"],
)
async def test_generation_that_cannot_be_loaded_leaves_the_last_one(
    text: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader()
    reader.publish(1)
    watcher = watcher_of(reader)
    await watcher.refresh()
    reader.publish(2, text)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await watcher.refresh()
    assert watcher.current is not None
    assert watcher.current.generation == 1
    assert problem in (watcher.problem or "")
    assert len(caplog.records) == 1, "the same problem is logged once"
    assert reader.loaded == 2, "the same document is not tried again"
    reader.publish(3)
    live = await watcher.refresh()
    assert live is not None
    assert (live.generation, watcher.problem) == (3, None)


async def test_store_that_is_down_leaves_the_last_one_and_recovers() -> None:
    reader = Reader()
    watcher = watcher_of(reader)
    reader.error = ConnectionError("no route")
    await watcher.refresh()
    assert watcher.unreachable == "no route"
    assert watcher.problem == "the catalog cannot be loaded: no route"
    reader.error = None
    reader.publish(1)
    await watcher.refresh()
    reader.error = ConnectionError("no route")
    await watcher.refresh()
    assert watcher.current is not None
    assert watcher.problem is not None
    reader.error = None
    await watcher.refresh()
    assert watcher.problem is None


async def test_generation_without_a_document_is_tried_again() -> None:
    """A reader of an eventually consistent store may see the number before the document."""
    reader = Reader(text=None, generation=1)
    watcher = watcher_of(reader)
    await watcher.refresh()
    assert watcher.current is None
    reader.publish(1)
    await watcher.refresh()
    assert watcher.current is not None


async def test_many_who_ask_share_one_look_that_began_after_they_asked() -> None:
    """semantics 20: whoever saw a newer fingerprint must not be answered by an older look."""
    reader = Reader()
    watcher = watcher_of(reader)
    reader.gate = asyncio.Event()
    early = asyncio.ensure_future(watcher.refresh())
    await asyncio.sleep(0)
    assert reader.asked == 1
    late = [asyncio.ensure_future(watcher.refresh()) for _ in range(50)]
    await asyncio.sleep(0)
    reader.publish(1)
    reader.gate.set()
    lives = await asyncio.gather(early, *late)
    assert reader.asked == 2
    assert all(live is not None and live.generation == 1 for live in lives[1:])


async def test_run_polls_until_it_is_cancelled() -> None:
    reader = Reader()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        reader.publish(len(slept))
        if len(slept) == 3:
            raise asyncio.CancelledError

    watcher = CatalogWatcher(reader, lambda: 0, interval_ms=250, sleep=sleep)
    with pytest.raises(asyncio.CancelledError):
        await watcher.run()
    assert slept == [0.25, 0.25, 0.25]
    assert watcher.current is not None
    assert watcher.current.generation == 2


def test_compile_document_gives_both_forms() -> None:
    compiled, document = compile_document(encode_document(document_of(4)))
    assert compiled.generation == document.generation == 4
    with pytest.raises(CatalogUnreadable):
        compile_document(b"")


def big_document_of(generation: int) -> CatalogDocument:
    """Of more bytes than are compiled at once."""
    document = document_of(generation)
    group = document.groups[0]
    groups = tuple(
        msgspec.structs.replace(group, id=number, name=f"a::b-{number}") for number in range(1, 400)
    )
    return msgspec.structs.replace(document, groups=groups, next_group_id=400)


async def test_a_big_document_is_compiled_while_the_loop_goes_on() -> None:
    text = encode_document(big_document_of(4))
    assert len(text) > AT_ONCE_BYTES_MAX
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    compiled, document = await compile_beside(text)
    counting.cancel()
    assert turns > len(text) // PORTION_BYTES
    assert document == decode_document(text)
    assert (compiled.generation, compiled.group_id("a::b-399")) == (4, 399)


async def test_a_big_document_replaces_another_and_a_small_one() -> None:
    reader = Reader()
    watcher = watcher_of(reader)
    for generation, text in enumerate((None, 4, 5, None), 1):
        made = None if text is None else encode_document(big_document_of(generation))
        reader.publish(generation, made)
        live = await watcher.refresh()
        assert live is not None
        assert live.generation == generation == live.compiled.generation
        assert len(live.document.groups) == (1 if text is None else 399)


async def test_a_mistake_in_a_big_document_is_named_by_its_place() -> None:
    text = encode_document(big_document_of(4)).replace(b'"id":200,', b'"id":"x",', 1)
    with pytest.raises(CatalogUnreadable, match=r"Expected `int`, got `str` - at `\$\.groups\["):
        await compile_beside(text)
