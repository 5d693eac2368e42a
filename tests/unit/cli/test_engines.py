"""URLs of engines: the scheme alone decides, and a wrong one is one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.cli import engines
from headrace.cli.live import live_catalog
from headrace.registry.catalog import CatalogDocument
from headrace.registry.errors import CatalogMissing, OnlineStoreMissing, SettingsError
from headrace.registry.settings import Settings


@pytest.mark.parametrize(
    ("opening", "url", "sentence"),
    [
        (
            engines.open_online_when_up,
            "lmbd:x",
            "names no engine; expected `lmdb:FOLDER` or `scylla://HOST:PORT/KEYSPACE`; "
            "did you mean `lmdb`?",
        ),
        (engines.open_online_when_up, "", "`online: ` names no engine"),
        (engines.open_online_when_up, "lmdb:", "lacks its place; expected `lmdb:FOLDER`"),
        (engines.open_online_when_up, "scylla://h/Hosts", "is no ScyllaDB URL; expected"),
        (engines.open_online_when_up, "scylla://h/k?replication=no", "replication `no` is no"),
        (engines.open_online_when_up, "scylla://u:p@h/k", "a login before the host is not read"),
        (engines.open_online_when_up, "scylla://h/k?user=u", "`user` needs `password` beside it"),
        (engines.open_online_when_up, "scylla://h:x/k", "port `x` is no whole number from 1 to"),
        (engines.open_commands, "kafka://h?partitions=0", "expected a positive whole number"),
        (
            engines.open_commands,
            "rabbit:x",
            "expected `sqlite:FILE` or `kafka://HOST:PORT?prefix=headrace`",
        ),
        (engines.open_offline, "csv:x", "expected `duckdb:FOLDER`"),
    ],
)
def test_wrong_url_names_the_valid_ones(opening: object, url: str, sentence: str) -> None:
    assert callable(opening)
    with pytest.raises(SettingsError) as raised:
        opening(url)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["cassandra://u:secret@h/k", "scylla://u:secret@h/k", "scylla:/h?user=u&password=secret"],
)
def test_a_wrong_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        engines.open_online_when_up(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("online", "cache", "sentence"),
    [
        ("scylla://h/k", "memory", "expected `none` or `redis://HOST:PORT/0`"),
        ("scylla://h/k", "redis:", "lacks its place"),
        ("lmdb:x", "redis://h:6379/0", "the embedded store is nearer than any cache"),
    ],
)
def test_a_cache_that_cannot_be_used_is_one_sentence(
    online: str, cache: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        engines.cache_of(Settings(online=online, cache=cache))
    assert sentence in str(raised.value)


def test_no_cache_needs_nothing() -> None:
    assert engines.cache_of(Settings()) is None


def test_a_cache_in_front_of_a_networked_store_is_taken() -> None:
    cache = engines.cache_of(Settings(online="scylla://h/k", cache="redis://a,b:7000/0"))
    assert cache is not None
    assert [node.name for node in cache.nodes] == ["a:6379", "b:7000"]


async def test_online_store_is_made_for_a_writer_only(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/a/b"
    with pytest.raises(OnlineStoreMissing, match="does not exist yet; `headrace apply` makes it"):
        await engines.open_online(url, read_only=True)
    assert await engines.open_online_if_there(url) is None
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert await engines.open_online_if_there(url) is None, "an empty folder is no store yet"
    await (await engines.open_online(url)).close()
    assert (tmp_path / "a" / "b").is_dir()
    reader = await engines.open_online_if_there(url)
    assert reader is not None
    await reader.close()


async def test_a_networked_store_that_is_down_is_one_sentence() -> None:
    with pytest.raises(
        SettingsError, match=r"no session with 127.0.0.1:1: .*; start the server, or mend"
    ):
        await engines.open_online("scylla://127.0.0.1:1/nowhere")


async def test_ports_share_one_handle(tmp_path: Path) -> None:
    """semantics 29"""
    engine = await engines.open_online(f"lmdb:{tmp_path}/online")
    try:
        with pytest.raises(CatalogMissing, match="run `headrace apply` first"):
            await live_catalog(engine)
        document = CatalogDocument(generation=1, published_at_ms=0)
        await engine.table_admin().create(())
        assert await engine.catalog_writer().publish(document)
        assert not await engine.catalog_writer().publish(document)
        assert await engine.catalog_reader().generation() == 1
        assert (await live_catalog(engine))[0].generation == 1
        await engine.sync_state().put("sync/a/b", b"1")
        assert await engine.sync_state().get("sync/a/b") == b"1"
        assert engine.writer() is not None
        assert engine.merged_records() is not None
    finally:
        await engine.close()


async def test_catalog_of_a_url(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/online"
    with pytest.raises(CatalogMissing, match="run `headrace apply` first"):
        await engines.load_catalog(url)
    engine = await engines.open_online(url)
    document = CatalogDocument(generation=1, published_at_ms=0)
    await engine.catalog_writer().publish(document)
    await engine.close()
    assert (await engines.load_catalog(url)).generation == 1


async def test_command_log_is_made_where_its_url_says(tmp_path: Path) -> None:
    log = engines.open_commands(f"sqlite:{tmp_path}/deep/commands.db")
    try:
        placed = await log.producer().append("realtime", [(b"key", b"value")])
        records = await log.consumer("realtime", "test").poll(rows_max=10, wait_ms=0)
        assert [record.coordinates for record in records] in ([], placed)
        assert log.dead_letters() is not None
    finally:
        await log.close()
    assert (tmp_path / "deep" / "commands.db").exists()


async def test_kafka_log_is_opened_without_a_connection() -> None:
    log = engines.open_commands("kafka://127.0.0.1:1?prefix=x")
    await log.close()


def test_offline_store_is_made_where_its_url_says(tmp_path: Path) -> None:
    engines.open_offline(f"duckdb:{tmp_path}/deep/offline").close()
    assert (tmp_path / "deep" / "offline").is_dir()
