"""The embedded store's handle as Python sees it; what it stores is tested port by port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.codec import Catalog, DecodeError, LmdbStore, StoreError, encode_commands
from headrace.registry.catalog import (
    CatalogDocument,
    FeatureType,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

HOSTS, PLAYS = "live::hosts", "live::plays"
NOW_MS = 1_700_000_000_000


def _group(number: int, name: str, feature_type: FeatureType) -> Group:
    return Group(
        id=number,
        name=name,
        feature_type=feature_type,
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(
            Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long", default=0),)),
        ),
        max_events=2,
    )


@pytest.fixture
def catalog() -> Catalog:
    groups = (_group(1, HOSTS, "Object"), _group(2, PLAYS, "History"))
    document = CatalogDocument(generation=1, published_at_ms=NOW_MS, groups=groups)
    return Catalog(encode_document(document))


@pytest.fixture
def store(tmp_path: Path) -> LmdbStore:
    return LmdbStore(str(tmp_path / "online"), map_size_bytes=1 << 20)


def _command(method: str, group: str, user: int, *, at_ms: int = NOW_MS) -> bytes:
    level = "" if method == "DELETE" else '"level":3,'
    return (
        f'{{"feature_name":"{group}","method":"{method}","keys":{{"user_id":{user}}},'
        f'"values":{{{level}"_last_updated_at_ms":{at_ms}}}}}'
    ).encode()


def _apply(store: LmdbStore, catalog: Catalog, *commands: bytes) -> None:
    store.apply(encode_commands(catalog, commands, now_ms=NOW_MS), catalog, now_ms=NOW_MS)


def test_named_values_are_listed_by_prefix(store: LmdbStore) -> None:
    for name in ("sync/b", "sync/a", "catalog/document"):
        store.put(name, b"")
    assert store.names("sync/") == ["sync/a", "sync/b"]
    assert store.names("") == ["catalog/document", "sync/a", "sync/b"]


def test_several_values_change_together_or_not_at_all(store: LmdbStore) -> None:
    assert store.compare_and_put_all("a", None, {"a": b"1", "b": b"one"})
    assert not store.compare_and_put_all("a", b"0", {"a": b"2", "b": b"two"})
    assert (store.get("a"), store.get("b")) == (b"1", b"one")


def test_keys_of_a_group_are_told_once_and_only_with_something_to_read(
    store: LmdbStore, catalog: Catalog
) -> None:
    _apply(
        store,
        catalog,
        _command("APPEND", PLAYS, 1),
        _command("APPEND", PLAYS, 1, at_ms=NOW_MS - 1),
        _command("UPDATE", HOSTS, 2),
        _command("DELETE", HOSTS, 3),
    )
    assert store.scan_keys(1) == [catalog.encode_key(HOSTS, {"user_id": 2})]
    assert store.scan_keys(2) == [catalog.encode_key(PLAYS, {"user_id": 1})]
    assert store.scan_keys(9) == []


def test_a_history_keeps_its_newest_events_only(store: LmdbStore, catalog: Catalog) -> None:
    """The head, and `max_events` events (semantics 5)."""
    commands = [_command("APPEND", PLAYS, 1, at_ms=NOW_MS - at) for at in range(9)]
    _apply(store, catalog, *commands)
    assert store.statistics()["entries"] == 3


def test_statistics_count_what_is_there(store: LmdbStore, catalog: Catalog) -> None:
    _apply(store, catalog, *(_command("UPDATE", HOSTS, user) for user in range(100)))
    statistics = store.statistics()
    assert statistics["entries"] == 100
    assert statistics["map_size_bytes"] == 1 << 20
    assert 0 < statistics["used_bytes"] <= 1 << 20


def test_a_key_of_no_known_group_is_a_decode_error(store: LmdbStore, catalog: Catalog) -> None:
    for key in (b"", b"\x00\x00\x00\x09abc"):
        with pytest.raises(DecodeError) as refused:
            store.fetch_object(catalog, [key], now_ms=NOW_MS)
        assert refused.value.code == "UNKNOWN_GROUP"


def test_a_history_is_no_object(store: LmdbStore, catalog: Catalog) -> None:
    _apply(store, catalog, _command("APPEND", PLAYS, 1))
    with pytest.raises(DecodeError) as refused:
        store.fetch_object(catalog, [catalog.encode_key(PLAYS, {"user_id": 1})], now_ms=NOW_MS)
    assert refused.value.code == "CORRUPT"


def _use_when_closed(store: LmdbStore, _folder: Path) -> None:
    store.close()
    store.get("name")


REFUSALS: dict[str, Callable[[LmdbStore, Path], object]] = {
    "STORE_ALREADY_OPEN": lambda _, folder: LmdbStore(str(folder / "online")),
    "STORE_MISSING": lambda _, folder: LmdbStore(str(folder / "none"), read_only=True),
    "STORE_UNREACHABLE": lambda _, folder: LmdbStore(str(folder / "online" / "data.mdb")),
    "BAD_NAME": lambda store, _: store.put("", b""),
    "STORE_CLOSED": _use_when_closed,
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_has_a_code_and_a_sentence(store: LmdbStore, tmp_path: Path, code: str) -> None:
    with pytest.raises(StoreError) as refused:
        REFUSALS[code](store, tmp_path)
    assert refused.value.code == code
    assert len(str(refused.value)) > 20


def test_a_read_only_handle_refuses_every_write(tmp_path: Path, catalog: Catalog) -> None:
    LmdbStore(str(tmp_path)).close()
    store = LmdbStore(str(tmp_path), read_only=True)
    writes: list[Callable[[], object]] = [
        lambda: store.put("name", b""),
        lambda: store.compare_and_put("name", None, b""),
        lambda: _apply(store, catalog),
    ]
    for write in writes:
        with pytest.raises(StoreError) as refused:
            write()
        assert refused.value.code == "STORE_READ_ONLY"
