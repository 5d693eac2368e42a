//! The thin Python binding: no logic, no arithmetic. `_codec.pyi` is its contract.

mod cached;
mod catalog;
mod columns;
mod command;
mod edge;
mod error;
mod lane;
mod lmdb;
mod pace;
mod placement;
mod read;
mod record;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder panicked is taken all the same: what it guards is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The extension module `headrace.codec._codec`.
#[pyo3::pymodule]
mod _codec {
    #[pymodule_export]
    use crate::cached::{CachedReads, PendingRead};
    #[pymodule_export]
    use crate::catalog::Catalog;
    #[pymodule_export]
    use crate::columns::encode_columns;
    #[pymodule_export]
    use crate::command::{CommandBatch, Mutation, Rejection, encode_commands, partition_key};
    #[pymodule_export]
    use crate::edge::{ReadTimes, RequestIds, SystemClock};
    #[pymodule_export]
    use crate::error::{CodecError, DecodeError, EncodeError, SchemaError};
    #[pymodule_export]
    use crate::lane::{LaneConnection, LaneTurn, ReadLane};
    #[pymodule_export]
    use crate::lmdb::{LmdbStore, StoreError};
    #[pymodule_export]
    use crate::pace::Pace;
    #[pymodule_export]
    use crate::placement::Placement;
    #[pymodule_export]
    use crate::read::{ReadEngine, StaleCatalog};
    #[pymodule_export]
    use crate::record::FoldedRecord;

    #[pymodule_export]
    const FORMAT_VERSION: u32 = headrace_codec::format::FORMAT_VERSION;
    #[pymodule_export]
    const KEY_BYTES_MAX: usize = headrace_codec::format::KEY_BYTES_MAX;
    #[pymodule_export]
    const DEADLINE_MAX_MS: i64 = headrace_codec::read::request::DEADLINE_MAX_MS;

    #[pymodule_init]
    fn finish(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        crate::error::declare_attributes(module.py())?;
        crate::lmdb::declare_attributes(module.py())
    }
}
