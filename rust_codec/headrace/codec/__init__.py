"""Bytes of the feature store: the Rust codec's public names.

`Catalog` is the compiled registry; every other verb takes it or comes from it. See
`rust_codec/core/src/format.rs` for the byte format, documented there and nowhere else.
"""

from headrace.codec._codec import (
    FORMAT_VERSION,
    CachedReads,
    Catalog,
    CodecError,
    CommandBatch,
    DecodeError,
    EncodeError,
    FoldedRecord,
    LmdbStore,
    Mutation,
    PendingRead,
    Placement,
    ReadEngine,
    Rejection,
    SchemaError,
    StaleCatalog,
    StoreError,
    encode_columns,
    encode_commands,
    partition_key,
)

__all__ = [
    "FORMAT_VERSION",
    "CachedReads",
    "Catalog",
    "CodecError",
    "CommandBatch",
    "DecodeError",
    "EncodeError",
    "FoldedRecord",
    "LmdbStore",
    "Mutation",
    "PendingRead",
    "Placement",
    "ReadEngine",
    "Rejection",
    "SchemaError",
    "StaleCatalog",
    "StoreError",
    "encode_columns",
    "encode_commands",
    "partition_key",
]
