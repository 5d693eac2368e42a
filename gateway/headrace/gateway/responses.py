"""Whole HTTP/1.1 responses as bytes, in the shape that the read engine writes them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from headrace.gateway.errors import PROBLEM_TYPE, Problem, Refusal


def problem_response(answer: Problem, *, request_id: bytes, generation: bytes) -> bytes:
    """A problem that ends its connection."""
    body = msgspec.json.encode(answer)
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"content-type: {PROBLEM_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        f"x-request-id: {request_id.decode('ascii')}\r\n"
        f"headrace-generation: {generation.decode('ascii')}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def refusal_parts(refusal: Refusal) -> tuple[bytes, bytes]:
    """A refusal encoded once, for when there is no time to spare.

    A response is the first part, the request's id, the generation's head field, one that closes the
    connection if it is to end, and the second part.
    """
    status, body = refusal.problem.status, refusal.body
    lines = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers)
    start = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: {PROBLEM_TYPE}\r\ncontent-length: {len(body)}\r\n{lines}x-request-id: "
    )
    return start.encode("ascii"), b"\r\n\r\n" + body


def split_response(response: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, header fields and body of a whole response; its connection field is left out.

    uvicorn writes that one itself, from what the caller asked for.
    """
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    return int(first[9:12]), [field for field in fields if field[0] != b"connection"], body
