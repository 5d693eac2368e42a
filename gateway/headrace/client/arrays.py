"""Results as numpy arrays and Arrow tables; both libraries are optional, and imported on use."""

# pyarrow has no types.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace.client.answers import Result, Status, Unusable
from headrace.client.errors import MalformedAnswer, UnusableValue

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_NULL = type(None)
_INTEGERS = {int, bool}
_FLOATS = {int, bool, float, _NULL}


def matrix(
    result: Result, fields: Sequence[str], dtype: str, unusable: Unusable
) -> np.ndarray[Any, Any]:
    """Numbers of an Object, (rows, fields); a single list field gives (rows, its length)."""
    import numpy as np

    if result.is_history:
        raise TypeError(f"`{result.name}` is a History, whose rows differ in length; use `events`")
    columns = [result.column(field, unusable=unusable) for field in fields]
    if len(columns) == 1 and any(isinstance(value, list) for value in columns[0]):
        return _vectors(result, fields[0], columns[0], dtype)
    numbers = _FLOATS if dtype.startswith("float") else _INTEGERS
    strange = {type(value) for column in columns for value in column} - numbers
    if strange:
        kinds = ", ".join(sorted("null" if kind is _NULL else kind.__name__ for kind in strange))
        raise TypeError(
            f"`{result.name}`: {', '.join(f'`{name}`' for name in fields)} hold {kinds}, which is "
            f"not {dtype}; name the fields that fit"
        )
    return np.ascontiguousarray(np.array(columns, dtype=dtype).T)


def table(body: bytes, unusable: Unusable) -> pa.Table:
    """The table of an Arrow answer, over the answer's own bytes."""
    import pyarrow as pa

    try:
        made = pa.ipc.open_stream(body).read_all()
    except pa.ArrowException as error:
        raise MalformedAnswer(f"the answer is no Arrow stream: {error}") from None
    if unusable == "raise":
        _check_usable(made)
    return made


def _check_usable(made: pa.Table) -> None:
    for name in made.column_names:
        if name != "_status" and not name.endswith("._status"):
            continue
        words = set(made.column(name).unique().to_pylist())
        bad = sorted(words & {status.value for status in Status if not status.usable})
        if bad:
            raise UnusableValue(
                f"rows are {' and '.join(bad)} in column `{name}`; pass "
                '`unusable="null"` to have null there'
            )


def _vectors(result: Result, field: str, rows: list[Any], dtype: str) -> np.ndarray[Any, Any]:
    import numpy as np

    lengths = {len(row) for row in rows if row is not None}
    if len(lengths) != 1:
        raise TypeError(
            f"`{result.name}`: lists of `{field}` differ in length ({sorted(lengths)}); take "
            f'`column("{field}")`'
        )
    empty = [None] * lengths.pop()
    return np.array([empty if row is None else row for row in rows], dtype=dtype)
