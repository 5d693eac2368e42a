"""Cassandra that wants a login and has grants, reached by what the URL says and nothing else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from click.testing import CliRunner
from deployment import Deployment
from guarded_servers import ESCAPED, KEYSPACE, READER, GuardedServers

from headrace.cli.doctor_online import examine_scylla
from headrace.cli.main import main
from headrace.cli.scylla import ScyllaEngine
from headrace.registry.errors import OnlineStoreUnreachable
from headrace.sync.errors import StoreUnavailable

MEND = "mend `user` and `password` of the URL of `online`"
WrongLogin = tuple[dict[str, str | None], str, str]
"""Options of the URL, words of the server, the fix."""
WRONG_LOGINS: dict[str, WrongLogin] = {
    "wrong password": ({"password": "wrong"}, "username gateway and/or password", MEND),
    "unknown user": ({"user": "nobody"}, "username nobody and/or password", MEND),
    "no login": (
        {"user": None, "password": None},
        "Authentication required",
        "give the URL of `online` a `user` and a `password`",
    ),
}


@pytest.fixture(params=WRONG_LOGINS, ids=str)
def wrong_login(request: pytest.FixtureRequest) -> WrongLogin:
    name: str = request.param
    return WRONG_LOGINS[name]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_role_of_the_url_reads_and_writes(guarded: GuardedServers, tls: bool) -> None:
    options = {"tls": "true", "ca": guarded.certificate.authority} if tls else {}
    engine = await ScyllaEngine.open(guarded.online(**options))
    await engine.sync_state().put("login", b"kept")
    assert await engine.sync_state().get("login") == b"kept"
    await engine.close()


async def test_a_wrong_login_says_what_where_and_what_to_do(
    guarded: GuardedServers, wrong_login: WrongLogin
) -> None:
    options, words, fix = wrong_login
    with pytest.raises(OnlineStoreUnreachable) as refused:
        await ScyllaEngine.open(guarded.online(**options))
    assert f"no session with 127.0.0.1:{guarded.cassandra.port}" in str(refused.value)
    assert words in refused.value.reason
    assert refused.value.fix == fix
    [finding] = await examine_scylla(guarded.online(**options))
    assert (finding.check, finding.ok, finding.fix) == ("reachable", False, fix)


def test_apply_and_roles_tell_a_wrong_login_and_none_hangs(
    guarded: GuardedServers, tmp_path: Path
) -> None:
    urls = {
        "online": guarded.online(password="wr0ng"),
        "commands": f"sqlite:{tmp_path}/commands.db",
    }
    deployment = Deployment(tmp_path, urls)
    for command in (("apply",), ("plan",), ("explain", "live::room-v1", "room_id=1")):
        status, _, err = deployment.run(*command)
        assert (status, err.count("\n")) == (1, 1), err
        assert err.startswith("error: `online`: no session with ")
        assert err.rstrip().endswith(MEND)
    try:
        for role in (("worker", "write"), ("serve",)):
            name = role[-1]
            deployment.start(name, *role)
            deployment.until_said(name, MEND)
        deployment.until(lambda: MEND in str(reasons(deployment)))
        for name in ("write", "serve"):
            assert deployment.stop(name) == 0, deployment.said(name)
            assert "Traceback" not in deployment.said(name)
            assert "wr0ng" not in deployment.said(name), "a password was told"
    finally:
        deployment.kill_all()


def reasons(deployment: Deployment) -> object:
    """What `/readyz` says; nothing before the gateway listens."""
    try:
        return deployment.request("/readyz")[1]
    except OSError:
        return None


@pytest.fixture
async def superuser(guarded: GuardedServers) -> AsyncGenerator[ScyllaEngine]:
    engine = await ScyllaEngine.open(guarded.online(user="cassandra", password="cassandra"))
    yield engine
    await engine.close()


async def test_a_process_that_waits_comes_up_once_its_role_is_made(
    guarded: GuardedServers, superuser: ScyllaEngine
) -> None:
    role = f"late_{uuid.uuid4().hex[:8]}"
    waiting = ScyllaEngine.open_when_up(guarded.online(user=role, password="new"))
    try:
        await told(waiting, "password are incorrect")
        make = f"CREATE ROLE {role} WITH PASSWORD = 'new' AND LOGIN = true"
        await superuser.session.query(make)
        await superuser.session.query(f"GRANT SELECT ON KEYSPACE {KEYSPACE} TO {role}")
        await told(waiting, "")
    finally:
        await waiting.close()


STOP_WHILE_CONNECTING = """
import asyncio, sys
from headrace.cli.logs import quiet_clients
from headrace.cli.scylla import ScyllaEngine

async def main() -> None:
    for turns in range(0, 400, 40):
        opening = asyncio.create_task(ScyllaEngine.open(sys.argv[1]))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

quiet_clients()
asyncio.run(main())
"""


@pytest.mark.parametrize("password", [ESCAPED, "wrong"], ids=["right", "wrong"])
def test_a_process_that_is_stopped_while_it_connects_ends(
    guarded: GuardedServers, password: str
) -> None:
    """In a process of its own: what hangs here is the thread, event loop and all."""
    url = guarded.online(password=password)
    argv = [sys.executable, "-c", STOP_WHILE_CONNECTING, url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def told(engine: ScyllaEngine, problem: str) -> None:
    """Wait until a state cannot be read for that reason; empty: until it can be read."""
    async with asyncio.timeout(60):
        while True:
            reason = ""
            try:
                await engine.sync_state().get("login")
            except StoreUnavailable as error:
                reason = str(error)
            if problem in reason and bool(problem) == bool(reason):
                return
            await asyncio.sleep(0.01)


async def test_doctor_names_the_grant_that_a_role_lacks(guarded: GuardedServers) -> None:
    findings = await examine_scylla(guarded.online(user=READER))
    found = {finding.check: finding for finding in findings}
    assert found["reachable"].ok
    assert found["permission"].ok is False
    assert "MODIFY" in found["permission"].detail
    assert found["permission"].fix == (
        f"GRANT SELECT, MODIFY ON KEYSPACE {KEYSPACE} TO the role of the URL"
    )


async def test_a_keyspace_that_the_role_may_not_make_is_told(guarded: GuardedServers) -> None:
    url = guarded.online().replace(f"/{KEYSPACE}?", "/elsewhere?")
    with pytest.raises(OnlineStoreUnreachable, match="no CREATE permission") as refused:
        await ScyllaEngine.open(url, create=True)
    assert refused.value.fix.startswith("GRANT it to `gateway`")


def test_doctor_over_guarded_engines_finds_every_login_well(
    guarded: GuardedServers, tmp_path: Path
) -> None:
    arguments = [
        *("--online", guarded.online(), "--cache", guarded.cache()),
        *("--commands", guarded.commands(), "--offline", f"duckdb:{tmp_path}"),
    ]
    result = CliRunner().invoke(main, ["doctor", "--json", *arguments])
    findings = json.loads(result.stdout)
    reachable = [each["part"] for each in findings if each["check"] == "reachable" and each["ok"]]
    assert reachable == ["online", f"cache 127.0.0.1:{guarded.valkey.port}", "commands"]
    assert result.stderr == "", result.stderr
