"""`headrace doctor` over URLs that are wrong, all three at once: each is told with its own fix."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificate import Certificate
from click.testing import CliRunner
from guarded_servers import ESCAPED, USER, GuardedServers

from headrace.cli import doctor
from headrace.cli.doctor import LIMIT_S
from headrace.cli.main import main
from headrace.loadtest.servers.process import free_port

ONLINE_FIX = "start the server, or mend the URL of `online`"
CACHE_FIX = "start the node, or mend the URL of `cache`"
COMMANDS_FIX = "start the brokers, or mend the URL of `commands`"
LOGIN = f"user={USER}&password={ESCAPED}"


@dataclass(frozen=True)
class Wrong:
    """A URL, and what `doctor` must say of it: the check, words of the detail, the fix."""

    url: str
    check: str
    words: str
    fix: str


@dataclass(frozen=True)
class Places:
    """Where nobody listens, where nobody answers, and where not even a connection is taken."""

    guarded: GuardedServers
    stranger: Certificate
    closed: int
    silent: int
    dropping: int

    def at(self, host: str, online: str, cache: str, commands: str) -> list[Wrong]:
        """Right URLs but for `host`, and the words of each part."""
        return [
            Wrong(f"scylla://{host}/guarded?{LOGIN}", "reachable", online, ONLINE_FIX),
            Wrong(f"redis://:{ESCAPED}@{host}/0", "reachable", cache, CACHE_FIX),
            Wrong(f"kafka://{host}?{LOGIN}", "reachable", commands, COMMANDS_FIX),
        ]


@pytest.fixture(scope="module")
def places(guarded: GuardedServers, stranger: Certificate) -> Generator[Places]:
    with ExitStack() as opened:
        silent, dropping = (opened.enter_context(socket.socket()) for _ in range(2))
        for each, backlog in ((silent, 100), (dropping, 0)):
            each.bind(("127.0.0.1", 0))
            each.listen(backlog)
        for _ in range(4):  # Once its queue is full, Linux drops what comes.
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(dropping.getsockname())
        yield Places(
            guarded, stranger, free_port(), silent.getsockname()[1], dropping.getsockname()[1]
        )


def refused(places: Places) -> list[Wrong]:
    return places.at(f"127.0.0.1:{places.closed}", "connection refused", "Connect call", "Connect")


def unknown_host(places: Places) -> list[Wrong]:
    host = f"nowhere.invalid:{places.closed}"
    return places.at(host, "no session with nowhere.invalid", "nowhere.invalid", "nowhere.invalid")


def silent(places: Places) -> list[Wrong]:
    host = f"127.0.0.1:{places.silent}"
    return places.at(host, f"no session with {host}", "Timeout", "Timeout")


def half_silent(places: Places) -> list[Wrong]:
    """Nobody answers; of the store and the cache not even a connection is taken."""
    quiet, dropping = silent(places), f"127.0.0.1:{places.dropping}"
    online, cache, _ = places.at(dropping, f"no session with {dropping}", "Timeout", "")
    return [online, cache, quiet[2]]


def wrong_scheme(places: Places) -> list[Wrong]:
    return [
        Wrong(
            f"{scheme}://{USER}:{ESCAPED}@127.0.0.1:1/a",
            "settings",
            f"`{setting}: {scheme}://***@127.0.0.1:1/a` names no engine; expected ",
            f"mend it in headrace.yaml, HEADRACE_{setting.upper()} or --{setting}",
        )
        for setting, scheme in (("online", "cassandra"), ("cache", "rediss"), ("commands", "amqp"))
    ]


def wrong_password(places: Places) -> list[Wrong]:
    guarded = places.guarded
    return [
        Wrong(
            guarded.online(password="wrong"),
            "reachable",
            "Bad credentials",
            "mend `user` and `password` of the URL of `online`",
        ),
        Wrong(
            guarded.cache(login=":wrong@"),
            "reachable",
            "invalid username-password pair",
            "mend the user and the password in the URL of `cache`",
        ),
        Wrong(
            guarded.commands(password="wrong"),
            "reachable",
            "SaslAuthenticationFailed",
            "mend `user`, `password` or `mechanism` in the URL of `commands`",
        ),
    ]


def no_login(places: Places) -> list[Wrong]:
    guarded = places.guarded
    return [
        Wrong(
            guarded.online(user=None, password=None),
            "reachable",
            "Authentication required",
            "give the URL of `online` a `user` and a `password`",
        ),
        Wrong(
            guarded.cache(login=""),
            "reachable",
            "client already authenticated",
            "mend the user and the password in the URL of `cache`",
        ),
        Wrong(
            guarded.commands(user=None, password=None),
            "reachable",
            "takes a connection and does not say who it is",
            "look at its log, and whether this listener wants `tls`, or `user` and `password`, in "
            "the URL of `commands`",
        ),
    ]


def wrong_place(places: Places) -> list[Wrong]:
    """A keyspace, a database and a prefix that are not there."""
    guarded = places.guarded
    return [
        Wrong(
            guarded.online().replace("/guarded?", "/other?"),
            "reachable",
            "there is no keyspace `other` with a catalog",
            "run `headrace apply`",
        ),
        Wrong(guarded.cache() + "99", "reachable", "DB index is out of range", CACHE_FIX),
        Wrong(
            guarded.commands(prefix="other"),
            "topic",
            "`other.realtime` is missing",
            "run `headrace apply`",
        ),
    ]


def strange_certificate(places: Places) -> list[Wrong]:
    """Of the cache: TLS to a node that speaks none."""
    ca = f"tls=true&ca={places.stranger.authority}"
    valkey = places.guarded.valkey.port
    return [
        Wrong(
            f"{places.guarded.online()}&{ca}",
            "reachable",
            "no session with",
            "mend `tls` and `ca` of the URL of `online`",
        ),
        Wrong(f"redis://:{ESCAPED}@127.0.0.1:{valkey}/0?{ca}", "reachable", "Timeout", CACHE_FIX),
        Wrong(
            places.guarded.commands_over_tls(ca=places.stranger.authority),
            "reachable",
            "certificate verify failed",
            "mend `tls` and `ca` in the URL of `commands`",
        ),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        refused,
        unknown_host,
        half_silent,
        wrong_scheme,
        wrong_password,
        no_login,
        wrong_place,
        strange_certificate,
    ],
    ids=lambda fault: fault.__name__,
)
def test_doctor_tells_what_is_wrong_with_each_url_and_what_mends_it(
    places: Places, tmp_path: Path, fault: Callable[[Places], list[Wrong]]
) -> None:
    wrong = dict(zip(("online", "cache", "commands"), fault(places), strict=True))
    urls = [word for name, each in wrong.items() for word in (f"--{name}", each.url)]
    argv = ["doctor", "--json", *urls, "--offline", f"duckdb:{tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *argv],
        capture_output=True,
        text=True,
        timeout=LIMIT_S + 50,  # A machine under load may need long for what is no waiting.
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (1, "")
    findings = json.loads(done.stdout)
    for part, expected in wrong.items():
        failed = [each for each in findings if each["part"].startswith(part) and not each["ok"]]
        failed = [each for each in failed if each["check"] == expected.check]
        assert failed, findings
        assert expected.words in failed[0]["detail"]
        assert failed[0]["fix"] == expected.fix
    assert ESCAPED not in done.stdout
    assert [each["ok"] for each in findings if each["part"] == "offline"] == [True]


def test_engines_that_take_longer_than_the_limit_are_given_up(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LIMIT_S", 0.2)
    wrong = dict(zip(("online", "cache", "commands"), silent(places), strict=True))
    urls = [word for name, each in wrong.items() for word in (f"--{name}", each.url)]
    result = CliRunner().invoke(
        main, ["doctor", "--json", *urls, "--offline", f"duckdb:{tmp_path}"]
    )
    findings = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [(each["part"], each["detail"]) for each in findings if not each["ok"]] == [
        (part, "no answer within 0.2 s") for part in wrong
    ]
