"""Every bound of the HTTP side, in one place; each protects the process from one kind of caller."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one gateway process. Times are whole sweeps of the coarse timer."""

    body_bytes_max: int = 1 << 20
    """A longer body is answered 413."""
    head_bytes_max: int = 32 * 1024
    """Request line and headers together; more is answered 431."""
    headers_max: int = 100
    """Header fields of one request; more is answered 431."""
    target_bytes_max: int = 8 * 1024
    """Path and query; more is answered 414."""
    queued_requests_max: int = 1024
    """Requests of one connection waiting for an earlier answer; the connection ends after these."""
    due_answers_max: int = 64
    """Lane answers due on one connection; no more of it is read or begun until all are written."""
    held_bytes_max: int = 256 << 20
    """Bytes of bodies not yet answered and of unread answers in the whole process; beyond it new
    reads and commands are answered 503."""
    discarded_bytes_max: int = 8 << 20
    """What is read and thrown away after a refusal, so that the caller gets to see the refusal."""
    sweep_seconds: float = 1.0
    """Period of the one timer that all time limits hang on."""
    receive_sweeps: int = 9
    """From the first byte of a request to its last."""
    send_sweeps: int = 10
    """Without progress by a caller that does not read its answers."""
    idle_sweeps: int = 75
    """Between requests of a kept-alive connection."""
    linger_sweeps: int = 2
    """Between our end of a connection and the caller's."""
    drain_notice_seconds: float = 0.5
    """From being unready to the end of accepting: balancers see it and callers are told to go."""
    drain_quiet_seconds: float = 2.0
    """How much longer new connections are accepted while callers still come."""
    drain_finish_seconds: int = 6
    """For the requests under way after that."""
