"""Media types and request ids, rule by rule (semantics 15)."""

from __future__ import annotations

import pytest

from headrace.gateway import negotiation
from headrace.gateway.negotiation import RequestIds, accepted, is_json, kept_request_id
from headrace.gateway.ports import ACCEPT_ARROW, ACCEPT_AVRO, ACCEPT_JSON

NONE = -1
AVRO = b"application/vnd.headrace.avro"
ARROW = b"application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("header", "form"),
    [
        (b"", ACCEPT_JSON),
        (b"*/*", ACCEPT_JSON),
        (b"application/json", ACCEPT_JSON),
        (b"APPLICATION/JSON", ACCEPT_JSON),
        (b"application/*", ACCEPT_JSON),
        (AVRO, ACCEPT_AVRO),
        (AVRO + b", application/json", ACCEPT_JSON),
        (AVRO + b", application/json;q=0.9", ACCEPT_AVRO),
        (b"*/*;q=0.1, " + AVRO + b";q=0.2", ACCEPT_AVRO),
        (b"application/json;q=0, */*", ACCEPT_AVRO),
        (ARROW, ACCEPT_ARROW),
        (ARROW + b", " + AVRO + b";q=0.9", ACCEPT_ARROW),
        (ARROW + b";q=0.5, " + AVRO, ACCEPT_AVRO),
        (b"text/html, application/xhtml+xml, */*;q=0.8", ACCEPT_JSON),
        (b" application/json ; charset=utf-8 ; q=1 ", ACCEPT_JSON),
        (b"text/html", NONE),
        (b"application/json;q=0", NONE),
        (b"application/json;q=nonsense", NONE),
        (b"application/json;q=2", NONE),
        (b"*/*;q=0", NONE),
        (b"application/vnd.headrace.avro2", NONE),
    ],
)
def test_the_best_offer_is_chosen(header: bytes, form: int) -> None:
    assert accepted(header) == form
    assert accepted(header) == form  # remembered now


@pytest.mark.parametrize(
    ("header", "json"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/jsonp", False),
        (b"application/problem+json", False),
        (b"", False),
    ],
)
def test_only_application_json_is_json(header: bytes, json: bool) -> None:
    assert is_json(header) is json


@pytest.mark.parametrize("inbound", [b"a", b"a.b-c_D9", b"x" * 64])
def test_a_safe_request_id_is_kept(inbound: bytes) -> None:
    assert kept_request_id(inbound) == inbound


@pytest.mark.parametrize(
    "inbound", [b"", b"x" * 65, b"a b", b"a\r\nb", b"a\n", b"\xc3\xa9", b"a/b"]
)
def test_an_unsafe_request_id_is_not_kept(inbound: bytes) -> None:
    assert kept_request_id(inbound) is None


def test_made_request_ids_differ_within_and_between_processes() -> None:
    one, other = RequestIds(), RequestIds()
    made = [ids.make() for ids in (one, other) for _ in range(100)]
    assert len(set(made)) == 200
    assert all(kept_request_id(request_id) for request_id in made)


def test_what_callers_send_cannot_grow_the_memory_for_ever() -> None:
    for number in range(2 * negotiation.MEMO_ENTRIES_MAX):
        accepted(b"application/x-%d" % number)
        is_json(b"text/x-%d" % number)
    accepted(b"application/" + b"x" * 10_000)
    assert negotiation.remembered() <= 2 * negotiation.MEMO_ENTRIES_MAX
