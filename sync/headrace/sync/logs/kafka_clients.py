"""Limits and endings that every aiokafka client of ours shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

CLOSE_LIMIT_MS = 2_000
REQUEST_LIMIT_MS = 5_000


async def started(
    client: Any, stop: Callable[[], Coroutine[Any, Any, object]] | None = None
) -> None:
    """Start a client; one that cannot start is stopped, or its tasks would go on."""
    try:
        await client.start()
    except BaseException:
        await stopped((stop or client.stop)())
        raise


async def stopped(stopping: Coroutine[Any, Any, object]) -> None:
    """Wait for a client to stop, within a limit and without caring how it ended.

    In a task of its own: with the broker gone, aiokafka lets the cancellation of its inner tasks
    escape from `stop`, which would look like a cancellation of ours.
    """
    task = asyncio.ensure_future(stopping)
    await asyncio.wait({task}, timeout=CLOSE_LIMIT_MS / 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def reason_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
