//! `CachedReads` and `PendingRead`: reads through cache nodes, and what they leave to the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_codec::read::cached::{Answer, CachedReads as CoreReads, Done};
use headrace_codec::read::engine::ReadCall;
use headrace_codec::read::pending::Pending;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods, PyList};

use crate::placement::Placement;
use crate::read::{ReadEngine, StaleCatalog, form_of};

/// Requests that wait for cache nodes.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct CachedReads {
    engine: Py<ReadEngine>,
    inner: Mutex<CoreReads>,
}

#[pymethods]
impl CachedReads {
    /// No connection is there yet: until `node_up` every request goes to the store.
    #[new]
    #[pyo3(signature = (engine, placement, *, local_bytes_max=0))]
    fn new(engine: Py<ReadEngine>, placement: &Placement, local_bytes_max: usize) -> Self {
        let reads = CoreReads::new(placement.inner.clone(), local_bytes_max);
        Self { engine, inner: Mutex::new(reads) }
    }

    /// A new connection to a node is ready.
    fn node_up(&self, node: usize) {
        lock(&self.inner).node_up(node);
    }

    /// Replies that came from a node since it was up, and those that it still owes.
    fn progress(&self, node: usize) -> (u64, usize) {
        lock(&self.inner).progress(node)
    }

    /// Start a request: its response when it is wrong, a `PendingRead` when no cache node can say
    /// anything, None when `feed` will bring the rest under `token`.
    #[pyo3(signature = (body, *, token, accept, now_ms, request_id, keep_alive, reloaded=false))]
    #[expect(clippy::too_many_arguments, reason = "one call a request, keyword-only in Python")]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        body: &[u8],
        token: u64,
        accept: u8,
        now_ms: i64,
        request_id: &[u8],
        keep_alive: bool,
        reloaded: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (accept, coding) = form_of(accept)?;
        let call = ReadCall { body, accept, coding, now_ms, request_id, keep_alive, reloaded };
        let engine = &self.engine.get().engine;
        let mut bytes = |response: &[u8]| PyBytes::new(py, response);
        let done = lock(&self.inner).submit(engine, &call, token, &mut bytes);
        done.map(|done| self.value(py, done).map(|(_, value)| value)).transpose()
    }

    /// Queue a command of the caller's own, such as a script; False when the node is down.
    fn command(&self, node: usize, arguments: &Bound<'_, PyList>, token: u64) -> PyResult<bool> {
        let arguments: Vec<Bound<'_, PyBytes>> = arguments
            .iter()
            .map(|each| Ok(each.cast_into::<PyBytes>()?))
            .collect::<PyResult<_>>()?;
        let parts: Vec<&[u8]> = arguments.iter().map(PyBytesMethods::as_bytes).collect();
        Ok(lock(&self.inner).command(node, &parts, token))
    }

    /// The bytes to send to a node now, None when there is nothing to say.
    fn take<'py>(&self, py: Python<'py>, node: usize) -> Option<Bound<'py, PyBytes>> {
        lock(&self.inner).take(node, |bytes| PyBytes::new(py, bytes))
    }

    /// Take bytes from a node: (what they finish, why the connection must end or None).
    #[pyo3(signature = (node, received, *, now_ms))]
    fn feed<'py>(
        &self,
        py: Python<'py>,
        node: usize,
        received: &[u8],
        now_ms: i64,
    ) -> PyResult<(Bound<'py, PyList>, Option<String>)> {
        let engine = &self.engine.get().engine;
        let mut done = Vec::new();
        let mut bytes = |response: &[u8]| PyBytes::new(py, response);
        let fed = lock(&self.inner).feed(engine, node, received, now_ms, &mut bytes, &mut done);
        Ok((self.list(py, done)?, fed.err().map(|error| error.to_string())))
    }

    /// The connection to a node ended: whatever waited for it.
    fn drop_node<'py>(&self, py: Python<'py>, node: usize) -> PyResult<Bound<'py, PyList>> {
        let mut done: Vec<Done<Bound<'py, PyBytes>>> = Vec::new();
        lock(&self.inner).drop_node(node, &mut done);
        self.list(py, done)
    }

    /// Totals since start: hits, misses, unusable, errors, `local_hits`; and `local_bytes` held now.
    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let inner = lock(&self.inner);
        let counters = inner.counters;
        BTreeMap::from([
            ("local_hits", counters.local_hits),
            ("local_bytes", u64::try_from(inner.local_bytes()).unwrap_or(u64::MAX)),
            ("hits", counters.hits),
            ("misses", counters.misses),
            ("unusable", counters.unusable),
            ("errors", counters.errors),
        ])
    }
}

impl CachedReads {
    fn list<'py>(
        &self,
        py: Python<'py>,
        done: Vec<Done<Bound<'py, PyBytes>>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for each in done {
            list.append(self.value(py, each)?)?;
        }
        Ok(list)
    }

    /// (token, value): a response, a `PendingRead`, None for a stale catalog or a lost command, or
    /// the items of a reply.
    fn value<'py>(
        &self,
        py: Python<'py>,
        done: Done<Bound<'py, PyBytes>>,
    ) -> PyResult<(u64, Bound<'py, PyAny>)> {
        Ok(match done {
            Done::Answered(token, response) => (token, response.into_any()),
            Done::Missed(token, pending) => {
                let engine = self.engine.clone_ref(py);
                let pending = PendingRead { engine, inner: Mutex::new(Some(pending)) };
                (token, Bound::new(py, pending)?.into_any())
            }
            Done::Stale(token) | Done::Replied(token, None) => (token, py.None().into_bound(py)),
            Done::Replied(token, Some(answers)) => {
                let list = PyList::empty(py);
                for answer in answers {
                    match answer {
                        Answer::Null => list.append(py.None())?,
                        Answer::Bytes(bytes) => list.append(PyBytes::new(py, &bytes))?,
                        Answer::Integer(number) => list.append(number)?,
                        Answer::Error(text) => list.append(text)?,
                    }
                }
                (token, list.into_any())
            }
        })
    }
}

/// A request whose remaining rows come from the store.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct PendingRead {
    engine: Py<ReadEngine>,
    inner: Mutex<Option<Box<Pending>>>,
}

#[pymethods]
impl PendingRead {
    /// The deadline that the body asks for.
    #[getter]
    fn deadline_ms(&self) -> PyResult<Option<i64>> {
        self.with(|pending| pending.deadline_ms)
    }

    /// Rows that are still wanted: (slot, key bytes, events or None, cache ttl in ms).
    fn wanted<'py>(&self, py: Python<'py>) -> PyResult<Vec<Wanted<'py>>> {
        self.with(|pending| {
            let wanted = pending.wanted();
            let row = wanted
                .map(|row| (row.slot, PyBytes::new(py, row.key), row.events, row.cache_ttl_ms));
            row.collect()
        })
    }

    /// Take a cached block for a row; False when it cannot be used.
    fn take_block(&self, slot: usize, block: &[u8], now_ms: i64) -> PyResult<bool> {
        self.with(|pending| pending.take_block(slot, block, now_ms))
    }

    /// Take a row's cells as the store holds them: the block that may fill a cache, and for how
    /// long in ms; None when the row is damaged. Raises `StaleCatalog`.
    fn take_cells<'py>(
        &self,
        py: Python<'py>,
        slot: usize,
        cells: &Bound<'py, PyList>,
        now_ms: i64,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, i64)>> {
        let cells: Vec<(u16, Bound<'py, PyBytes>)> = cells.extract()?;
        let parts = cells.iter().map(|(field, cell)| (*field, cell.as_bytes()));
        let taken = self.with(|pending| pending.take_cells(slot, parts, now_ms))?;
        let fill = taken.map_err(|_| StaleCatalog::new_err("a row is of a newer catalog"))?;
        Ok(fill.map(|fill| (PyBytes::new(py, &fill.block), fill.ttl_ms)))
    }

    /// `take_cells` for many rows, each (slot, cells): what may fill a cache, in the same order;
    /// None for a damaged row and where no cache is. Raises `StaleCatalog`.
    fn take_rows<'py>(
        &self,
        py: Python<'py>,
        rows: &Bound<'py, PyList>,
        now_ms: i64,
    ) -> PyResult<Bound<'py, PyList>> {
        let fills = PyList::empty(py);
        let mut inner = lock(&self.inner);
        let pending = inner.as_deref_mut().ok_or_else(answered)?;
        let mut cells: Vec<(u16, Bound<'py, PyBytes>)> = Vec::new();
        for row in rows {
            let (slot, listed): (usize, Bound<'py, PyList>) = row.extract()?;
            cells.clear();
            for cell in listed {
                cells.push(cell.extract()?);
            }
            let parts = cells.iter().map(|(field, cell)| (*field, cell.as_bytes()));
            let fill = pending
                .take_cells(slot, parts, now_ms)
                .map_err(|_| StaleCatalog::new_err("a row is of a newer catalog"))?
                .filter(|_| pending.is_cached(slot));
            match fill {
                Some(fill) => fills.append((PyBytes::new(py, &fill.block), fill.ttl_ms))?,
                None => fills.append(py.None())?,
            }
        }
        Ok(fills)
    }

    /// Say that the store was not reached for a row.
    fn take_unavailable(&self, slot: usize) -> PyResult<()> {
        self.with(|pending| pending.take_unavailable(slot))
    }

    /// The response; rows that are still wanted are UNAVAILABLE. Only once.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let pending = lock(&self.inner).take().ok_or_else(answered)?;
        let engine = &self.engine.get().engine;
        engine
            .finish_pending(*pending, |response| PyBytes::new(py, response))
            .map_err(|_| StaleCatalog::new_err("a row is of a newer catalog"))
    }
}

type Wanted<'py> = (usize, Bound<'py, PyBytes>, Option<u32>, i64);

impl PendingRead {
    fn with<T>(&self, act: impl FnOnce(&mut Pending) -> T) -> PyResult<T> {
        let mut inner = lock(&self.inner);
        inner.as_deref_mut().map(act).ok_or_else(answered)
    }
}

fn answered() -> PyErr {
    PyRuntimeError::new_err("this request was answered already")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
