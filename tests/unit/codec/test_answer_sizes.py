"""What an answer weighs, on fixed data: bytes are the same on every machine."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.codec import Catalog, LmdbStore, ReadEngine
from headrace.gateway.ports import ACCEPT_ARROW, ACCEPT_AVRO, ACCEPT_JSON, CODED_ZSTD
from headrace.loadtest import feature_data
from headrace.registry.catalog import encode_document

KEYS = 100
FIELDS = len(feature_data.RECORD_TYPES)
NOW_MS = feature_data.EVENT_MS

BYTES_A_VALUE_MAX = {"json": (ACCEPT_JSON, 10.0), "avro": (ACCEPT_AVRO, 5.5)}
"""Feast's own answer takes 42."""


def as_load_tests_write() -> Iterator[bytes]:
    """Doubles of four decimals, as prices and rates are."""
    return feature_data.sample(rows=KEYS, histories=0)


def with_doubles_of_full_length() -> Iterator[bytes]:
    """Every Double takes some sixteen digits: the most that such a record weighs."""
    source = random.Random(4)
    for payload in as_load_tests_write():
        command = json.loads(payload)
        for name in command["values"]:
            if name.startswith("double"):
                command["values"][name] = source.random()
        yield json.dumps(command).encode()


class Sizes:
    """A read of all keys, in any form."""

    def __init__(self, folder: Path, commands: Iterator[bytes]) -> None:
        catalog = Catalog(encode_document(feature_data.catalog_document()))
        self._store = LmdbStore(str(folder), map_size_bytes=1 << 24)
        self._engine = ReadEngine()
        self._engine.install(catalog)
        feature_data.apply_commands(self._store, catalog, commands)

    def bytes_a_value(self, accept: int, keys: int = KEYS) -> float:
        reads = [{"feature_group": feature_data.OBJECT, "keys": {"user_id": list(range(keys))}}]
        response = self._engine.read(
            self._store,
            json.dumps({"reads": reads}).encode(),
            accept=accept,
            now_ms=NOW_MS,
            request_id=b"sizes-1",
            keep_alive=True,
        )
        head, _, answer = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        return len(answer) / (keys * FIELDS)


@pytest.mark.parametrize("form", BYTES_A_VALUE_MAX)
@pytest.mark.parametrize("data", [as_load_tests_write, with_doubles_of_full_length])
def test_a_value_of_a_record_of_twenty_fields_takes_few_bytes(
    tmp_path: Path, data: Callable[[], Iterator[bytes]], form: str
) -> None:
    accept, most = BYTES_A_VALUE_MAX[form]
    assert 1 < Sizes(tmp_path / "online", data()).bytes_a_value(accept) <= most


def test_a_value_takes_about_its_own_width_in_arrow_when_rows_are_many(tmp_path: Path) -> None:
    """Seven Longs, six Doubles, four short texts with their offsets, three bits, a status each."""
    sizes = Sizes(tmp_path / "online", feature_data.sample(rows=1_000, histories=0))
    assert 7 < sizes.bytes_a_value(ACCEPT_ARROW, 1_000) < 9


def test_coding_halves_a_json_answer(tmp_path: Path) -> None:
    sizes = Sizes(tmp_path / "online", as_load_tests_write())
    coded, plain = (sizes.bytes_a_value(accept) for accept in (CODED_ZSTD, ACCEPT_JSON))
    assert coded < 0.6 * plain
