"""Run by Feast's own Python: make its repository and write the rows into Redis in its own layout.

    python -m headrace.loadtest.peers.programs.feast_repo SETTINGS

The settings are a JSON file: the folder of the repository, `host:port` of Redis, and for each view
its name, its fields with their types, and a file of rows, one JSON object a line.
"""

from __future__ import annotations

import importlib
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

STORE = """\
project: peers
provider: local
registry: {{path: {folder}/registry.db, cache_ttl_seconds: 86400}}
online_store: {{type: redis, connection_string: "{redis}", skip_dedup: true}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
TYPES = {"Long": "Int64", "Double": "Float64", "Text": "String", "Boolean": "Bool"}
CHUNK_ROWS = 2_000


def main() -> None:
    """Declare the views, then write the rows of each."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    feast: Any = importlib.import_module("feast")
    folder = Path(settings["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    text = STORE.format(folder=folder, redis=settings["redis"])
    (folder / "feature_store.yaml").write_text(text)
    store = feast.FeatureStore(repo_path=str(folder))
    user = feast.Entity(name="user", join_keys=["user_id"], value_type=feast.ValueType.INT64)
    store.apply([user, *(declared(feast, user, folder, view) for view in settings["views"])])
    for view in settings["views"]:
        write_rows(store, view["name"], Path(view["rows"]))


def declared(feast: Any, user: Any, folder: Path, view: dict[str, Any]) -> Any:
    """One view without expiry."""
    types: Any = importlib.import_module("feast.types")
    schema = [
        feast.Field(name=name, dtype=getattr(types, TYPES[kind]))
        for name, kind in view["fields"].items()
    ]
    source = feast.FileSource(
        path=str(folder / f"{view['name']}.parquet"), timestamp_field="event_timestamp"
    )
    return feast.FeatureView(
        name=view["name"],
        entities=[user],
        schema=schema,
        source=source,
        ttl=timedelta(0),
        online=True,
    )


def write_rows(store: Any, view: str, rows: Path) -> None:
    """Through the call that Feast's own push server makes."""
    pandas: Any = importlib.import_module("pandas")
    lines = rows.read_text().splitlines()
    for start in range(0, len(lines), CHUNK_ROWS):
        frame = pandas.DataFrame([json.loads(line) for line in lines[start : start + CHUNK_ROWS]])
        frame["event_timestamp"] = pandas.to_datetime(
            frame.pop("event_time_ms"), unit="ms", utc=True
        )
        store.write_to_online_store(view, df=frame)


if __name__ == "__main__":
    main()
