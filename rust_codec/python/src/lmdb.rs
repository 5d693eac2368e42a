//! `LmdbStore`: the embedded online store's handle.

use std::collections::BTreeMap;
use std::path::Path;

use headrace_codec::catalog::{Catalog as CoreCatalog, Group};
use headrace_codec::error::{Error as CoreError, Kind};
use headrace_codec::fold;
use headrace_lmdb::{Error as LmdbError, Options, ReadTransaction, Store};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::catalog::Catalog;
use crate::command::CommandBatch;
use crate::error;
use crate::record::{self, FoldedRecord};

create_exception!(
    headrace.codec._codec,
    StoreError,
    PyException,
    "The embedded store cannot do what it was asked; `code` is a stable upper-case word."
);

/// Gives the class the attribute that instances fill.
pub(crate) fn declare_attributes(py: Python<'_>) -> PyResult<()> {
    py.get_type::<StoreError>().setattr("code", "")
}

/// The embedded online store: one handle per process, shared by reader, writer and catalog.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct LmdbStore {
    /// What the read engine reads from.
    pub(crate) store: Store,
}

/// Event time in ms and value fields.
type Event<'py> = (i64, Bound<'py, PyDict>);

#[pymethods]
impl LmdbStore {
    /// Open the store in folder `path`; raises `StoreError`.
    #[new]
    #[pyo3(signature = (path, *, map_size_bytes=None, read_only=false))]
    fn new(
        py: Python<'_>,
        path: &str,
        map_size_bytes: Option<usize>,
        read_only: bool,
    ) -> PyResult<Self> {
        let default = Options::default();
        let map_size_bytes = map_size_bytes.unwrap_or(default.map_size_bytes);
        let options = Options { map_size_bytes, read_only };
        let opened = py.detach(|| Store::open(Path::new(path), options));
        Ok(Self { store: opened.map_err(|failure| raise(py, &failure))? })
    }

    /// Write a batch in one transaction; durable when this returns.
    #[pyo3(signature = (batch, catalog, *, now_ms))]
    fn apply(
        &self,
        py: Python<'_>,
        batch: &CommandBatch,
        catalog: &Catalog,
        now_ms: i64,
    ) -> PyResult<()> {
        let (batch, catalog) = (&batch.core, &catalog.core);
        py.detach(|| self.store.apply(batch.mutations(), catalog, now_ms))
            .map(drop)
            .map_err(|failure| raise(py, &failure))
    }

    /// Folded records, one per key, None where no live cell is left.
    #[pyo3(signature = (catalog, keys, *, now_ms))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts arguments by value")]
    fn fetch_object(
        &self,
        py: Python<'_>,
        catalog: &Catalog,
        keys: Vec<PyBackedBytes>,
        now_ms: i64,
    ) -> PyResult<Vec<Option<FoldedRecord>>> {
        let read = self.begin(py)?;
        keys.iter().map(|key| fold_row(py, &read, &catalog.core, key, now_ms)).collect()
    }

    /// Newest events first, one list per key: (event time in ms, value fields).
    #[pyo3(signature = (catalog, keys, *, limit, now_ms))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts arguments by value")]
    fn fetch_history<'py>(
        &self,
        py: Python<'py>,
        catalog: &Catalog,
        keys: Vec<PyBackedBytes>,
        limit: usize,
        now_ms: i64,
    ) -> PyResult<Vec<Vec<Event<'py>>>> {
        let read = self.begin(py)?;
        let mut histories = Vec::with_capacity(keys.len());
        for key in &keys {
            let group = group_of(py, &catalog.core, key)?;
            let mut events = Vec::new();
            for event in read.events(key, limit).map_err(|failure| raise(py, &failure))? {
                let event = event.map_err(|failure| raise(py, &failure))?;
                if fold::is_expired(group, event.event_time_ms, now_ms) {
                    break; // The rest are older.
                }
                events.push(record::event(py, group, event.cell)?);
            }
            histories.push(events);
        }
        Ok(histories)
    }

    /// One entry of the small named-value space that holds the catalog and sync state.
    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let value = py.detach(|| self.store.get(name)).map_err(|failure| raise(py, &failure))?;
        Ok(value.map(|value| PyBytes::new(py, &value)))
    }

    /// Put one named value, durable when this returns.
    fn put(&self, py: Python<'_>, name: &str, value: &[u8]) -> PyResult<()> {
        py.detach(|| self.store.put(name, value)).map_err(|failure| raise(py, &failure))
    }

    /// Put only while the present value is `expected` (None: absent); True when it was put.
    #[pyo3(signature = (name, expected, value))]
    fn compare_and_put(
        &self,
        py: Python<'_>,
        name: &str,
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> PyResult<bool> {
        py.detach(|| self.store.compare_and_put(name, expected, value))
            .map_err(|failure| raise(py, &failure))
    }

    /// Put several values at once, only while the present value of `name` is `expected`.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts arguments by value")]
    #[pyo3(signature = (name, expected, values))]
    fn compare_and_put_all(
        &self,
        py: Python<'_>,
        name: &str,
        expected: Option<&[u8]>,
        values: BTreeMap<String, PyBackedBytes>,
    ) -> PyResult<bool> {
        let values: Vec<(&str, &[u8])> =
            values.iter().map(|(name, value)| (&**name, &**value)).collect();
        py.detach(|| self.store.compare_and_put_all(name, expected, &values))
            .map_err(|failure| raise(py, &failure))
    }

    /// Names that begin with `prefix`, in byte order.
    fn names(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<String>> {
        self.begin(py)?.names(prefix).map_err(|failure| raise(py, &failure))
    }

    /// Distinct key bytes of a group, for tools and checks.
    fn scan_keys<'py>(&self, py: Python<'py>, group_id: u32) -> PyResult<Bound<'py, PyList>> {
        let keys = self.begin(py)?.keys(group_id).map_err(|failure| raise(py, &failure))?;
        PyList::new(py, keys.iter().map(|key| PyBytes::new(py, key)))
    }

    /// `map_size_bytes`, `used_bytes`, `entries`, `readers`, `damaged_rows`.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let now = self.store.statistics().map_err(|failure| raise(py, &failure))?;
        let named = PyDict::new(py);
        named.set_item("map_size_bytes", now.map_size_bytes)?;
        named.set_item("used_bytes", now.used_bytes)?;
        named.set_item("entries", now.entries)?;
        named.set_item("readers", now.readers)?;
        named.set_item("damaged_rows", now.damaged_rows)?;
        Ok(named)
    }

    /// Free the reader slots of processes that died; returns how many there were.
    fn clear_stale_readers(&self, py: Python<'_>) -> PyResult<usize> {
        self.store.clear_stale_readers().map_err(|failure| raise(py, &failure))
    }

    /// Wait for transactions under way and close; later calls raise `StoreError`.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.store.close());
    }
}

impl LmdbStore {
    fn begin(&self, py: Python<'_>) -> PyResult<ReadTransaction<'_>> {
        self.store.read().map_err(|failure| raise(py, &failure))
    }
}

fn fold_row(
    py: Python<'_>,
    read: &ReadTransaction<'_>,
    catalog: &CoreCatalog,
    key: &[u8],
    now_ms: i64,
) -> PyResult<Option<FoldedRecord>> {
    let group = group_of(py, catalog, key)?;
    let Some(row) = read.object_row(key).map_err(|failure| raise(py, &failure))? else {
        return Ok(None);
    };
    let folded = fold::fold(group, row.cells(), row.delete_timestamp(), now_ms);
    Ok(folded.map_err(|failure| error::decode(py, &failure))?.map(FoldedRecord::new))
}

fn group_of<'c>(py: Python<'_>, catalog: &'c CoreCatalog, key: &[u8]) -> PyResult<&'c Group> {
    let id = key.first_chunk().map(|id| u32::from_be_bytes(*id));
    let group = id.and_then(|id| catalog.group_by_id(id));
    group.map(AsRef::as_ref).ok_or_else(|| {
        let failure = CoreError::new(Kind::UnknownGroup, "the key begins with no known group id");
        error::decode(py, &failure)
    })
}

/// Bytes that cannot be read become a `DecodeError`, all else a `StoreError`.
fn raise(py: Python<'_>, failure: &LmdbError) -> PyErr {
    if let LmdbError::Corrupt(failure) = failure {
        return error::decode(py, failure);
    }
    let made = py.get_type::<StoreError>().call1((failure.to_string(),)).and_then(|instance| {
        instance.setattr("code", failure.code())?;
        Ok(instance)
    });
    made.map_or_else(|failure| failure, PyErr::from_value)
}
