"""The checks of a ScyllaDB (or Cassandra) keyspace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from acsylla.errors import CassException

from headrace.cli.doctor_finding import Finding, clock_finding, judged
from headrace.cli.scylla import ScyllaEngine
from headrace.registry.cql import GC_GRACE_S, columns, delete_state
from headrace.registry.errors import OnlineStoreMissing, OnlineStoreUnreachable, RegistryError
from headrace.registry.physical import table_name
from headrace.sync.clock import wall_clock_ms
from headrace.sync.errors import SyncError
from headrace.sync.stores.scylla import Statements
from headrace.sync.stores.scylla_schema import SchemaVersions

if TYPE_CHECKING:
    from headrace.registry.catalog import CatalogDocument, Group

PART: Final = "online"
PROBE: Final = "doctor/probe"
AGREEMENT_LOOKS: Final = 5


async def examine_scylla(url: str) -> list[Finding]:
    """Every check that could be made; the first one is whether it is there at all."""
    try:
        engine = await ScyllaEngine.open(url)
    except OnlineStoreMissing as error:
        return [_failed("reachable", str(error), "run `headrace apply`")]
    except OnlineStoreUnreachable as error:
        return [_failed("reachable", error.reason, error.fix)]
    findings: list[Finding] = []
    try:
        async for finding in _checks(engine):
            findings.append(finding)  # noqa: PERF401 - those before a failure count
    except (CassException, SyncError, RegistryError) as error:
        reason = str(error) or type(error).__name__
        findings.append(_failed("reachable", f"it stopped answering: {reason}", "look at its log"))
    finally:
        await engine.close()
    return findings


async def _checks(engine: ScyllaEngine) -> AsyncIterator[Finding]:
    url = engine.url
    yield Finding(part=PART, check="reachable", ok=True, detail=f"{','.join(url.hosts)}:{url.port}")
    version = await _one(engine, "SELECT release_version FROM system.local")
    yield Finding(part=PART, check="version", ok=True, detail=str(version))
    asked_ms = wall_clock_ms()
    server_ms = int(await _one(engine, "SELECT toUnixTimestamp(now()) AS at FROM system.local"))
    yield clock_finding(PART, server_ms, asked_ms=asked_ms, answered_ms=wall_clock_ms())
    yield await schema_agreement(Statements(engine.session))
    yield await _permission(engine)
    document = await _document(engine)
    if document is None:
        yield _failed("catalog", "no catalog was ever published", "run `headrace apply`")
        return
    detail = f"generation {document.generation}, {len(document.groups)} feature groups"
    yield Finding(part=PART, check="catalog", ok=True, detail=detail)
    for group in document.groups:
        yield await _table(engine, group)


async def schema_agreement(statements: Statements) -> Finding:
    """Whether every node has the same schema."""
    seen = SchemaVersions(statements)
    for _ in range(AGREEMENT_LOOKS):
        await seen.look()
        if seen.complete:
            break
    fix = "wait until all nodes are up; `nodetool describecluster` names those that differ"
    return judged(PART, "schema", str(seen), ok=seen.agreed, fix=fix)


async def _permission(engine: ScyllaEngine) -> Finding:
    """Write, read and delete a row of the sync state, as workers do."""
    state, run = engine.sync_state(), Statements(engine.session).run
    keyspace = engine.url.keyspace
    try:
        await state.put(PROBE, b"probe")
        ok = await state.get(PROBE) == b"probe"
        await run(delete_state(keyspace), [PROBE])
    except (SyncError, CassException) as error:
        fix = f"GRANT SELECT, MODIFY ON KEYSPACE {keyspace} TO the role of the URL"
        return _failed("permission", str(error) or type(error).__name__, fix)
    detail = "a row was written, read and deleted at LOCAL_QUORUM"
    fix = "what was written was not read back: look at the health of the replicas"
    return judged(PART, "permission", detail, ok=ok, fix=fix)


async def _document(engine: ScyllaEngine) -> CatalogDocument | None:
    from headrace.registry.watch import compile_document

    text = await engine.catalog_reader().load()
    return None if text is None else compile_document(text)[1]


async def _table(engine: ScyllaEngine, group: Group) -> Finding:
    """Columns as `apply` makes them, and markers that outlive a replay (semantics 4)."""
    keyspace, table = engine.url.keyspace, table_name(group.name)
    run = Statements(engine.session).run
    found = await run(
        "SELECT column_name, type FROM system_schema.columns "
        "WHERE keyspace_name = ? AND table_name = ?",
        [keyspace, table],
    )
    present = dict(row.as_tuple() for row in found.all())
    if present != columns(group):
        fix = f"run `headrace apply`; if it refuses, rename or drop `{keyspace}.{table}`"
        detail = f"`{table}` has columns {present or 'none'}, expected {columns(group)}"
        return _failed("table", detail, fix)
    made = await run(
        "SELECT gc_grace_seconds FROM system_schema.tables "
        "WHERE keyspace_name = ? AND table_name = ?",
        [keyspace, table],
    )
    grace_s = made.first().column_value("gc_grace_seconds")
    fix = f"ALTER TABLE {keyspace}.{table} WITH gc_grace_seconds = {GC_GRACE_S}"
    detail = f"`{table}`, gc_grace_seconds {grace_s}"
    return judged(PART, "table", detail, ok=int(grace_s) >= GC_GRACE_S, fix=fix)


async def _one(engine: ScyllaEngine, text: str) -> Any:
    return (await engine.session.query(text)).first().column_value_by_index(0)


def _failed(check: str, detail: str, fix: str) -> Finding:
    return Finding(part=PART, check=check, ok=False, detail=detail, fix=fix)
