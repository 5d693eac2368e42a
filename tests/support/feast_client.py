"""Run by Feast's own Python: asks a server through Feast's client and prints what came, as JSON.

Usage: feast_client.py FOLDER < calls.json, where the folder has a `feature_store.yaml`.

Each call names what it asks; nothing here knows who answers.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

feast: Any = importlib.import_module("feast")
feast_types: Any = importlib.import_module("feast.types")
key_proto: Any = importlib.import_module("feast.protos.feast.types.EntityKey_pb2")
value_proto: Any = importlib.import_module("feast.protos.feast.types.Value_pb2")
response_proto: Any = importlib.import_module("feast.protos.feast.serving.ServingService_pb2")


def plain(value: Any) -> object:
    """A protobuf value as [the member that is set, what it holds]."""
    kind = value.WhichOneof("val")
    if kind is None:
        return [None, None]
    held = getattr(value, kind)
    held = list(held.val) if hasattr(held, "val") else held
    return [kind, held.hex() if isinstance(held, bytes) else held]


def get_online_features(store: Any, call: dict[str, Any]) -> object:
    """What applications call."""
    features = call.get("features")
    if features is None:
        features = feast.FeatureService(name=call["feature_service"], features=[])
    response = store.get_online_features(
        features=features,
        entity_rows=call["entity_rows"],
        full_feature_names=call.get("full_feature_names", False),
        include_feature_view_version_metadata=call.get("versions", False),
    )
    status_word = response_proto.FieldStatus.Name
    metadata = response.proto.metadata
    names = list(metadata.feature_names.val)
    return {
        "names": names,
        "values": {
            name: [plain(value) for value in result.values]
            for name, result in zip(names, response.proto.results, strict=True)
        },
        "statuses": {
            name: [status_word(status) for status in result.statuses]
            for name, result in zip(names, response.proto.results, strict=True)
        },
        "versions": [[each.name, each.version] for each in metadata.feature_view_metadata],
        "dict": response.to_dict(),
    }


def online_read(store: Any, call: dict[str, Any]) -> object:
    """What Feast's own server and materialization call; types come from the declared view."""
    fields = [
        feast.Field(name=name, dtype=declared_type(kind)) for name, kind in call["schema"].items()
    ]
    entity = feast.Entity(name="driver", join_keys=["driver_id"], value_type=feast.ValueType.INT64)
    table = feast.FeatureView(
        name=call["view"],
        entities=[entity],
        schema=[feast.Field(name="driver_id", dtype=feast_types.Int64), *fields],
        source=feast.FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    keys = [
        key_proto.EntityKey(
            join_keys=["driver_id"], entity_values=[value_proto.Value(int64_val=driver_id)]
        )
        for driver_id in call["driver_ids"]
    ]
    online_store = store._get_provider().online_store
    rows = online_store.online_read(store.config, table, keys, list(call["schema"]))
    return [
        [event_time.isoformat(), {name: plain(value) for name, value in values.items()}]
        for event_time, values in rows
    ]


def declared_type(text: str) -> Any:
    """`Array(Int64)` → that type of Feast's."""
    name, _, inner = text.partition("(")
    kind = getattr(feast_types, name)
    return kind(getattr(feast_types, inner.rstrip(")"))) if inner else kind


CALLS: dict[str, Callable[[Any, dict[str, Any]], object]] = {
    "get_online_features": get_online_features,
    "online_read": online_read,
}


def outcome(store: Any, call: dict[str, Any]) -> dict[str, object]:
    """What a call returned or raised, and how long it took."""
    started = time.monotonic()
    try:
        result: dict[str, object] = {"returned": CALLS[call["call"]](store, call)}
    except Exception as error:  # noqa: BLE001 - whatever Feast raises is the result
        kind = type(error)
        result = {"raised": f"{kind.__module__}.{kind.__qualname__}", "message": str(error)}
    return {**result, "seconds": time.monotonic() - started}


def main() -> None:
    store = feast.FeatureStore(repo_path=sys.argv[1])
    calls: dict[str, dict[str, Any]] = json.load(sys.stdin)
    print(json.dumps({name: outcome(store, call) for name, call in calls.items()}))


if __name__ == "__main__":
    main()
