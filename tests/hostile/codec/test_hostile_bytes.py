"""Stored bytes that are torn, foreign, damaged or made to harm end as a `DecodeError`.

`bytes.ndjson` has one case a line with the threat it stands for. Whatever else is raised, a panic
of the Rust side among it, fails the test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from codec_bytes import seal_cell

from headrace.codec import Catalog, DecodeError
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

Case = dict[str, str]
STAMP = 1_700_000_000_000_123
DEFAULTS: dict[str, object] = {
    "Boolean": False,
    "Integer": 0,
    "Long": 0,
    "Float": 0.0,
    "Double": 0.0,
    "Text": "",
    "Bytes": "",
    "List<Long>": [],
    "Vector<2>": [0.0, 0.0],
}


def cases(entry: str) -> list[Case]:
    lines = (Path(__file__).parent / "bytes.ndjson").read_text().splitlines()
    told = [cast(Case, json.loads(line)) for line in lines]
    return [case for case in told if case["entry"] == entry]


def threat(case: object) -> str:
    told = cast(Case, case)
    return f"{told.get('type', '')} {told['threat']}".strip()


def group_of(kind: str) -> str:
    return "hostile::" + kind.lower().replace("<", "-").replace(">", "")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    groups = tuple(
        Group(
            id=number,
            name=group_of(kind),
            feature_type="Object",
            owner="tests",
            keys=(KeyField(name="id", type="Long"),),
            schemas=(
                Schema(
                    ordinal=1,
                    fields=(ValueField(id=1, name="value", type=kind, default=default),),
                ),
            ),
        )
        for number, (kind, default) in enumerate(DEFAULTS.items(), 1)
    )
    return Catalog(encode_document(CatalogDocument(generation=1, published_at_ms=0, groups=groups)))


@pytest.fixture(scope="module")
def good_cell(catalog: Catalog) -> bytes:
    return seal_cell(STAMP, catalog.fingerprint("hostile::text"), b"\x08text")


@pytest.mark.parametrize("case", cases("body"), ids=threat)
@pytest.mark.parametrize("layout", ["rows", "objects"])
def test_a_bad_body_is_refused_with_its_place(catalog: Catalog, case: Case, layout: str) -> None:
    group = group_of(case["type"])
    cell = seal_cell(STAMP, catalog.fingerprint(group), bytes.fromhex(case["bytes"]))
    with pytest.raises(DecodeError) as refused:
        catalog.transcode(group, [cell], None, layout="rows" if layout == "rows" else "objects")
    assert refused.value.code == "CORRUPT"
    assert refused.value.offset is not None
    with pytest.raises(DecodeError):
        catalog.decode_event(group, cell)


@pytest.mark.parametrize("case", cases("cell"), ids=threat)
def test_a_bad_cell_is_refused(catalog: Catalog, case: Case) -> None:
    cell = bytes.fromhex(case["bytes"])
    with pytest.raises(DecodeError) as refused:
        catalog.transcode("hostile::long", [cell], None, layout="rows")
    assert refused.value.code in {"CORRUPT", "CHECKSUM", "UNKNOWN_SCHEMA"}
    with pytest.raises(DecodeError):
        catalog.history_block(b"", [cell[:20]])


@pytest.mark.parametrize("case", cases("block"), ids=threat)
def test_a_bad_block_is_refused(catalog: Catalog, case: Case) -> None:
    with pytest.raises(DecodeError) as refused:
        catalog.decode_block("hostile::long", bytes.fromhex(case["bytes"]))
    assert refused.value.code in {"CORRUPT", "CHECKSUM", "UNKNOWN_SCHEMA"}


def test_every_truncation_and_every_flipped_bit_of_a_cell_is_refused(
    catalog: Catalog, good_cell: bytes
) -> None:
    assert catalog.transcode("hostile::text", [good_cell], None, layout="rows") == b'[["text"]]'
    for damaged in damages(good_cell):
        with pytest.raises(DecodeError):
            catalog.fold_object("hostile::text", [(0, damaged)], delete_timestamp=None, now_ms=0)


def test_every_truncation_and_every_flipped_bit_of_a_block_is_refused(
    catalog: Catalog, good_cell: bytes
) -> None:
    folded = catalog.fold_object("hostile::text", [(0, good_cell)], delete_timestamp=None, now_ms=0)
    assert folded is not None
    block = folded.block(catalog.encode_key("hostile::text", {"id": 1}))
    assert catalog.decode_block("hostile::text", block).values == {"value": "text"}
    for damaged in damages(block):
        with pytest.raises(DecodeError):
            catalog.decode_block("hostile::text", damaged)


def damages(good: bytes) -> list[bytes]:
    """Every proper prefix, and every copy with one bit flipped."""
    flipped: list[bytes] = []
    for bit in range(len(good) * 8):
        copy = bytearray(good)
        copy[bit // 8] ^= 1 << (bit % 8)
        flipped.append(bytes(copy))
    return [good[:length] for length in range(len(good))] + flipped


def test_each_case_names_a_threat_of_its_own() -> None:
    told = [threat(case) + entry for entry in ("body", "cell", "block") for case in cases(entry)]
    assert len(told) == len(set(told)) >= 45
