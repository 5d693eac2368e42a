//! `CachedReads` and `PendingRead`: reads through cache nodes, and what they leave to the store.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use headrace_codec::lane::pace::Pace as CorePace;
use headrace_codec::read::cached::{Answer, CachedReads as CoreReads, Done};
use headrace_codec::read::engine::ReadCall;
use headrace_codec::read::pending::Pending;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods, PyList};

use crate::lane::{LaneTurn, Turn};
use crate::lock;
use crate::pace::{Gate, Refusal};
use crate::placement::Placement;
use crate::read::{ReadEngine, StaleCatalog, form_of};

/// A request that waits.
pub(crate) struct Caller {
    known_by: KnownBy,
    /// How much work it is.
    work: u64,
    started: Instant,
}

/// What a request that waits is known by.
enum KnownBy {
    /// A turn of a connection: answered there, without a Python object in between.
    Turn(Box<Turn>),
    /// Whatever the caller gave; it comes back with the outcome.
    Object(Py<PyAny>),
}

/// How a turn began.
pub(crate) enum Begun<'py> {
    /// `feed` will answer it.
    Asked,
    /// The response to a wrong request, or to one that the process itself holds.
    Answered(Box<Turn>, Bound<'py, PyBytes>),
    /// No cache node can say anything.
    Missed(Box<Turn>, Bound<'py, PendingRead>),
}

/// What Python is told of turns.
#[derive(Default)]
struct Listener {
    calls: Option<Calls>,
    /// Whether it was told to flush, and has taken nothing since.
    told: bool,
}

struct Calls {
    flush_soon: Py<PyAny>,
    missed: Py<PyAny>,
}

/// Requests that wait for cache nodes.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct CachedReads {
    engine: Py<ReadEngine>,
    inner: Mutex<CoreReads<Caller>>,
    listener: Mutex<Listener>,
    gate: Mutex<Gate>,
}

#[pymethods]
impl CachedReads {
    /// No connection is there yet: until `node_up` every request goes to the store.
    #[new]
    #[pyo3(signature = (engine, placement, *, local_bytes_max=0))]
    fn new(engine: Py<ReadEngine>, placement: &Placement, local_bytes_max: usize) -> Self {
        let reads = CoreReads::new(placement.inner.clone(), local_bytes_max);
        Self {
            engine,
            inner: Mutex::new(reads),
            listener: Mutex::default(),
            gate: Mutex::default(),
        }
    }

    /// What the requests of a lane call in Python, and how many may wait: as in `Pace`, those that
    /// would wait longer than that are refused with `refusal`, a response in two parts; but
    /// `least_reads` of them never are.
    #[pyo3(signature = (*, flush_soon, missed, refusal, least, least_reads, unknown, wait_ms))]
    #[expect(clippy::too_many_arguments, reason = "called once, keyword-only in Python")]
    fn listen(
        &self,
        flush_soon: Py<PyAny>,
        missed: Py<PyAny>,
        refusal: Refusal,
        least: u64,
        least_reads: u64,
        unknown: u64,
        wait_ms: u64,
    ) {
        let pace = CorePace::new(least, unknown);
        *lock(&self.gate) = Gate::new(pace, least_reads, wait_ms, refusal);
        let calls = Some(Calls { flush_soon, missed });
        *lock(&self.listener) = Listener { calls, told: false };
    }

    /// Work of the requests that wait for nodes, in values.
    #[getter]
    fn work_under_way(&self) -> u64 {
        lock(&self.gate).under_way()
    }

    /// The response that refuses one more request, None when there is room for it.
    #[pyo3(signature = (request_id, *, keep_alive))]
    fn refuse<'py>(
        &self,
        py: Python<'py>,
        request_id: &[u8],
        keep_alive: bool,
    ) -> Option<Bound<'py, PyBytes>> {
        self.refusal(py, request_id, keep_alive)
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
    /// anything, None when `feed` will bring the rest together with `caller`.
    #[pyo3(signature = (body, *, caller, accept, now_ms, request_id, keep_alive, reloaded=false))]
    #[expect(clippy::too_many_arguments, reason = "one call a request, keyword-only in Python")]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        body: &[u8],
        caller: Py<PyAny>,
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
        let known_by = KnownBy::Object(caller);
        let caller = |work| self.caller(known_by, work, Instant::now());
        let done = lock(&self.inner).submit(engine, &call, caller, &mut bytes);
        self.left(done.as_ref());
        done.map(|done| self.outcome(py, done).map(|(_, value)| value)).transpose()
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
        lock(&self.listener).told = false;
        lock(&self.inner).take(node, |bytes| PyBytes::new(py, bytes))
    }

    /// Take bytes from a node: (what they finish, why the connection must end or None). Turns of a
    /// lane that they answer whole are delivered, and not told.
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
        let mut done = Vec::new();
        lock(&self.inner).drop_node(node, &mut done);
        self.list(py, done)
    }

    /// What the in-process tier holds of a key and until when, ms; None for nothing.
    fn local_block<'py>(&self, py: Python<'py>, key: &[u8]) -> Option<(Bound<'py, PyBytes>, i64)> {
        let inner = lock(&self.inner);
        inner.local_block(key).map(|(block, until_ms)| (PyBytes::new(py, block), until_ms))
    }

    /// Totals since start: hits, misses, unusable, errors, refused, `local_hits`; and `local_bytes`
    /// held now.
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
            ("refused", lock(&self.gate).refused()),
        ])
    }
}

impl CachedReads {
    /// Generation of the catalog in force, 0 without one.
    pub(crate) fn generation(&self) -> u64 {
        self.engine.get().engine.generation()
    }

    /// Starts the request of a lane.
    pub(crate) fn begin<'py>(
        &self,
        py: Python<'py>,
        call: &ReadCall<'_>,
        turn: Turn,
    ) -> PyResult<Begun<'py>> {
        let engine = &self.engine.get().engine;
        let mut bytes = |response: &[u8]| PyBytes::new(py, response);
        let started = turn.started;
        let known_by = KnownBy::Turn(Box::new(turn));
        let caller = |work| self.caller(known_by, work, started);
        let done = lock(&self.inner).submit(engine, call, caller, &mut bytes);
        self.left(done.as_ref());
        match done {
            Some(Done::Answered(Caller { known_by: KnownBy::Turn(turn), .. }, response)) => {
                Ok(Begun::Answered(turn, response))
            }
            Some(Done::Missed(Caller { known_by: KnownBy::Turn(turn), .. }, pending)) => {
                Ok(Begun::Missed(turn, self.pending(py, pending)?))
            }
            // Nothing else comes of a turn that only began.
            _ => {
                if let Err(error) = self.tell_flush(py) {
                    // It is under way; whatever comes next tells again.
                    lock(&self.listener).told = false;
                    error.write_unraisable(py, None);
                }
                Ok(Begun::Asked)
            }
        }
    }

    /// The response that refuses one more request, when too much is under way already.
    pub(crate) fn refusal<'py>(
        &self,
        py: Python<'py>,
        request_id: &[u8],
        keep_alive: bool,
    ) -> Option<Bound<'py, PyBytes>> {
        lock(&self.gate).refuse(py, request_id, || self.generation(), keep_alive)
    }

    fn caller(&self, known_by: KnownBy, work: u64, started: Instant) -> Caller {
        lock(&self.gate).begin(work);
        Caller { known_by, work, started }
    }

    /// A request that needed no node after all.
    fn left<T>(&self, done: Option<&Done<Caller, T>>) {
        if let Some(Done::Answered(caller, _) | Done::Missed(caller, _)) = done {
            lock(&self.gate).leave(caller.work);
        }
    }

    fn ended(&self, caller: &Caller) {
        lock(&self.gate).end(caller.work, caller.started);
    }

    /// Hands over a turn that the store must answer.
    pub(crate) fn tell_missed(
        &self,
        py: Python<'_>,
        turn: Turn,
        pending: Bound<'_, PendingRead>,
    ) -> PyResult<()> {
        let missed = {
            let listener = lock(&self.listener);
            listener.calls.as_ref().map(|calls| calls.missed.clone_ref(py))
        };
        let Some(missed) = missed else { return Ok(()) };
        missed.call1(py, (LaneTurn { turn }, pending)).map(drop)
    }

    fn tell_flush(&self, py: Python<'_>) -> PyResult<()> {
        let flush_soon = {
            let mut listener = lock(&self.listener);
            if std::mem::replace(&mut listener.told, true) {
                return Ok(());
            }
            listener.calls.as_ref().map(|calls| calls.flush_soon.clone_ref(py))
        };
        flush_soon.map_or(Ok(()), |flush_soon| flush_soon.call0(py).map(drop))
    }

    fn pending<'py>(
        &self,
        py: Python<'py>,
        pending: Box<Pending>,
    ) -> PyResult<Bound<'py, PendingRead>> {
        let engine = self.engine.clone_ref(py);
        Bound::new(py, PendingRead { engine, inner: Mutex::new(Some(pending)) })
    }

    /// Delivers the turns that were answered whole, and lists the rest.
    fn list<'py>(
        &self,
        py: Python<'py>,
        done: Vec<Done<Caller, Bound<'py, PyBytes>>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for each in done {
            if let Done::Answered(caller, _) | Done::Missed(caller, _) | Done::Stale(caller) = &each
            {
                self.ended(caller);
            }
            match each {
                Done::Answered(Caller { known_by: KnownBy::Turn(turn), .. }, response) => {
                    if let Err(error) = turn.answer(py, response) {
                        // One connection's failure is not that of those behind it.
                        error.write_unraisable(py, None);
                    }
                }
                each => list.append(self.outcome(py, each)?)?,
            }
        }
        Ok(list)
    }

    /// (caller or token, value): a response, a `PendingRead`, None for a stale catalog or a lost
    /// command, or the items of a reply.
    fn outcome<'py>(
        &self,
        py: Python<'py>,
        done: Done<Caller, Bound<'py, PyBytes>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let number = |token: u64| token.into_pyobject(py).map(Bound::into_any);
        Ok(match done {
            Done::Answered(caller, response) => (caller.object(py)?, response.into_any()),
            Done::Missed(caller, pending) => {
                (caller.object(py)?, self.pending(py, pending)?.into_any())
            }
            Done::Stale(caller) => (caller.object(py)?, py.None().into_bound(py)),
            Done::Replied(token, None) => (number(token)?, py.None().into_bound(py)),
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
                (number(token)?, list.into_any())
            }
        })
    }
}

impl Caller {
    fn object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self.known_by {
            KnownBy::Turn(turn) => Ok(Bound::new(py, LaneTurn { turn: *turn })?.into_any()),
            KnownBy::Object(object) => Ok(object.into_bound(py)),
        }
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
    pub(crate) fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
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
