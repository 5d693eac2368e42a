"""`GET /v1/explain`: one key looked up step by step, with the reason for what a read would say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter_ns

from headrace.codec import Catalog, CodecError
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.errors import BadKey, MissingParameter, UnknownName, UnknownParameter
from headrace.gateway.explain_tiers import tier_shapes
from headrace.gateway.ports import Clock, HeldBlock, Inspection, RowInspector, TierInspector
from headrace.gateway.wire import ExplanationShape, StageShape, fingerprint_text
from headrace.registry.catalog import Group
from headrace.registry.names import nearest

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})").fullmatch

SINGLE_OBJECT_FINGERPRINT = slice(2, 10)
"""Where the little-endian fingerprint stands in Avro single-object bytes, after `C3 01`."""


class Explainer:
    """Answers why a key reads as it does, from the tiers of this gateway."""

    def __init__(
        self,
        in_force: CatalogInForce,
        inspector: RowInspector | None,
        clock: Clock,
        tiers: TierInspector | None = None,
    ) -> None:
        self._tiers = tiers
        self._in_force = in_force
        self._inspector = inspector
        self._clock = clock

    async def explain(self, name: str, parameters: Mapping[str, str]) -> ExplanationShape:
        """Raises `UnknownName`, `BadParameter` and `StoreUnavailable`."""
        watch = StopWatch()
        catalog, group = self._in_force.catalog, known_group(self._in_force, name)
        keys = read_keys(group, parameters)
        key = encode_key(catalog, group, keys)
        watch.lap("key")
        held: list[HeldBlock] = []
        if self._tiers is not None:
            held = await self._tiers.look(key)
            watch.lap("tiers before the store")
        now_ms = self._clock()
        found = Inspection()
        tier = "none"
        if self._inspector is not None:
            tier = self._inspector.tier
            found = await self._inspector.inspect(
                catalog, group, key, events_max=group.max_events, now_ms=now_ms
            )
        watch.lap(tier)
        verdict = judge(group, found, now_ms)
        watch.lap("decision")
        newest, oldest = _event_times(found)
        return ExplanationShape(
            generation=catalog.generation,
            feature_group=name,
            feature_type=group.feature_type,
            keys=keys,
            key_bytes=key.hex(),
            tier=tier,
            decision=verdict[0],
            reason=verdict[1],
            newest_event_time_ms=newest,
            oldest_event_time_ms=oldest,
            age_ms=None if newest is None else now_ms - newest,
            expires_at_ms=_expiry(group, oldest),
            fingerprint=fingerprint_text(_fingerprint(catalog, group, found)),
            schema_ordinal=group.schemas[-1].ordinal,
            defaulted=_defaulted(found),
            events=len(found.event_times_ms) if group.feature_type == "History" else None,
            tiers=tier_shapes(catalog, group, keys, held, found.cells, now_ms),
            stages=tuple(watch.laps),
        )


class StopWatch:
    """Times of consecutive stages."""

    def __init__(self) -> None:
        self.laps: list[StageShape] = []
        self._last = perf_counter_ns()

    def lap(self, stage: str) -> None:
        now = perf_counter_ns()
        self.laps.append(StageShape(stage=stage, microseconds=(now - self._last) / 1_000))
        self._last = now


def known_group(in_force: CatalogInForce, name: str) -> Group:
    """Raises `UnknownName` with the nearest name the catalog has."""
    in_force.document  # noqa: B018 - raises when there is none
    group = in_force.group(name)
    if group is None:
        close = nearest(name, in_force.group_names())
        raise UnknownName(
            f"no feature group `{name}`" + (f"; the nearest is `{close}`" if close else ""),
            code="UNKNOWN_GROUP",
            nearest=close,
        )
    return group


def read_keys(group: Group, parameters: Mapping[str, str]) -> dict[str, int | str]:
    """One value per key field from query parameters; whole numbers for Integer and Long."""
    wanted = [key.name for key in group.keys]
    for name in wanted:
        if name not in parameters:
            raise MissingParameter(
                f"expected one query parameter per key field of `{group.name}` "
                f"({', '.join(f'`{key}`' for key in wanted)}), and `{name}` is missing",
                parameter=name,
            )
    for name in parameters:
        if name not in wanted:
            raise UnknownParameter(
                f"`{name[:80]}` is not a key field of `{group.name}`",
                parameter=name[:80],
                nearest=nearest(name, wanted),
            )
    keys: dict[str, int | str] = {}
    for key in group.keys:
        text = parameters[key.name]
        if key.type == "Text":
            keys[key.name] = text
        elif _INTEGER(text):
            keys[key.name] = int(text)
        else:
            raise BadKey(f"`{key.name}` is {key.type}: expected a whole number", parameter=key.name)
    return keys


def encode_key(catalog: Catalog, group: Group, keys: Mapping[str, int | str]) -> bytes:
    """Key bytes (semantics 8); raises `BadKey`."""
    try:
        return catalog.encode_key(group.name, keys)
    except CodecError as error:
        raise BadKey(str(error), parameter=error.path or None) from None
    except UnicodeEncodeError as error:
        raise BadKey(str(error)) from None


def judge(group: Group, found: Inspection, now_ms: int) -> tuple[str, str]:
    """The status a read would give the row and one sentence why (semantics 11)."""
    newest, _ = _event_times(found)
    if newest is None:
        if group.ttl_ms is None:
            return "MISSING", "no live cell of this key is in the store"
        return "MISSING", "no live cell of this key: never written, deleted or past its ttl"
    age_ms = now_ms - newest
    if group.max_age_ms is not None and age_ms > group.max_age_ms:
        return "STALE", f"the newest event is {age_ms} ms old, past max_age {group.max_age_ms} ms"
    defaulted = _defaulted(found)
    if defaulted:
        return "DEFAULTED", f"{len(defaulted)} value fields were never written or have expired"
    return "OK", "every value field is written and live"


def _event_times(found: Inspection) -> tuple[int | None, int | None]:
    if found.record is not None:
        return found.record.newest_event_time_ms, found.record.oldest_event_time_ms
    if found.event_times_ms:
        return max(found.event_times_ms), min(found.event_times_ms)
    return None, None


def _expiry(group: Group, oldest_ms: int | None) -> int | None:
    return None if oldest_ms is None or group.ttl_ms is None else oldest_ms + group.ttl_ms


def _defaulted(found: Inspection) -> tuple[str, ...]:
    if found.record is None:
        return ()
    return tuple(name for name, written in found.record.written.items() if not written)


def _fingerprint(catalog: Catalog, group: Group, found: Inspection) -> int:
    if found.record is None:
        return catalog.fingerprint(group.name)
    return int.from_bytes(found.record.avro[SINGLE_OBJECT_FINGERPRINT], "little")
