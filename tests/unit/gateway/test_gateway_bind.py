"""Which addresses a gateway without `access.yaml` may be bound to (semantics 14)."""

from __future__ import annotations

import socket

import pytest

from headrace.gateway.serve import AddressInUse, RefusedBind, check_bind, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost"])
def test_loopback_is_allowed(host: str) -> None:
    check_bind(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_what_others_can_reach_is_refused_with_the_reason(host: str) -> None:
    with pytest.raises(RefusedBind, match=r"not a loopback address.*access\.yaml"):
        check_bind(host)


def test_a_name_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(RefusedBind, match="cannot be resolved"):
        check_bind("no-such-host.invalid")


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port)
