"""Which media type comes in, which goes out and how coded, under which id: semantics 15."""

from __future__ import annotations

import re
import secrets
from typing import Literal, TypeVar

from headrace.codec import RequestIds
from headrace.gateway.ports import (
    ACCEPT_ARROW,
    ACCEPT_AVRO,
    ACCEPT_JSON,
    CODED_GZIP,
    CODED_ZSTD,
)

JSON_TYPE = b"application/json"
AVRO_TYPE = b"application/vnd.headrace.avro"
ARROW_TYPE = b"application/vnd.apache.arrow.stream"

OFFERS: dict[int, bytes] = {
    ACCEPT_JSON: JSON_TYPE,
    ACCEPT_AVRO: AVRO_TYPE,
    ACCEPT_ARROW: ARROW_TYPE,
}

CODINGS: dict[int, tuple[bytes, ...]] = {CODED_ZSTD: (b"zstd",), CODED_GZIP: (b"gzip", b"x-gzip")}
"""The codings we have by what they add to a form; the first wins a tie."""

Compression = Literal["asked", "accepted", "never"]
"""Whose Accept-Encoding is followed.

`asked`: of callers who name no coding but ours. HTTP libraries send `gzip, deflate` and the like by
themselves; that says what they can decode, not that anybody wants to pay for it.
`accepted`: of all callers. `never`: of none.
"""

Meaning = TypeVar("Meaning")

MEMO_ENTRIES_MAX = 256
"""Header values whose meaning is remembered; a caller has one or two, so this is never reached."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


def is_json(content_type: bytes) -> bool:
    """Whether a Content-Type is `application/json`, whatever its parameters."""
    known = _content_types.get(content_type)
    if known is None:
        known = content_type.partition(b";")[0].strip().lower() == JSON_TYPE
        _remember(_content_types, content_type, known)
    return known


def accepted(accept: bytes) -> int:
    """The answer form an Accept header prefers, or -1 when it takes none that we have.

    Ties go to JSON. The most specific range decides an offer's weight, and `q=0` rules it out
    (RFC 9110, 12.5.1).
    """
    known = _accepts.get(accept)
    if known is None:
        known = _negotiate(accept)
        _remember(_accepts, accept, known)
    return known


def kept_request_id(inbound: bytes) -> bytes | None:
    """The caller's request id when it is safe to repeat, None otherwise."""
    return inbound if _REQUEST_ID(inbound) else None


class ContentCodings:
    """Decides how answers are coded, by Accept-Encoding and what the operator allows."""

    __slots__ = ("_compression", "_known")

    def __init__(self, compression: Compression = "asked") -> None:
        self._compression = compression
        self._known: dict[bytes, int] = {}

    def of_feast(self) -> ContentCodings:
        """Those of Feast's route: its callers are libraries in Go and Java, which send `gzip`
        without being told to, so that nobody there asks."""
        return ContentCodings("accepted" if self._compression == "accepted" else "never")

    def chosen(self, accept_encoding: bytes) -> int:
        """What a coding adds to a form, 0 for none, for the value of an Accept-Encoding header;
        -1 when it rules `identity` out and takes none of the codings that we give.

        The coding of the highest weight wins, zstd before gzip; `identity` wins only where it
        stands with a weight above theirs (RFC 9110, 12.5.3).
        """
        known = self._known.get(accept_encoding)
        if known is None:
            known = self._choose(accept_encoding)
            _remember(self._known, accept_encoding, known)
        return known

    def _choose(self, accept_encoding: bytes) -> int:
        ranges = [_range(part) for part in accept_encoding.lower().split(b",") if part.strip()]
        forbidden = _coding_weight((b"identity",), ranges) == 0
        ours = {name for names in CODINGS.values() for name in names} | {b"identity", b"*"}
        foreign = any(name not in ours for name, _ in ranges)
        if self._compression == "never":
            return -1 if forbidden else 0
        if self._compression == "asked" and foreign and not forbidden:
            return 0
        best = -1 if forbidden else 0
        best_weight = max((q for name, q in ranges if name == b"identity"), default=0.0)
        for coding, names in CODINGS.items():
            weight = _coding_weight(names, ranges) or 0.0
            if weight > best_weight or (weight == best_weight > 0 and best == 0):
                best, best_weight = coding, weight
        return best


def _coding_weight(names: tuple[bytes, ...], ranges: list[tuple[bytes, float]]) -> float | None:
    """The weight of a coding by its names, else by `*`; None where neither stands."""
    own = [weight for name, weight in ranges if name in names]
    return max(own or [weight for name, weight in ranges if name == b"*"], default=None)


def new_request_ids() -> RequestIds:
    """Ids that begin with a random prefix of this process."""
    return RequestIds(secrets.token_hex(6).encode())


def remembered() -> int:
    """How many header values are remembered."""
    return len(_content_types) + len(_accepts)


_content_types: dict[bytes, bool] = {}
_accepts: dict[bytes, int] = {}


def _remember(memo: dict[bytes, Meaning], header: bytes, meaning: Meaning) -> None:
    if len(memo) < MEMO_ENTRIES_MAX and len(header) <= 256:
        memo[header] = meaning


def _negotiate(accept: bytes) -> int:
    ranges = [_range(part) for part in accept.lower().split(b",") if part.strip()]
    if not ranges:
        return ACCEPT_JSON
    best, best_weight = -1, 0.0
    for form, media_type in OFFERS.items():
        weight = _weight(media_type, ranges)
        if weight > best_weight:
            best, best_weight = form, weight
    return best


def _range(part: bytes) -> tuple[bytes, float]:
    media_type, *parameters = (piece.strip() for piece in part.split(b";"))
    for parameter in parameters:
        name, _, text = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                weight = float(text)
            except ValueError:
                return media_type, 0.0
            return media_type, weight if 0.0 <= weight <= 1.0 else 0.0
    return media_type, 1.0


def _weight(offer: bytes, ranges: list[tuple[bytes, float]]) -> float:
    family = offer.partition(b"/")[0] + b"/*"
    for pattern in (offer, family, b"*/*"):
        weights = [weight for media_type, weight in ranges if media_type == pattern]
        if weights:
            return max(weights)
    return 0.0
