//! `ReadEngine`: one call from request bytes to response bytes.

use std::collections::BTreeMap;

use headrace_codec::read::coding::Coding;
use headrace_codec::read::engine::{Engine, ReadCall};
use headrace_codec::read::plan::Accept;
use headrace_codec::read::problem::Code;
use headrace_codec::read::{Limits, envelope};
use headrace_lmdb::row_error;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::catalog::Catalog;
use crate::lmdb::LmdbStore;

create_exception!(
    headrace.codec._codec,
    StaleCatalog,
    PyException,
    "A stored row was written under a newer catalog: load it once and read again (semantics 20)."
);

/// Answers read requests under the catalog in force.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct ReadEngine {
    /// Boxed: Python's allocator aligns objects to 16 bytes only, and the engine holds vector
    /// registers' worth of search tables that want 32.
    pub(crate) engine: Box<Engine>,
}

const _: () = assert!(align_of::<ReadEngine>() <= 16, "Python allocates at most 16-aligned");

#[pymethods]
impl ReadEngine {
    /// An engine without a catalog; it answers 503 until one is installed.
    #[new]
    #[pyo3(signature = (*, keys_max=1000, reads_max=64, rows_max=4000))]
    fn new(keys_max: usize, reads_max: usize, rows_max: usize) -> Self {
        Self { engine: Box::new(Engine::new(Limits { keys_max, reads_max, rows_max })) }
    }

    /// Put a catalog into force for every request that starts from now on.
    fn install(&self, catalog: &Catalog) {
        self.engine.install(std::sync::Arc::clone(&catalog.core));
    }

    /// Generation of the catalog in force, 0 without one.
    #[getter]
    fn generation(&self) -> u64 {
        self.engine.generation()
    }

    /// The whole HTTP/1.1 response to a request body; raises `StaleCatalog`.
    #[pyo3(signature = (store, body, *, accept, now_ms, request_id, keep_alive, reloaded=false))]
    #[expect(clippy::too_many_arguments, reason = "one call a request, keyword-only in Python")]
    fn read<'py>(
        &self,
        py: Python<'py>,
        store: &LmdbStore,
        body: &[u8],
        accept: u8,
        now_ms: i64,
        request_id: &[u8],
        keep_alive: bool,
        reloaded: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (accept, coding) = form_of(accept)?;
        let call = ReadCall { body, accept, coding, now_ms, request_id, keep_alive, reloaded };
        let open = || store.store.read().map_err(|error| row_error(&error));
        self.engine
            .read(&call, open, |response| PyBytes::new(py, response))
            .map_err(|_| StaleCatalog::new_err("a stored row was written under a newer catalog"))
    }

    /// Totals since start, by name.
    fn counters(&self) -> BTreeMap<String, u64> {
        self.engine.counters().snapshot().into_iter().collect()
    }

    /// Every problem of a read: its word, its HTTP status and when it is answered.
    #[staticmethod]
    fn problems() -> Vec<(&'static str, u16, &'static str)> {
        Code::ALL.iter().map(|code| (code.word(), code.status(), code.meaning())).collect()
    }

    /// The Avro schema (JSON text) of an Avro answer.
    #[staticmethod]
    const fn envelope_schema() -> &'static str {
        envelope::SCHEMA
    }
}

/// Bits of `accept` that say which answer; those above say how it is coded.
const ACCEPT_BITS: u8 = 0x0F;

pub(crate) fn form_of(accept: u8) -> PyResult<(Accept, Coding)> {
    let coding = match accept & !ACCEPT_BITS {
        0 => Coding::Identity,
        0x10 => Coding::Gzip,
        0x20 => Coding::Zstd,
        _ => {
            return Err(PyValueError::new_err(
                "`accept` is coded by adding 16 (gzip) or 32 (zstd)",
            ));
        }
    };
    let accept = match accept & ACCEPT_BITS {
        0 => Accept::Json,
        1 => Accept::Avro,
        2 => Accept::Feast,
        3 => Accept::Arrow,
        _ => {
            let message = "`accept` is 0 for JSON, 1 Avro, 2 Feast or 3 Arrow";
            return Err(PyValueError::new_err(message));
        }
    };
    Ok((accept, coding))
}
