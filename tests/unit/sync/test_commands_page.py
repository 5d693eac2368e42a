"""`docs/commands.md`: its groups are read, its commands are applied, each refusal is provoked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from headrace.codec import Catalog, encode_commands
from headrace.registry.catalog import encode_document
from headrace.registry.compile import compile_registry
from headrace.registry.load import load_texts
from headrace.sync.stores.memory import MemoryOnlineStore

PAGE = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
NOW_MS = 1_700_000_000_000
ROOM = "live::realtime-room-context"


def block(language: str) -> bytes:
    """The page's only block of code of a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text).encode()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    loaded = load_texts({"features/live.yaml": block("yaml")})
    assert loaded.errors == []
    return Catalog(encode_document(compile_registry(loaded.registry, None, now_ms=NOW_MS)))


def test_the_commands_of_the_page_are_applied_as_it_says(catalog: Catalog) -> None:
    batch = encode_commands(catalog, block("json").splitlines(), now_ms=NOW_MS)
    assert batch.rejections == []
    store = MemoryOnlineStore()
    store.apply(batch)
    room, gone = (catalog.encode_key(ROOM, {"live_room_id": number}) for number in (7, 8))
    merged, deleted = store.fetch_object(catalog, [room, gone], now_ms=NOW_MS)
    assert merged is not None
    assert deleted is None
    assert merged.values == {"has_guest": True, "viewers": 12}
    events = catalog.encode_key("live::room-events", {"live_room_id": 7})
    assert store.fetch_history(catalog, [events], limit=9, now_ms=NOW_MS) == [
        [(NOW_MS, {"kind": "gift"})]
    ]


GOOD = {
    "feature_name": ROOM,
    "method": "UPDATE",
    "keys": {"live_room_id": 7},
    "values": {"viewers": 1, "_last_updated_at_ms": NOW_MS},
}


def changed(**members: object) -> bytes:
    return json.dumps(GOOD | members).encode()


def with_values(**values: object) -> bytes:
    return changed(values={"_last_updated_at_ms": NOW_MS, **values})


REFUSED = [
    ("MALFORMED_JSON", b"{"),
    ("MALFORMED_JSON", b""),
    ("DUPLICATE_MEMBER", b'{"method":"UPDATE",' + changed()[1:]),
    ("UNKNOWN_MEMBER", changed(trace_id="x")),
    ("UNKNOWN_MEMBER", changed(method="DELETE")),
    ("UNKNOWN_GROUP", changed(feature_name="live::nobody")),
    ("UNKNOWN_FIELD", with_values(viewer=1)),
    ("WRONG_TYPE", with_values(viewers="1")),
    ("WRONG_TYPE", with_values(viewers=1.0)),
    ("OUT_OF_RANGE", with_values(viewers=1 << 63)),
    ("NULL_NOT_ALLOWED", with_values(viewers=None)),
    ("BAD_KEY", changed(keys={})),
    ("BAD_KEY", changed(keys={"live_room_id": 7, "user_id": 1})),
    ("BAD_METHOD", changed(method="APPEND")),
    ("BAD_METHOD", changed(method="UPSERT")),
    ("NO_EVENT_TIME", changed(values={"viewers": 1})),
    ("NO_EVENT_TIME", with_values(viewers=1, _last_updated_at_ms=1.5)),
    ("NO_VALUES", with_values()),
    ("FUTURE_EVENT_TIME", with_values(viewers=1, _last_updated_at_ms=NOW_MS + 300_001)),
    ("TOO_LARGE", changed().ljust((4 << 20) + 1)),
]


@pytest.mark.parametrize(("code", "payload"), REFUSED, ids=lambda part: str(part)[:20])
def test_what_the_page_says_is_refused_is_refused(
    catalog: Catalog, code: str, payload: bytes
) -> None:
    (rejection,) = encode_commands(catalog, [payload], now_ms=NOW_MS).rejections
    assert rejection.code == code


def test_the_page_names_each_refusal_that_is_provoked_here() -> None:
    told = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert told == list(dict.fromkeys(code for code, _ in REFUSED))
