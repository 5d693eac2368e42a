"""Media types and request ids, rule by rule (semantics 15)."""

from __future__ import annotations

import pytest

from headrace.gateway import negotiation
from headrace.gateway.negotiation import (
    Compression,
    ContentCodings,
    accepted,
    is_json,
    kept_request_id,
    new_request_ids,
)
from headrace.gateway.ports import ACCEPT_ARROW, ACCEPT_AVRO, ACCEPT_JSON, CODED_GZIP, CODED_ZSTD

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


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"", 0),
        (b"identity", 0),
        (b"gzip", CODED_GZIP),
        (b"x-gzip", CODED_GZIP),
        (b"GZIP", CODED_GZIP),
        (b"zstd", CODED_ZSTD),
        (b"gzip, zstd", CODED_ZSTD),
        (b"gzip;q=0.8, zstd;q=0.7", CODED_GZIP),
        (b"gzip;q=0, zstd;q=0", 0),
        (b"zstd;q=0, gzip;q=0.001", CODED_GZIP),
        (b"*", CODED_ZSTD),
        (b"zstd;q=0, *", CODED_GZIP),
        (b"*;q=0", -1),
        (b"identity;q=0", -1),
        (b"identity;q=0, br", -1),
        (b"identity;q=0, zstd;q=0", -1),
        (b"*;q=0, identity", 0),
        (b"*;q=0, identity;q=0.1", 0),
        (b"*, identity;q=0", CODED_ZSTD),
        (b"identity;q=0, gzip;q=0.1", CODED_GZIP),
        (b"identity;q=0, gzip, deflate", CODED_GZIP),
        (b"*;q=0, gzip", CODED_GZIP),
        (b"identity, gzip;q=0.5", 0),
        (b"identity, zstd", CODED_ZSTD),
        (b"identity;q=0.5, gzip", CODED_GZIP),
        (b"gzip;q=nonsense", 0),
        (b"gzip;q=2", 0),
        (b" gzip ; q=1 ,, ", CODED_GZIP),
    ],
)
@pytest.mark.parametrize("compression", ["asked", "accepted"])
def test_the_coding_of_the_highest_weight_is_chosen(
    header: bytes, coding: int, compression: Compression
) -> None:
    codings = ContentCodings(compression)
    assert codings.chosen(header) == coding
    assert codings.chosen(header) == coding  # remembered now


LIBRARY_HEADERS = {
    "requests, httpx": (b"gzip, deflate", CODED_GZIP),
    "browsers, aiohttp": (b"gzip, deflate, br", CODED_GZIP),
    "curl --compressed, later libraries": (b"deflate, gzip, br, zstd", CODED_ZSTD),
}


@pytest.mark.parametrize(("header", "coding"), LIBRARY_HEADERS.values(), ids=LIBRARY_HEADERS)
def test_what_a_library_sends_by_itself_is_followed_only_when_the_operator_says_so(
    header: bytes, coding: int
) -> None:
    assert ContentCodings("asked").chosen(header) == 0
    assert ContentCodings("accepted").chosen(header) == coding
    assert ContentCodings("never").chosen(header) == 0


def test_no_coding_is_chosen_when_there_is_to_be_none() -> None:
    for header in (b"zstd", b"gzip", b"*"):
        assert ContentCodings("never").chosen(header) == 0


@pytest.mark.parametrize("header", [b"identity;q=0, zstd", b"*;q=0, gzip", b"zstd, *;q=0"])
def test_who_rules_the_plain_answer_out_gets_none_where_none_is_coded(header: bytes) -> None:
    assert ContentCodings("never").chosen(header) == -1
    assert ContentCodings("asked").of_feast().chosen(header) == -1


def test_callers_of_feasts_route_are_libraries_that_send_gzip_by_themselves() -> None:
    assert ContentCodings("asked").of_feast().chosen(b"gzip") == 0
    assert ContentCodings("accepted").of_feast().chosen(b"gzip") == CODED_GZIP
    assert ContentCodings("never").of_feast().chosen(b"gzip") == 0


@pytest.mark.parametrize("inbound", [b"a", b"a.b-c_D9", b"x" * 64])
def test_a_safe_request_id_is_kept(inbound: bytes) -> None:
    assert kept_request_id(inbound) == inbound


@pytest.mark.parametrize(
    "inbound", [b"", b"x" * 65, b"a b", b"a\r\nb", b"a\n", b"\xc3\xa9", b"a/b"]
)
def test_an_unsafe_request_id_is_not_kept(inbound: bytes) -> None:
    assert kept_request_id(inbound) is None


def test_made_request_ids_differ_within_and_between_processes() -> None:
    one, other = new_request_ids(), new_request_ids()
    made = [ids.make() for ids in (one, other) for _ in range(100)]
    assert len(set(made)) == 200
    assert all(kept_request_id(request_id) for request_id in made)


def test_what_callers_send_cannot_grow_the_memory_for_ever() -> None:
    for number in range(2 * negotiation.MEMO_ENTRIES_MAX):
        accepted(b"application/x-%d" % number)
        is_json(b"text/x-%d" % number)
    accepted(b"application/" + b"x" * 10_000)
    assert negotiation.remembered() <= 2 * negotiation.MEMO_ENTRIES_MAX
