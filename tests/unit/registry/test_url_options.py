"""Options of an engine's URL: each says something that is meant, and no login is ever shown."""

from __future__ import annotations

import pytest

from headrace.registry.url_options import (
    flag,
    parse_options,
    port,
    without_credentials,
    without_login_before_host,
)

KNOWN = ("user", "password", "tls", "ca", "epoch")


def test_options_are_unescaped() -> None:
    assert parse_options("user=u&password=p%26w&tls=true&ca=/a.pem", KNOWN) == {
        "user": "u",
        "password": "p&w",
        "tls": "true",
        "ca": "/a.pem",
    }


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("epok=1", "unknown option `epok`; did you mean `epoch`"),
        ("tls=true&tls=false", "option `tls` is given 2 times"),
        ("user=u&password=", "option `password` is empty"),
        ("user=u", "option `user` needs `password` beside it"),
        ("password=p", "option `password` needs `user` beside it"),
        ("ca=/a.pem", "option `ca` needs `tls=true` beside it"),
        ("ca=/a.pem&tls=false", "option `ca` needs `tls=true` beside it"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(query: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_options(query, KNOWN)


@pytest.mark.parametrize("text", ["True", "yes", "1", "on"])
def test_tls_that_is_neither_true_nor_false_is_not_taken_as_off(text: str) -> None:
    with pytest.raises(ValueError, match=f"`tls={text}`: expected `true` or `false`"):
        flag({"tls": text}, "tls")


@pytest.mark.parametrize("text", ["0", "65536", "-1", "x", "٣", ""])
def test_a_port_that_nobody_can_listen_on_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no whole number from 1 to 65535"):
        port(text)


def test_a_login_before_the_host_is_told_without_being_shown() -> None:
    with pytest.raises(ValueError, match=r"write `\?user=…&password=…`") as refused:
        without_login_before_host("me:secret@host:9042")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:secret@h:1,g:2/0?epoch=1", "redis://***@h:1,g:2/0?epoch=1"),
        ("redis://:sec/ret@h/0", "redis://***@h/0"),
        ("redis://:sec?ret@h/0", "redis://***"),
        ("redis://u:sec@ret@h/0", "redis://***@h/0"),
        ("scylla://h/k?dc=a&user=me&password=s%26ecret", "scylla://h/k?dc=a&user=***&password=***"),
        ("kafka://h?password=sec@ret", "kafka://h?password=***"),
        ("redis://[u:secret@h", "redis://***@h"),
        ("lmdb:folder/a", "lmdb:folder/a"),
    ],
)
def test_a_url_is_shown_without_its_login(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
