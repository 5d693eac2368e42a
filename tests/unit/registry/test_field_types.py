"""The table of types, against the codec that lives by it."""

from __future__ import annotations

import json

import pytest

from headrace.codec import Catalog
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.registry.field_types import SCALARS, parse_type, rule_of_type, type_names

EVERY_TYPE = [*SCALARS, *(f"List<{name}>" for name in SCALARS), "Vector<1>", "Vector<16384>"]


@pytest.mark.parametrize("name", EVERY_TYPE)
def test_avro_of_the_table_is_avro_of_the_codec(name: str) -> None:
    declared = parse_type(name)
    assert declared is not None
    document = CatalogDocument(
        generation=1,
        published_at_ms=0,
        groups=(
            Group(
                id=1,
                name="a::b",
                feature_type="Object",
                owner="x",
                keys=(KeyField(name="k", type="Text"),),
                schemas=(
                    Schema(
                        ordinal=1, fields=(ValueField(id=1, name="v", type=name, nullable=True),)
                    ),
                ),
            ),
        ),
    )
    catalog = Catalog(encode_document(document))
    schema = json.loads(catalog.avro_schema(catalog.fingerprint("a::b")) or "")
    assert schema["fields"][0]["type"] == ["null", json.loads(declared.avro)]


@pytest.mark.parametrize(
    ("name", "cql", "bigquery", "duckdb"),
    [
        ("Long", "bigint", "INT64", "BIGINT"),
        ("Timestamp", "bigint", "TIMESTAMP", "TIMESTAMPTZ"),
        ("List<Text>", "frozen<list<text>>", "ARRAY<STRING>", "VARCHAR[]"),
        ("Vector<64>", "frozen<list<float>>", "ARRAY<FLOAT64>", "FLOAT[64]"),
    ],
)
def test_types_of_engines(name: str, cql: str, bigquery: str, duckdb: str) -> None:
    declared = parse_type(name)
    assert declared is not None
    assert (declared.cql, declared.bigquery, declared.duckdb) == (cql, bigquery, duckdb)


@pytest.mark.parametrize(
    "name",
    ["long", "List<List<Text>>", "List<Vector<2>>", "List<>", "Vector<0>", "Vector<01>",
     "Vector<16385>", "Vector<99999>", "Vector<-1>", "Long ", "Long\n", ""],
)  # fmt: skip
def test_other_names_are_no_types(name: str) -> None:
    assert parse_type(name) is None


def test_names_for_messages_are_types() -> None:
    assert all(parse_type(name) for name in type_names())


@pytest.mark.parametrize("name", ["Vector<0>", "Vector<16385>", "Vector<>", "vector<4>", "Vector"])
def test_the_rule_of_vectors_is_told_for_a_name_that_means_one(name: str) -> None:
    assert parse_type(name) is None
    told = rule_of_type(name)
    assert told == "write `Vector<N>` with N from 1 to 16384, such as `Vector<64>`"


@pytest.mark.parametrize("name", ["List<text>", "List<Vector<4>>", "list"])
def test_the_rule_of_lists_is_told_for_a_name_that_means_one(name: str) -> None:
    assert parse_type(name) is None
    assert (rule_of_type(name) or "").startswith("write `List<T>` with T one of Boolean, ")


def test_no_rule_is_told_for_a_name_that_means_another_type() -> None:
    assert rule_of_type("Vectorial") is None
    assert rule_of_type("String") is None
