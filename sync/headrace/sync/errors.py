"""Errors of the writing side.

SyncError
├── LogUnavailable          retriable: the command log cannot be reached
├── RecordTooLarge          the command log will never take some of the records
├── StoreUnavailable        retriable: the online store cannot be reached or refuses writes
├── StoreRefused            the online store will never take one of these commands
├── CatalogMissing          retriable: no catalog was ever published
├── CommitRefused           retriable: a rebalance took the partitions before the commit
├── CacheUnavailable        retriable: a cache node cannot be reached
├── OfflineUnavailable      retriable: the offline store cannot be reached
├── StoreSchemaMismatch     a table of the online store is not of the expected shape
├── StoreSchemaDisagreement retriable: nodes of the online store differ in their schema
├── OfflineSchemaMismatch   the offline table lacks a column or has one of another type
├── RunConflict             another run of the same group is under way
├── UnknownSource           a dead letter came from a topic that is none of ours
└── StageOrderBroken        a batch would pass a stage of the writer out of order: our mistake
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from headrace.sync.ports import Coordinates


class SyncError(Exception):
    """Root of the hierarchy. `code` is stable; `retriable` says whether trying again can help."""

    code: ClassVar[str] = "SYNC_ERROR"
    retriable: ClassVar[bool] = False


class LogUnavailable(SyncError):
    code = "LOG_UNAVAILABLE"
    retriable = True


class RecordTooLarge(SyncError):
    """`places` has one entry a record, in order: None for those that are refused for their size."""

    code = "TOO_LARGE"

    def __init__(self, message: str, places: Sequence[Coordinates | None]) -> None:
        super().__init__(message)
        self.places = places


class StoreUnavailable(SyncError):
    code = "STORE_UNAVAILABLE"
    retriable = True


class StoreRefused(SyncError):
    code = "STORE_REFUSED"


class CacheUnavailable(SyncError):
    """`keys` are those that are still to be invalidated; all others of the call are done."""

    code = "CACHE_UNAVAILABLE"
    retriable = True

    def __init__(self, message: str, keys: Sequence[bytes]) -> None:
        super().__init__(message)
        self.keys = keys


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


class UnknownSource(SyncError):
    code = "UNKNOWN_SOURCE"


class StageOrderBroken(SyncError):
    code = "STAGE_ORDER_BROKEN"


class CatalogMissing(SyncError):
    code = "CATALOG_MISSING"
    retriable = True


class StoreSchemaMismatch(SyncError):
    code = "STORE_SCHEMA_MISMATCH"


class StoreSchemaDisagreement(SyncError):
    code = "STORE_SCHEMA_DISAGREEMENT"
    retriable = True
