"""Write the golden vectors of the present byte format, once.

    python tests/golden/generate.py v1

A version's files are written when the format is born and never again: a folder that exists is
refused. What later tests need is added as a new file by a change of this program.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from headrace.codec import Catalog, Mutation, encode_commands
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

FOLDER = Path(__file__).parent
EVENT_TIME_MS = 1_700_000_000_000
NOW_MS = EVENT_TIME_MS + 60_000
TTL_MS = 3_600_000
KEY = (KeyField(name="id", type="Long"),)

SCALARS: dict[str, list[object]] = {
    "Boolean": [True, False],
    "Integer": [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31)],
    "Long": [0, -1, 64, 99_999_999, 100_000_000, 10**16, 2**53 + 1, 2**63 - 1, -(2**63)],
    "Float": [0.0, -0.0, 0.1, -1.5, 7, 16777217, 1e-45, 3.4028234663852886e38, 1.17549435e-38],
    "Double": [0.0, -0.0, 0.1, 7, 1e16, 1e21, 1e-7, 123456.789, 5e-324, 1.7976931348623157e308],
    "Text": [
        "",
        "a",
        "0123456789abcdef",
        "0123456789abcdefg",
        '"\\/',
        "\0\x1f\x7f",
        "é€",
        "😀" * 9,
    ],
    "Bytes": ["", "AA==", "AP8=", "AAEC", "////" * 20],
    "Date": ["1970-01-01", "1969-12-31", "2024-02-29", "0001-01-01", "9999-12-31"],
    "Timestamp": [
        "1970-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2023-11-14T22:13:20.000010Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ],
}
VECTORS: list[object] = [[0.0, -0.0, 0.5], [1e-45, -3.4028234663852886e38, 0.1], [1, 2, 3]]

HISTORY_OF_FOLD = (
    (("level", 1, "Integer", False, 0), ("note", 2, "Text", True, None)),
    (
        ("note", 2, "Text", True, None),
        ("tags", 3, "List<Text>", True, None),
        ("level", 1, "Integer", False, 0),
    ),
    (
        ("level", 1, "Long", True, -1),
        ("score", 4, "Double", False, 0.5),
        ("tags", 3, "List<Text>", True, None),
        ("seen", 5, "Timestamp", False, "1970-01-01T00:00:00Z"),
    ),
)
"""Three schemas of one group: fields come, go, move and widen."""


def values_by_type() -> dict[str, list[object]]:
    """Every declared type with the values that are put into it."""
    lists: dict[str, list[object]] = {
        f"List<{name}>": [[], values[:1], values] for name, values in SCALARS.items()
    }
    return {**SCALARS, **lists, "Vector<3>": VECTORS}


def documents() -> list[CatalogDocument]:
    """Three generations: the last group gains a schema with each."""
    typed = [
        Group(
            id=number,
            name=group_of(kind),
            feature_type="Object",
            owner="golden",
            keys=KEY,
            schemas=(
                Schema(
                    ordinal=1,
                    fields=(
                        ValueField(id=1, name="value", type=kind, default=values[0]),
                        ValueField(id=2, name="maybe", type=kind, nullable=True),
                    ),
                ),
            ),
        )
        for number, (kind, values) in enumerate(values_by_type().items(), 1)
    ]
    return [
        CatalogDocument(
            generation=generation,
            published_at_ms=EVENT_TIME_MS,
            groups=(*typed, *_keyed(), _folded(generation)),
        )
        for generation in (1, 2, 3)
    ]


def group_of(kind: str) -> str:
    """The name of the group that holds values of a type."""
    return "golden::" + kind.lower().replace("<", "-of-").replace(">", "")


def _keyed() -> Iterator[Group]:
    value = (ValueField(id=1, name="value", type="Long", default=0),)
    shapes = {
        "golden::by-integer": ("Integer",),
        "golden::by-long": ("Long",),
        "golden::by-text": ("Text",),
        "golden::by-all": ("Text", "Integer", "Long", "Text"),
    }
    for number, (name, kinds) in enumerate(shapes.items(), 100):
        keys = tuple(KeyField(name=f"k{at}", type=kind) for at, kind in enumerate(kinds))
        schemas = (Schema(ordinal=1, fields=value),)
        yield Group(
            id=number, name=name, feature_type="Object", owner="golden", keys=keys, schemas=schemas
        )
    yield Group(
        id=110,
        name="golden::plays",
        feature_type="History",
        owner="golden",
        keys=KEY,
        schemas=(Schema(ordinal=1, fields=_fields(HISTORY_OF_FOLD[2])),),
        max_events=50,
    )


def _folded(generation: int) -> Group:
    schemas = tuple(
        Schema(ordinal=ordinal, fields=_fields(fields))
        for ordinal, fields in enumerate(HISTORY_OF_FOLD[:generation], 1)
    )
    return Group(
        id=111,
        name="golden::fold",
        feature_type="Object",
        owner="golden",
        keys=KEY,
        schemas=schemas,
        ttl_ms=TTL_MS,
    )


def _fields(declared: tuple[tuple[str, int, str, bool, object], ...]) -> tuple[ValueField, ...]:
    return tuple(
        ValueField(id=number, name=name, type=kind, nullable=nullable, default=default)
        for name, number, kind, nullable, default in declared
    )


def command(
    group: str, method: str, keys: dict[str, object], values: dict[str, object], at_ms: int
) -> str:
    """The text of a command."""
    body = {"feature_name": group, "method": method, "keys": keys}
    body["values"] = values | {"_last_updated_at_ms": at_ms}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def told_commands() -> Iterator[tuple[str, str]]:
    """A name and a command for every type and value, every method and every key shape."""
    for kind, values in values_by_type().items():
        for at, value in enumerate(values):
            at_ms = EVENT_TIME_MS + at
            both = {"value": value, "maybe": value}
            told = {"record": both, "patch": {"value": value}, "patch-maybe": {"maybe": value}}
            for what, named in told.items():
                text = command(group_of(kind), "UPDATE", {"id": at}, named, at_ms)
                yield f"{kind}/{at}/{what}", text
        null = command(group_of(kind), "UPDATE", {"id": -1}, {"maybe": None}, EVENT_TIME_MS)
        yield f"{kind}/null/patch-maybe", null
    yield "delete/object", command(group_of("Long"), "DELETE", {"id": 1}, {}, EVENT_TIME_MS)
    yield "delete/history", command("golden::plays", "DELETE", {"id": 1}, {}, EVENT_TIME_MS)
    for at, at_ms in enumerate([0, 1, EVENT_TIME_MS, EVENT_TIME_MS + 300_000]):
        event: dict[str, object] = {"level": at, "score": at / 3, "tags": [str(at)] * at}
        yield f"event/{at}", command("golden::plays", "APPEND", {"id": at}, event, at_ms)
        text = command("golden::plays", "APPEND", {"id": at}, {"level": None}, at_ms)
        yield f"event/{at}/one-field", text


def told_keys() -> Iterator[tuple[str, dict[str, object]]]:
    """Keys of every shape, with their extremes."""
    for number in (0, 1, -1, 2**31 - 1, -(2**31)):
        yield "golden::by-integer", {"k0": number}
    for number in (0, 1, -1, 255, 256, 2**63 - 1, -(2**63)):
        yield "golden::by-long", {"k0": number}
    for text in ("a", "A", " ", "\0", "é", "😀", "x" * 100, "x" * 474):
        yield "golden::by-text", {"k0": text}
    yield "golden::by-all", {"k0": "ab", "k1": 1, "k2": 2, "k3": "c"}
    yield "golden::by-all", {"k0": "a", "k1": -1, "k2": -2, "k3": "bc"}


def told_folds() -> Iterator[list[tuple[int, str]]]:
    """Lists of (generation, command), each for one row of `golden::fold`."""
    random = Random(7)
    for row in range(60):
        told: list[tuple[int, str]] = []
        for _ in range(random.randrange(1, 7)):
            generation = random.randrange(1, 4)
            at_ms = NOW_MS - random.choice([0, 1, 1, 2, 1000, TTL_MS - 1, TTL_MS, TTL_MS + 1])
            if random.random() < 0.1:
                told.append((3, command("golden::fold", "DELETE", {"id": row}, {}, at_ms)))
                continue
            fields = list(HISTORY_OF_FOLD[generation - 1])
            if random.random() < 0.5:
                fields = random.sample(fields, random.randrange(1, len(fields)))
            values = {field[0]: _any_value(field, random) for field in fields}
            told.append((generation, command("golden::fold", "UPDATE", {"id": row}, values, at_ms)))
        yield told


def _any_value(field: tuple[str, int, str, bool, object], random: Random) -> object:
    _, _, kind, nullable, _ = field
    if nullable and random.random() < 0.3:
        return None
    values: dict[str, object] = {
        "Integer": random.randrange(-1000, 1000),
        "Long": random.randrange(-(10**12), 10**12),
        "Double": random.random() * 100,
        "Text": "n" * random.randrange(4),
        "List<Text>": [str(random.randrange(99)) for _ in range(random.randrange(3))],
        "Timestamp": f"2023-11-14T22:13:{random.randrange(10, 60)}Z",
    }
    return values[kind]


def shown(mutation: Mutation) -> dict[str, object]:
    """A mutation as the files hold it."""
    return {
        "kind": mutation.kind,
        "field_id": mutation.field_id,
        "key": mutation.key.hex(),
        "write_timestamp": mutation.write_timestamp,
        "event_id": mutation.event_id,
        "expires_at_ms": mutation.expires_at_ms,
        "cell": mutation.cell.hex(),
    }


def encode(catalog: Catalog, text: str) -> list[Mutation]:
    """The mutations of a command that must not be refused, as of its own event time."""
    now_ms = json.loads(text)["values"]["_last_updated_at_ms"]
    batch = encode_commands(catalog, [text.encode()], now_ms=now_ms)
    if batch.rejections:
        raise SystemExit(f"refused: {text}: {batch.rejections[0].message}")
    return batch.mutations()


def command_vectors(catalog: Catalog) -> Iterator[dict[str, object]]:
    """Commands and the cells they become; whole records with their JSON row."""
    for name, text in told_commands():
        mutations = encode(catalog, text)
        group = json.loads(text)["feature_name"]
        rows = [
            catalog.transcode(group, [mutation.cell], None, layout="rows").decode()
            for mutation in mutations
            if mutation.kind in ("record", "event")
        ]
        yield {
            "name": name,
            "command": text,
            "mutations": [shown(mutation) for mutation in mutations],
            "rows": rows,
        }


def key_vectors(catalog: Catalog) -> Iterator[dict[str, object]]:
    """Keys, their bytes, and the digest of these as a block holds it."""
    for group, keys in told_keys():
        key = catalog.encode_key(group, keys)
        (digest,) = struct.unpack_from("<Q", catalog.history_block(key, []), 6)
        yield {"group": group, "keys": keys, "key": key.hex(), "digest": digest}


def fold_vectors(catalogs: list[Catalog]) -> Iterator[dict[str, object]]:
    """Cells of one row in the order they were written, and the block they fold to."""
    for row, told in enumerate(told_folds()):
        mutations = [
            mutation
            for generation, text in told
            for mutation in encode(catalogs[generation - 1], text)
        ]
        deletes = [it.write_timestamp for it in mutations if it.kind == "delete_row"]
        cells = [(it.field_id, it.cell) for it in mutations if it.kind != "delete_row"]
        folded = catalogs[2].fold_object(
            "golden::fold", cells, delete_timestamp=max(deletes, default=None), now_ms=NOW_MS
        )
        key = catalogs[2].encode_key("golden::fold", {"id": row})
        yield {
            "name": f"fold/{row}",
            "key": key.hex(),
            "cells": [[field_id, cell.hex()] for field_id, cell in cells],
            "delete_timestamp": max(deletes, default=None),
            "now_ms": NOW_MS,
            "written": None if folded is None else folded.written,
            "block": None if folded is None else folded.block(key).hex(),
        }


def history_vectors(catalog: Catalog) -> Iterator[dict[str, object]]:
    """Events of one key, newest first, and their block; none at all is an absent row."""
    for count in (0, 1, 2, 50):
        key = catalog.encode_key("golden::plays", {"id": count})
        texts = [
            command("golden::plays", "APPEND", {"id": count}, {"level": at}, EVENT_TIME_MS - at)
            for at in range(count)
        ]
        cells = [it.cell for text in texts for it in encode(catalog, text)]
        yield {
            "name": f"history/{count}",
            "key": key.hex(),
            "cells": [cell.hex() for cell in cells],
            "block": catalog.history_block(key, cells).hex(),
        }


def schema_vectors(catalog: Catalog) -> Iterator[dict[str, object]]:
    """Every current schema with its fingerprint."""
    for group in documents()[2].groups:
        fingerprint = catalog.fingerprint(group.name)
        avro = catalog.avro_schema(fingerprint)
        yield {"group": group.name, "fingerprint": fingerprint, "avro": avro}


def main(version: str) -> None:
    """Write a version's folder; refuse when it exists."""
    folder = FOLDER / version
    if folder.exists():
        raise SystemExit(f"`{folder}` exists: golden vectors are never rewritten")
    texts = [encode_document(document) for document in documents()]
    catalogs = [Catalog(text) for text in texts]
    files: dict[str, Iterator[dict[str, object]]] = {
        "commands": command_vectors(catalogs[2]),
        "keys": key_vectors(catalogs[2]),
        "folds": fold_vectors(catalogs),
        "histories": history_vectors(catalogs[2]),
        "schemas": schema_vectors(catalogs[2]),
    }
    written = {name: [json.dumps(vector) for vector in vectors] for name, vectors in files.items()}
    folder.mkdir()
    (folder / "catalogs.ndjson").write_bytes(b"".join(text + b"\n" for text in texts))
    for name, lines in written.items():
        (folder / f"{name}.ndjson").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
