"""The checks of each cache node."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, MovedError, RedisError, ResponseError

from headrace.cli.doctor_finding import Finding, clock_finding, judged
from headrace.registry.cache_url import CacheNode, CacheUrl
from headrace.sync.clock import wall_clock_ms

LIMIT_S: Final = 2.0
PROBE: Final = "headrace:doctor"
PROBE_SLOTS_MAX: Final = 1_000
READING_SCRIPT: Final = "return redis.call('GET', KEYS[1])"
DELETING_SCRIPT: Final = "return redis.call('DEL', KEYS[1])"


async def examine_cache(url: CacheUrl) -> list[Finding]:
    """All nodes at once; their findings node by node."""
    found = await asyncio.gather(*(_examine(url, node) for node in url.nodes))
    return [finding for node in found for finding in node]


async def _examine(url: CacheUrl, node: CacheNode) -> list[Finding]:
    part = f"cache {node.name}"
    client: Any = Redis(
        host=node.host,
        port=node.port,
        db=url.database,
        username=url.user,
        password=url.password,
        ssl=url.tls,
        ssl_ca_certs=url.ca,
        protocol=url.resp,
        socket_timeout=LIMIT_S,
        socket_connect_timeout=LIMIT_S,
        # Who asks what is wrong is not to wait for ten attempts.
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    findings: list[Finding] = []
    try:
        async for finding in _checks(client, part, clustered=url.cluster):
            findings.append(finding)  # noqa: PERF401 - those before a failure count
    except (RedisError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        fix = _next_step(error)
        findings.append(Finding(part=part, check="reachable", ok=False, detail=reason, fix=fix))
    finally:
        await client.aclose()
    return findings


def _next_step(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return "mend the user and the password in the URL of `cache`"
    if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
        return "mend `tls` and `ca` in the URL of `cache`"
    return "start the node, or mend the URL of `cache`"


async def _checks(client: Any, part: str, *, clustered: bool) -> AsyncIterator[Finding]:
    await client.ping()
    yield Finding(part=part, check="reachable", ok=True, detail="it answers")
    if clustered:
        state = _cluster_state(await client.execute_command("CLUSTER", "INFO"))
        fix = "look at `CLUSTER INFO` and `CLUSTER NODES` of this node: some slots have no owner"
        yield judged(part, "cluster", f"cluster_state:{state}", ok=state == "ok", fix=fix)
    about = await client.info()
    name = "Valkey" if "valkey_version" in about else "Redis"
    version = about.get("valkey_version") or about["redis_version"]
    yield Finding(part=part, check="version", ok=True, detail=f"{name} {version}")
    asked_ms = wall_clock_ms()
    seconds, microseconds = await client.time()
    server_ms = int(seconds) * 1000 + int(microseconds) // 1000
    yield clock_finding(part, server_ms, asked_ms=asked_ms, answered_ms=wall_clock_ms())
    yield await _permission(client, part)
    yield await _persistence(client, part, about)
    policy = about["maxmemory_policy"]
    yield judged(
        part,
        "eviction",
        f"maxmemory {about['maxmemory']} bytes, {policy}",
        ok=about["maxmemory"] > 0 and policy != "noeviction",
        fix="set `maxmemory` below the node's RAM and `maxmemory-policy allkeys-lru`",
    )


async def _permission(client: Any, part: str) -> Finding:
    """Every command that gateways and writers send, on a key that expires if one is refused."""
    try:
        probe = await _set_probe(client)
        read = [
            await client.get(probe),
            *await client.mget([probe]),
            await client.eval(READING_SCRIPT, 1, probe),
        ]
        await client.evalsha(await client.script_load(DELETING_SCRIPT), 1, probe)
    except ResponseError as error:
        fix = "let the user of the URL run GET, MGET, SET, DEL, EVAL, EVALSHA and SCRIPT LOAD"
        return Finding(part=part, check="permission", ok=False, detail=str(error), fix=fix)
    detail = "a key was set, read and deleted"
    ok = read == ["probe"] * len(read)
    return judged(part, "permission", detail, ok=ok, fix="look at the memory of the node")


async def _set_probe(client: Any) -> str:
    """Set a key, in a cluster one of this node's own slots; its name."""
    for number in range(PROBE_SLOTS_MAX):
        probe = f"{PROBE}:{{{number}}}"
        with contextlib.suppress(MovedError):
            await client.set(probe, "probe", px=10_000)
            return probe
    raise ResponseError("this node of the cluster has none of the slots that were tried")


def _cluster_state(about: Any) -> str:
    """From CLUSTER INFO, lines of `name:value`."""
    text: str = about.decode() if isinstance(about, bytes) else str(about)
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return lines.get("cluster_state", "unknown")


async def _persistence(client: Any, part: str, about: dict[str, Any]) -> Finding:
    """Off (semantics 19): a restarted node must not bring old blocks back."""
    fix = 'set `save ""` and `appendonly no`: a node that restarts must come back empty'
    if about.get("aof_enabled"):
        return Finding(part=part, check="persistence", ok=False, detail="appendonly is on", fix=fix)
    with contextlib.suppress(ResponseError):
        save = (await client.config_get("save"))["save"]
        detail = f"snapshots on `{save}`" if save else "off"
        return judged(part, "persistence", detail, ok=not save, fix=fix)
    detail = "CONFIG is refused here; see to it that `save` is empty"
    return Finding(part=part, check="persistence", ok=None, detail=detail)
