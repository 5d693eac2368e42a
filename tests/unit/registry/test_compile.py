"""Ids, ordinals and the history of schemas (semantics 6)."""

from __future__ import annotations

from headrace.codec import Catalog
from headrace.registry.catalog import (
    CatalogDocument,
    RetiredField,
    RetiredGroup,
    decode_document,
    encode_document,
)
from headrace.registry.compile import compile_registry
from headrace.registry.load import load_texts

GROUP = """\
{name}:
  feature_type: Object
  owner: x
  schema:
    id: {{type: Long, is_key_field: true}}
    {fields}
"""


def document_after(*registries: str | tuple[str, ...]) -> CatalogDocument:
    """Publish registries one after another; each is the fields of `a::a`, or whole groups."""
    document: CatalogDocument | None = None
    for registry in registries:
        groups = (
            (GROUP.format(name="a::a", fields=registry),) if isinstance(registry, str) else registry
        )
        loaded = load_texts({"features/a.yaml": "".join(groups).encode()})
        assert loaded.errors == []
        document = compile_registry(loaded.registry, document, now_ms=5)
    assert document is not None
    return document


def test_first_document_is_generation_one() -> None:
    document = document_after("b: {type: Long, default_value: 3}")
    assert (document.generation, document.published_at_ms) == (1, 5)
    (group,) = document.groups
    assert (group.id, group.schemas[0].ordinal) == (1, 1)
    assert [(field.id, field.name, field.default) for field in group.fields] == [(1, "b", 3)]
    assert document.next_group_id == 2


def test_equal_arguments_give_equal_bytes() -> None:
    fields = "b: {type: Long, default_value: 3}"
    assert encode_document(document_after(fields)) == encode_document(document_after(fields))


def test_new_field_takes_the_next_id_and_makes_a_schema() -> None:
    document = document_after(
        "b: {type: Long, nullable: true}",
        "a: {type: Long, nullable: true}\n    b: {type: Long, nullable: true}",
    )
    (group,) = document.groups
    assert [(field.id, field.name) for field in group.fields] == [(2, "a"), (1, "b")]
    assert [schema.ordinal for schema in group.schemas] == [1, 2]


def test_default_and_words_do_not_make_a_schema() -> None:
    document = document_after(
        "b: {type: Long, default_value: 1}",
        'b: {type: Long, default_value: 2, description: "two", pii: true}',
    )
    (group,) = document.groups
    assert [schema.ordinal for schema in group.schemas] == [1]
    assert group.fields[0].default == 2


def test_widening_keeps_the_id_and_makes_a_schema() -> None:
    document = document_after(
        "b: {type: Integer, nullable: true}", "b: {type: Long, nullable: true}"
    )
    assert [[f.id for f in schema.fields] for schema in document.groups[0].schemas] == [[1], [1]]


def test_removed_field_retires_and_its_id_is_never_given_again() -> None:
    both = "b: {type: Long, nullable: true}\n    c: {type: Long, nullable: true}"
    document = document_after(both, "b: {type: Long, nullable: true}", both)
    (group,) = document.groups
    assert group.retired == (RetiredField(id=2, name="c"),)
    assert [(field.id, field.name) for field in group.fields] == [(1, "b"), (3, "c")]


def test_removed_group_retires_and_its_id_is_never_given_again() -> None:
    one, two, three = (
        GROUP.format(name=f"a::{name}", fields="v: {type: Long, nullable: true}") for name in "abc"
    )
    document = document_after((one, two), (one,), (one, three))
    assert [(group.id, group.name) for group in document.groups] == [(1, "a::a"), (3, "a::c")]
    assert document.retired_groups == (RetiredGroup(id=2, name="a::b"),)


def test_every_schema_ever_registered_compiles_in_the_codec() -> None:
    document = document_after(
        "b: {type: Integer, nullable: true}",
        "b: {type: Long, nullable: true}",
        'b: {type: Long, nullable: true}\n    c: {type: "List<Text>", default_value: [x]}',
    )
    text = encode_document(document)
    assert decode_document(text) == document
    catalog = Catalog(text)
    assert catalog.generation == 3
    assert '"namespace":"headrace.a.s3"' in (catalog.avro_schema(catalog.fingerprint("a::a")) or "")
