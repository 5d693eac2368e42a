"""Rows of the offline store as bulk commands: encoded column by column, with no object a value."""

from __future__ import annotations

from typing import cast

import pyarrow as pa

from headrace.codec import Catalog, EncodeError, encode_columns
from headrace.registry.catalog import Group
from headrace.sync.errors import OfflineSchemaMismatch
from headrace.sync.offline.types import EVENT_TIME, Rows
from headrace.sync.upsync import Encode


def command_encoder(catalog: Catalog) -> Encode:
    """Encode under one generation: (partition key, command bytes), one a row and in their order.

    Rows of an Object become UPDATEs that name every field, rows of a History APPENDs. What it
    returns raises `OfflineSchemaMismatch` for a row that no command can hold, such as a NaN.
    """

    def encode(group: Group, rows: Rows) -> list[tuple[bytes, bytes]]:
        try:
            return encode_columns(
                catalog,
                group.name,
                _stream(rows),
                method="APPEND" if group.feature_type == "History" else "UPDATE",
                event_time_column=EVENT_TIME,
            )
        except EncodeError as error:
            column, _, row = error.path.partition(".")
            place = f" (column `{column}`, row {row} of this chunk)" if row else ""
            raise OfflineSchemaMismatch(
                f"`{group.name}` cannot be sent: {error}{place}; mend it in the SQL that makes it"
            ) from error

    return encode


def _stream(rows: Rows) -> bytes:
    """The rows as an Arrow IPC stream."""
    table = cast("pa.Table", rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
