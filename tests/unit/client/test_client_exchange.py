"""One exchange without a socket: whatever the pieces bytes come in, and whatever they are."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from client_callers import READ_BODY, SENT_BODY, http

from headrace.client import (
    Command,
    GatewayFailed,
    GatewayUnavailable,
    GroupRead,
    MalformedAnswer,
    ReadOptions,
    RefusedRequest,
)
from headrace.client.address import Address
from headrace.client.attempts import again_after_failure, again_after_s
from headrace.client.errors import ConnectionFailed, DeadlineExceeded
from headrace.client.exchange import Answer, AnswerReader, problem_of, read_of, sent_of
from headrace.client.requests import Request, RequestWriter

ADDRESS = Address.parse("http://gateway:6566")
READ = Request(b"", b"{}", repeatable=True)
COMMANDS = Request(b"", b"[]", repeatable=False)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-Request-ID: a-1\r\n\r\n"
    + b"4\r\nab12\r\n3\r\nxyz\r\n0\r\n\r\n"
)


def answer(status: int = 200, body: bytes = READ_BODY, wait: float | None = None) -> Answer:
    return Answer(status, body, "a-1", wait, lasting=True)


def body_of(request: Request, left_s: float = 10) -> object:
    head, _, body = request.payload(left_s).partition(b"\r\n\r\n")
    assert head.endswith(b": %d" % len(body))
    return msgspec.json.decode(body)


@pytest.mark.parametrize("whole", [http(200, READ_BODY), CHUNKED], ids=["length", "chunked"])
def test_an_answer_may_come_in_any_two_pieces(whole: bytes) -> None:
    once = AnswerReader()
    once.expect()
    expected = once.feed(whole)
    assert expected is not None
    for cut in range(1, len(whole)):
        reader = AnswerReader()
        reader.expect()
        assert reader.feed(whole[:cut]) is None
        assert reader.feed(whole[cut:]) == expected


def test_one_reader_reads_one_answer_after_another() -> None:
    reader = AnswerReader()
    for status in (200, 404, 202):
        reader.expect()
        read = reader.feed(http(status, b"x" * status))
        assert read is not None
        assert (read.status, len(read.body), read.lasting) == (status, status, True)


def test_an_interim_answer_is_passed_over() -> None:
    reader = AnswerReader()
    reader.expect()
    assert reader.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n") is None
    read = reader.feed(http(200, READ_BODY))
    assert read is not None
    assert read.status == 200


def test_an_answer_that_ends_its_connection_is_not_lasting() -> None:
    reader = AnswerReader()
    reader.expect()
    read = reader.feed(http(200, READ_BODY, "connection: close"))
    assert read is not None
    assert not read.lasting


@pytest.mark.parametrize(
    "stray", [http(200, READ_BODY) * 2, b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x"]
)
def test_bytes_that_are_not_one_answer_are_refused(stray: bytes) -> None:
    reader = AnswerReader()
    reader.expect()
    with pytest.raises(MalformedAnswer):
        reader.feed(stray)


def test_bytes_that_nobody_asked_for_are_refused() -> None:
    with pytest.raises(MalformedAnswer, match="answer no request"):
        AnswerReader().feed(http(200, READ_BODY))


def test_a_read_carries_the_request_id_of_its_answer() -> None:
    assert read_of(answer()).request_id == "a-1"


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"generation":1,"results":[{}]}'])
def test_a_body_that_is_no_answer_of_ours_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read_of(answer(body=body))
    with pytest.raises(MalformedAnswer):
        sent_of(answer(202, body))


def test_a_problem_keeps_all_it_says() -> None:
    body = b'{"code":"UNKNOWN_FIELD","detail":"no field `levle`","nearest":"level","status":400}'
    with pytest.raises(RefusedRequest, match="400 UNKNOWN_FIELD: no field") as caught:
        read_of(answer(400, body))
    error = caught.value
    assert (error.status, error.code, error.nearest) == (400, "UNKNOWN_FIELD", "level")
    assert (error.request_id, error.retriable) == ("a-1", False)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, RefusedRequest),
        (429, GatewayUnavailable),
        (500, GatewayFailed),
        (502, GatewayUnavailable),
        (503, GatewayUnavailable),
        (304, MalformedAnswer),
    ],
)
def test_a_proxys_own_page_becomes_an_error_too(status: int, kind: type[Exception]) -> None:
    assert type(problem_of(answer(status, b"<html>no</html>"))) is kind


@pytest.mark.parametrize(
    ("left_s", "sent_ms"), [(0.1, 90), (0.0996, 90), (0.0504, 45), (0.001, 1), (0, 1), (-1, 1)]
)
def test_the_deadline_sent_is_what_is_left_without_the_way_back(
    left_s: float, sent_ms: int
) -> None:
    writer = RequestWriter(ADDRESS, None)
    read = writer.read_service("s-v1", {"a": [1]}, options=ReadOptions())
    asked = {"service": "s-v1", "keys": {"a": [1]}, "deadline_ms": sent_ms}
    assert body_of(read, left_s) == asked


def test_a_request_says_only_what_is_asked_for() -> None:
    writer = RequestWriter(ADDRESS, "key-1")
    reads = [GroupRead("a::b", {"k": np.array([1, 2])}, fields=["f"], limit=3)]
    options = ReadOptions(strict=True, event_times=True, missing="null")
    made = writer.read_groups(reads, options=options)
    assert made.payload(0.001).startswith(
        b"POST /v1/read HTTP/1.1\r\nhost: gateway:6566\r\nauthorization: Bearer key-1\r\n"
        b"content-type: application/json\r\ncontent-length: "
    )
    assert body_of(made, 0.001) == {
        "reads": [{"feature_group": "a::b", "keys": {"k": [1, 2]}, "fields": ["f"], "limit": 3}],
        "deadline_ms": 1,
        "strict": True,
        "event_times": True,
        "missing": "null",
    }


def test_commands_are_written_as_the_log_takes_them() -> None:
    commands = [
        Command.update("a::b", {"k": 1}, {"f": 2}, event_time_ms=5),
        Command.delete("a::b", {"k": 1}, event_time_ms=6),
    ]
    assert body_of(RequestWriter(ADDRESS, None).send(commands)) == [
        {
            "feature_name": "a::b",
            "method": "UPDATE",
            "keys": {"k": 1},
            "values": {"f": 2, "_last_updated_at_ms": 5},
        },
        {
            "feature_name": "a::b",
            "method": "DELETE",
            "keys": {"k": 1},
            "values": {"_last_updated_at_ms": 6},
        },
    ]


@pytest.mark.parametrize(
    "url",
    ["gateway:6566", "ftp://a", "http://", "http://user@a", "http://a?b=c", "http://a\r\nx: y"],
)
def test_a_url_that_names_no_gateway_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|has no"):
        Address.parse(url)


@pytest.mark.parametrize("key", ["a\r\nx: y", "ä", "a b", "\x00"])
def test_an_api_key_cannot_write_headers(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        RequestWriter(ADDRESS, key)


def test_an_address_keeps_its_prefix() -> None:
    assert Address.parse("https://host/features/") == (
        Address("host", 443, tls=True, prefix="/features", authority="host")
    )


@pytest.mark.parametrize(
    ("request_", "error", "attempt", "again"),
    [
        (READ, ConnectionFailed("", sent=True), 1, True),
        (READ, ConnectionFailed("", sent=True), 2, False),
        (READ, DeadlineExceeded(), 1, False),
        (READ, MalformedAnswer(), 1, False),
        (COMMANDS, ConnectionFailed("", sent=True), 1, False),
        (COMMANDS, ConnectionFailed("", sent=False), 1, True),
    ],
)
def test_only_what_is_safe_is_tried_again(
    request_: Request, error: ConnectionFailed, attempt: int, again: bool
) -> None:
    assert again_after_failure(request_, error, attempt) is again


@pytest.mark.parametrize(
    ("request_", "given", "attempt", "wait"),
    [
        (READ, answer(503, wait=0.5), 1, 0.5),
        (READ, answer(503, wait=2.0), 1, None),
        (READ, answer(503, wait=None), 1, None),
        (READ, answer(503, wait=0.5), 2, None),
        (READ, answer(500, wait=0.5), 1, None),
        (COMMANDS, answer(503, wait=0.5), 1, None),
    ],
)
def test_a_read_waits_as_long_as_the_gateway_says_and_the_deadline_leaves(
    request_: Request, given: Answer, attempt: int, wait: float | None
) -> None:
    assert again_after_s(request_, given, attempt, left_s=1.0) == wait


def test_the_body_of_sent_commands_is_read() -> None:
    assert sent_of(answer(202, SENT_BODY)).check().generation == 3
