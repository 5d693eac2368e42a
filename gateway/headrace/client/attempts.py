"""When a request is tried once more, and until when: the rules both clients keep.

A read is tried again once, when its connection failed or the gateway answered 503 and said when to
come again, within the deadline. Commands are tried again only when the connection failed before a
byte of them was sent. Both are harmless to the stores in any case (replaying a command changes
nothing); yet only the caller knows whether a second copy on the command log is.
"""

from __future__ import annotations

from headrace.client.errors import ClientError, ConnectionFailed
from headrace.client.exchange import Answer
from headrace.client.requests import Request

ATTEMPTS = 2
DEADLINE_MAX_MS = 60_000


def checked_deadline_ms(deadline_ms: int) -> int:
    """Itself; raises ValueError for one that no gateway takes."""
    if not 1 <= deadline_ms <= DEADLINE_MAX_MS:
        raise ValueError(f"deadline_ms: expected 1 to {DEADLINE_MAX_MS}, got {deadline_ms}")
    return deadline_ms


def again_after_failure(request: Request, error: ClientError, attempt: int) -> bool:
    """Whether to try again at once after `attempt` attempts."""
    return (
        attempt < ATTEMPTS
        and isinstance(error, ConnectionFailed)
        and (request.repeatable or not error.sent)
    )


def again_after_s(request: Request, answer: Answer, attempt: int, left_s: float) -> float | None:
    """After how many seconds to try again what was answered so, or None."""
    wait_s = answer.retry_after_seconds
    if answer.status != 503 or wait_s is None or attempt >= ATTEMPTS or not request.repeatable:
        return None
    return wait_s if wait_s < left_s else None
