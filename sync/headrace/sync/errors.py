"""Errors of the writing side.

SyncError
├── LogUnavailable          retriable: the command log cannot be reached
├── StoreUnavailable        retriable: the online store cannot be reached or refuses writes
├── CommitRefused           retriable: a rebalance took the partitions before the commit
├── CacheUnavailable        retriable: a cache node cannot be reached
├── OfflineUnavailable      retriable: the offline store cannot be reached
├── OfflineSchemaMismatch   the offline table lacks a column or has one of another type
└── RunConflict             another run of the same group is under way
"""

from __future__ import annotations

from typing import ClassVar


class SyncError(Exception):
    """Root of the hierarchy. `code` is stable; `retriable` says whether trying again can help."""

    code: ClassVar[str] = "SYNC_ERROR"
    retriable: ClassVar[bool] = False


class LogUnavailable(SyncError):
    code = "LOG_UNAVAILABLE"
    retriable = True


class StoreUnavailable(SyncError):
    code = "STORE_UNAVAILABLE"
    retriable = True


class CacheUnavailable(SyncError):
    code = "CACHE_UNAVAILABLE"
    retriable = True


class OfflineUnavailable(SyncError):
    code = "OFFLINE_UNAVAILABLE"
    retriable = True


class OfflineSchemaMismatch(SyncError):
    code = "OFFLINE_SCHEMA_MISMATCH"


class RunConflict(SyncError):
    code = "RUN_CONFLICT"


class CommitRefused(SyncError):
    code = "COMMIT_REFUSED"
    retriable = True
