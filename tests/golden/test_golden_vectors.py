"""Bytes of format version 1 are what they were when it was born; Rust reads the same files.

fastavro and plain Python stand in for readers that are not ours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import fastavro
import fastavro.schema
import pytest
from codec_bytes import BLOCK_ABSENT, BLOCK_HISTORY, open_block, open_cell

from headrace.codec import Catalog, encode_commands

FOLDER = Path(__file__).parent / "v1"
Vector = dict[str, Any]


def vectors(name: str) -> list[Vector]:
    lines = (FOLDER / f"{name}.ndjson").read_text().splitlines()
    return [cast(Vector, json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The newest generation."""
    return Catalog((FOLDER / "catalogs.ndjson").read_bytes().splitlines()[-1])


def read_with_fastavro(catalog: Catalog, cell: bytes) -> dict[str, object]:
    opened = open_cell(cell)
    schema = json.loads(catalog.avro_schema(opened.fingerprint) or "null")
    stream = io.BytesIO(opened.body)
    values = fastavro.schemaless_reader(stream, fastavro.parse_schema(schema), None)
    assert stream.read() == b""
    return cast(dict[str, object], values)


def test_there_are_at_least_three_hundred_vectors() -> None:
    counts = [len(vectors(file.stem)) for file in FOLDER.glob("*.ndjson")]
    assert sum(counts) >= 300


@pytest.mark.parametrize("vector", vectors("commands"), ids=lambda it: cast(Vector, it)["name"])
def test_a_command_becomes_the_same_cells(catalog: Catalog, vector: Vector) -> None:
    text = vector["command"]
    now_ms = json.loads(text)["values"]["_last_updated_at_ms"]
    batch = encode_commands(catalog, [text.encode()], now_ms=now_ms)
    found = [
        {
            "kind": it.kind,
            "field_id": it.field_id,
            "key": it.key.hex(),
            "write_timestamp": it.write_timestamp,
            "event_id": it.event_id,
            "expires_at_ms": it.expires_at_ms,
            "cell": it.cell.hex(),
        }
        for it in batch.mutations()
    ]
    assert found == vector["mutations"]


def whole_cells() -> Iterator[tuple[str, bytes, str]]:
    """Group, cell and JSON row of each record and event."""
    for vector in vectors("commands"):
        group = json.loads(vector["command"])["feature_name"]
        for mutation in vector["mutations"]:
            if mutation["kind"] in ("record", "event"):
                yield group, bytes.fromhex(mutation["cell"]), vector["rows"][0]


def test_cells_print_the_same_json(catalog: Catalog) -> None:
    found = [
        catalog.transcode(group, [cell], None, layout="rows").decode()
        for group, cell, _ in whole_cells()
    ]
    assert found == [row for _, _, row in whole_cells()]


def test_fastavro_reads_the_values_that_we_decode(catalog: Catalog) -> None:
    for group, cell, _ in whole_cells():
        _, values = catalog.decode_event(group, cell)
        # By `repr`, which tells -0.0 from 0.0.
        assert repr(read_with_fastavro(catalog, cell)) == repr(values)


@pytest.mark.parametrize("vector", vectors("keys"), ids=lambda it: cast(Vector, it)["key"][:48])
def test_a_key_has_the_same_bytes_and_digest(catalog: Catalog, vector: Vector) -> None:
    key = catalog.encode_key(vector["group"], vector["keys"])
    assert key.hex() == vector["key"]
    assert catalog.decode_key(key) == (vector["group"], vector["keys"])
    assert open_block(catalog.history_block(key, [])).key_digest == vector["digest"]


@pytest.mark.parametrize("vector", vectors("folds"), ids=lambda it: cast(Vector, it)["name"])
def test_cells_fold_to_the_same_block(catalog: Catalog, vector: Vector) -> None:
    cells = [(field_id, bytes.fromhex(cell)) for field_id, cell in vector["cells"]]
    for order in (cells, cells[::-1], cells * 2):
        folded = catalog.fold_object(
            "golden::fold",
            order,
            delete_timestamp=vector["delete_timestamp"],
            now_ms=vector["now_ms"],
        )
        block = folded and folded.block(bytes.fromhex(vector["key"])).hex()
        assert block == vector["block"]
        assert (folded and folded.written) == vector["written"]


def test_a_block_decodes_to_the_record_that_was_folded(catalog: Catalog) -> None:
    for vector in vectors("folds"):
        if vector["block"] is None:
            continue
        block = bytes.fromhex(vector["block"])
        record = catalog.decode_block("golden::fold", block)
        assert record.written == vector["written"]
        assert open_block(block).rest.endswith(record.avro)


@pytest.mark.parametrize("vector", vectors("histories"), ids=lambda it: cast(Vector, it)["name"])
def test_events_seal_to_the_same_block(catalog: Catalog, vector: Vector) -> None:
    cells = [bytes.fromhex(cell) for cell in vector["cells"]]
    block = catalog.history_block(bytes.fromhex(vector["key"]), cells)
    assert block.hex() == vector["block"]
    opened = open_block(block)
    assert opened.flags == (BLOCK_HISTORY if cells else BLOCK_ABSENT)
    if cells:
        assert int.from_bytes(opened.rest[:2], "little") == len(cells)


@pytest.mark.parametrize("vector", vectors("schemas"), ids=lambda it: cast(Vector, it)["group"])
def test_a_schema_has_the_same_text_and_fingerprint(catalog: Catalog, vector: Vector) -> None:
    assert catalog.fingerprint(vector["group"]) == vector["fingerprint"]
    assert catalog.avro_schema(vector["fingerprint"]) == vector["avro"]


def test_fastavro_computes_the_same_fingerprints() -> None:
    for vector in vectors("schemas"):
        canonical = fastavro.schema.to_parsing_canonical_form(json.loads(vector["avro"]))
        found = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        # fastavro prints the fingerprint's bytes in the order of single-object headers.
        assert int.from_bytes(bytes.fromhex(found), "little") == vector["fingerprint"]
