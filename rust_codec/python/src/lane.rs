//! `ReadLane` and `LaneConnection`: from the bytes of a usual request to the bytes of its answer
//! without a Python frame. Whatever is unusual goes to the protocol's own methods.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use headrace_codec::lane::heads::{Found, KnownHead, KnownHeads};
use headrace_codec::lane::ids::RequestId;
use headrace_codec::lane::turns::{TurnNumber, Turns};
use headrace_codec::read::engine::ReadCall;
use headrace_lmdb::row_error;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::cached::{Begun, CachedReads, PendingRead};
use crate::edge::{Clock, ReadTimes, RequestIds};
use crate::lmdb::LmdbStore;
use crate::lock;
use crate::read::{ReadEngine, form_of};

/// What answers the reads of a lane.
enum Reader {
    Embedded(Py<ReadEngine>, Py<LmdbStore>),
    Cached(Py<CachedReads>),
    /// Anything else that is called as `headrace.gateway.read_path.ReadPath.start` is.
    Called(Py<PyAny>),
}

/// What the connections of one process share.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct ReadLane {
    reader: Reader,
    clock: Clock,
    ids: Py<RequestIds>,
    times: Py<ReadTimes>,
    body_bytes_max: usize,
    held_bytes_max: i64,
    due_answers_max: usize,
    heads: Mutex<KnownHeads>,
    /// As in [`KnownHeads`], to be read without its lock.
    head_count: AtomicUsize,
    held_bytes: AtomicI64,
    sweep: AtomicU64,
    draining: AtomicBool,
}

#[pymethods]
impl ReadLane {
    /// `reader` is a `CachedReads`, an engine with its store, or a function.
    #[new]
    #[pyo3(signature = (
        reader, *, clock, ids, times, body_bytes_max, held_bytes_max, due_answers_max
    ))]
    fn new(
        reader: &Bound<'_, PyAny>,
        clock: &Bound<'_, PyAny>,
        ids: Py<RequestIds>,
        times: Py<ReadTimes>,
        body_bytes_max: usize,
        held_bytes_max: i64,
        due_answers_max: usize,
    ) -> PyResult<Self> {
        Ok(Self {
            reader: Reader::of(reader)?,
            clock: Clock::of(clock),
            ids,
            times,
            body_bytes_max,
            held_bytes_max,
            due_answers_max,
            heads: Mutex::default(),
            head_count: AtomicUsize::new(0),
            held_bytes: AtomicI64::new(0),
            sweep: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        })
    }

    /// Remember the head of a request that was taken, empty line included.
    fn learn(&self, head: &[u8], accept: u8) -> bool {
        let mut heads = lock(&self.heads);
        let learned = heads.learn(head, accept);
        self.head_count.store(heads.len(), Ordering::Relaxed);
        learned
    }

    /// How many heads are remembered.
    #[getter]
    fn known_heads(&self) -> usize {
        self.head_count.load(Ordering::Relaxed)
    }

    /// Unfinished bodies, requests that wait and unread answers of all connections.
    #[getter]
    fn held_bytes(&self) -> i64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Count more bytes as held, or fewer.
    fn hold(&self, bytes: i64) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Number of sweeps so far: the clock of all time limits.
    #[getter]
    fn sweep(&self) -> u64 {
        self.sweep.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_sweep(&self, sweep: u64) {
        self.sweep.store(sweep, Ordering::Relaxed);
    }

    /// Whether every answer ends its connection.
    #[getter]
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }
}

impl Reader {
    fn of(reader: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(cached) = reader.cast::<CachedReads>() {
            return Ok(Self::Cached(cached.clone().unbind()));
        }
        if let Ok((engine, store)) = reader.extract::<(Py<ReadEngine>, Py<LmdbStore>)>() {
            return Ok(Self::Embedded(engine, store));
        }
        if reader.is_callable() {
            return Ok(Self::Called(reader.clone().unbind()));
        }
        Err(PyTypeError::new_err("a reader is cached reads, an engine and a store, or a function"))
    }
}

impl ReadLane {
    fn takes(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
            && self.held_bytes.load(Ordering::Relaxed) <= self.held_bytes_max
    }

    pub(crate) fn observe(&self, started: Instant, response: &[u8]) {
        self.times.get().observe_since(started, response);
    }
}

/// One request on its way.
pub(crate) struct Turn {
    pub(crate) connection: Py<LaneConnection>,
    pub(crate) number: TurnNumber,
    /// The bytes that the body is the end of.
    pub(crate) received: Py<PyBytes>,
    pub(crate) body_start: usize,
    /// As in `form_of`.
    pub(crate) accept: u8,
    pub(crate) request_id: RequestId,
    pub(crate) keep_alive: bool,
    pub(crate) started: Instant,
}

impl Turn {
    fn body<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        self.received.as_bytes(py).get(self.body_start..).unwrap_or_default()
    }

    /// Gives the answer that the cache made; counted and timed here.
    pub(crate) fn answer(self, py: Python<'_>, response: Bound<'_, PyBytes>) -> PyResult<()> {
        let connection = self.connection.bind(py);
        let lane = connection.get().lane.get();
        lane.observe(self.started, response.as_bytes());
        LaneConnection::deliver(connection, self.number, response)
    }
}

/// A request that is not answered at once: called with its response, maybe after its caller left.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct LaneTurn {
    pub(crate) turn: Turn,
}

#[pymethods]
impl LaneTurn {
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.turn.body(py))
    }

    #[getter]
    fn accept(&self) -> u8 {
        self.turn.accept
    }

    #[getter]
    fn request_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.turn.request_id.as_bytes())
    }

    #[getter]
    fn keep_alive(&self) -> bool {
        self.turn.keep_alive
    }

    /// Nanoseconds since it came.
    #[getter]
    fn age_ns(&self) -> u64 {
        u64::try_from(self.turn.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Deliver the response; it is counted and timed by whoever calls.
    fn __call__(&self, py: Python<'_>, response: Bound<'_, PyBytes>) -> PyResult<()> {
        LaneConnection::deliver(self.turn.connection.bind(py), self.turn.number, response)
    }
}

/// The lane's half of one connection; the other half is the protocol that made it.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct LaneConnection {
    lane: Py<ReadLane>,
    state: Mutex<State>,
}

struct State {
    /// Nothing stands against answering the next request here.
    usual: bool,
    /// Sweep of the last thing that happened.
    since: u64,
    head: Option<Arc<KnownHead>>,
    turns: Turns<Py<PyBytes>>,
    /// None once the connection is gone: it would hold the protocol that holds it.
    calls: Option<Calls>,
}

struct Calls {
    received: Py<PyAny>,
    write: Option<Py<PyAny>>,
    end: Py<PyAny>,
    crowded: Py<PyAny>,
    over: Py<PyAny>,
}

#[pymethods]
impl LaneConnection {
    /// `received` takes the bytes that are not a usual request; `end` the last answer of the
    /// connection; `crowded` is called when too many answers are due, and `over` when none is due
    /// any more and the next request is not to be answered here as things stand.
    #[new]
    #[pyo3(signature = (lane, *, received, end, crowded, over))]
    fn new(
        lane: Py<ReadLane>,
        received: Py<PyAny>,
        end: Py<PyAny>,
        crowded: Py<PyAny>,
        over: Py<PyAny>,
    ) -> Self {
        let calls = Some(Calls { received, write: None, end, crowded, over });
        let since = lane.get().sweep();
        let turns = Turns::default();
        Self { lane, state: Mutex::new(State { usual: false, since, head: None, turns, calls }) }
    }

    /// Answers are written with that from now on.
    fn connected(&self, write: Py<PyAny>) {
        if let Some(calls) = &mut lock(&self.state).calls {
            calls.write = Some(write);
        }
    }

    /// Whether the next request may be answered here: nothing of an earlier one is unread, nothing
    /// but answers of this lane is due, and the caller reads them.
    #[getter]
    fn usual(&self) -> bool {
        lock(&self.state).usual
    }

    #[setter]
    fn set_usual(&self, usual: bool) {
        lock(&self.state).usual = usual;
    }

    /// Sweep of the last thing that happened.
    #[getter]
    fn since(&self) -> u64 {
        lock(&self.state).since
    }

    /// Something happened now.
    fn touch(&self) {
        lock(&self.state).since = self.lane.get().sweep();
    }

    /// How many answers are due.
    #[getter]
    fn due(&self) -> usize {
        lock(&self.state).turns.len()
    }

    /// Drop the answers that are due.
    fn clear(&self) {
        let held = lock(&self.state).turns.clear();
        self.release(held);
    }

    /// The connection is gone: drop what is due and let go of the protocol.
    fn close(&self) {
        let calls = {
            let mut state = lock(&self.state);
            state.usual = false;
            state.calls.take()
        };
        drop(calls);
        self.clear();
    }

    /// Bytes from the caller: a usual request is answered, now or later, all else is passed on.
    fn data_received(slf: &Bound<'_, Self>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let this = slf.get();
        if let Some((accept, found)) = this.usual_request(data.as_bytes()) {
            let id = this.id_of(data.as_bytes().get(found.request_id).unwrap_or_default());
            let request = Request { received: data, body_start: found.body_start, accept, id };
            // What cannot be read here is parsed after all: the protocol then says why.
            if matches!(Self::read_one(slf, &request, true), Ok(true)) {
                return Ok(());
            }
        }
        match this.call(slf.py(), |calls| Some(&calls.received)) {
            Some(received) => received.call1(slf.py(), (data,)).map(drop),
            None => Ok(()),
        }
    }

    /// Answer a parsed request, now or later. False when it must be read elsewhere.
    #[pyo3(signature = (body, accept, request_id, *, keep_alive))]
    fn read(
        slf: &Bound<'_, Self>,
        body: &Bound<'_, PyBytes>,
        accept: u8,
        request_id: Option<&[u8]>,
        keep_alive: bool,
    ) -> PyResult<bool> {
        let id = slf.get().id_of(request_id.unwrap_or_default());
        let request = Request { received: body, body_start: 0, accept, id };
        Self::read_one(slf, &request, keep_alive)
    }
}

struct Request<'a, 'py> {
    received: &'a Bound<'py, PyBytes>,
    body_start: usize,
    accept: u8,
    id: RequestId,
}

impl Request<'_, '_> {
    fn body(&self) -> &[u8] {
        self.received.as_bytes().get(self.body_start..).unwrap_or_default()
    }
}

impl LaneConnection {
    /// The caller's own id of a request, or one made here when it sent none.
    fn id_of(&self, sent: &[u8]) -> RequestId {
        if sent.is_empty() { self.lane.get().ids.get().next() } else { RequestId::new(sent) }
    }

    /// What a known head asks for, and where the parts of the request stand.
    fn usual_request(&self, data: &[u8]) -> Option<(u8, Found)> {
        let lane = self.lane.get();
        let mut state = lock(&self.state);
        if !state.usual || !lane.takes() {
            return None;
        }
        let known = state
            .head
            .as_ref()
            .and_then(|head| Some((head.accept, head.find_in(data, lane.body_bytes_max)?)));
        let (accept, found) = known.or_else(|| {
            let heads = lock(&lane.heads);
            let (head, found) = heads.find(data, lane.body_bytes_max)?;
            state.head = Some(Arc::clone(head));
            Some((head.accept, found))
        })?;
        state.since = lane.sweep();
        Some((accept, found))
    }

    fn read_one(slf: &Bound<'_, Self>, request: &Request<'_, '_>, keep: bool) -> PyResult<bool> {
        let lane = slf.get().lane.get();
        match &lane.reader {
            Reader::Embedded(engine, store) => {
                Self::read_embedded(slf, engine.get(), store.get(), request, keep)
            }
            Reader::Cached(reads) => Self::read_cached(slf, reads.get(), request, keep),
            Reader::Called(start) => Self::read_called(slf, start, request, keep),
        }
    }

    fn read_embedded(
        slf: &Bound<'_, Self>,
        engine: &ReadEngine,
        store: &LmdbStore,
        request: &Request<'_, '_>,
        keep_alive: bool,
    ) -> PyResult<bool> {
        let (py, lane) = (slf.py(), slf.get().lane.get());
        let started = Instant::now();
        let call = request.call(lane.clock.now_ms(py)?, keep_alive)?;
        if engine.engine.generation() == 0 {
            return Ok(false);
        }
        let open = || store.store.read().map_err(|error| row_error(&error));
        let Ok(response) = engine.engine.read(&call, open, |bytes| PyBytes::new(py, bytes)) else {
            return Ok(false);
        };
        lane.observe(started, response.as_bytes());
        Self::respond(slf, response, request.body().len(), keep_alive)?;
        Ok(true)
    }

    fn read_cached(
        slf: &Bound<'_, Self>,
        reads: &CachedReads,
        request: &Request<'_, '_>,
        keep_alive: bool,
    ) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        if reads.generation() == 0 {
            return Ok(false);
        }
        let weight = request.body().len();
        if let Some(refused) = reads.refusal(py, request.id.as_bytes(), keep_alive) {
            this.lane.get().times.get().observe_refused();
            Self::respond(slf, refused, weight, keep_alive)?;
            return Ok(true);
        }
        let call = request.call(this.lane.get().clock.now_ms(py)?, keep_alive)?;
        let turn = Self::turn(slf, request, keep_alive);
        match reads.begin(py, &call, turn)? {
            Begun::Asked => Self::wait(slf, weight, keep_alive),
            Begun::Answered(turn, response) => {
                this.lane.get().observe(turn.started, response.as_bytes());
                Self::respond(slf, response, weight, keep_alive)?;
            }
            Begun::Missed(turn, pending) => {
                let (number, started) = (turn.number, turn.started);
                Self::wait(slf, weight, keep_alive);
                if let Err(error) = reads.tell_missed(py, *turn, pending.clone()) {
                    // The turn is taken: read again, it would be answered twice or never.
                    error.write_unraisable(py, None);
                    Self::give_up(slf, number, started, &pending);
                }
            }
        }
        Ok(true)
    }

    /// Answers a turn that nobody took over: what no node could say is UNAVAILABLE.
    fn give_up(
        slf: &Bound<'_, Self>,
        number: TurnNumber,
        started: Instant,
        pending: &Bound<'_, PendingRead>,
    ) {
        let py = slf.py();
        let delivered = pending.get().finish(py).and_then(|response| {
            slf.get().lane.get().observe(started, response.as_bytes());
            Self::deliver(slf, number, response)
        });
        if let Err(error) = delivered {
            error.write_unraisable(py, None);
        }
    }

    fn read_called(
        slf: &Bound<'_, Self>,
        start: &Py<PyAny>,
        request: &Request<'_, '_>,
        keep_alive: bool,
    ) -> PyResult<bool> {
        let py = slf.py();
        let weight = request.body().len();
        let turn = Bound::new(py, LaneTurn { turn: Self::turn(slf, request, keep_alive) })?;
        let named = PyDict::new(py);
        named.set_item("keep_alive", keep_alive)?;
        named.set_item("deliver", turn)?;
        let body = PyBytes::new(py, request.body());
        let request_id = PyBytes::new(py, request.id.as_bytes());
        let arguments = (body, request.accept, request_id);
        let response = start.bind(py).call(arguments, Some(&named))?;
        if response.is_none() {
            Self::wait(slf, weight, keep_alive);
        } else {
            Self::respond(slf, response.cast_into()?, weight, keep_alive)?;
        }
        Ok(true)
    }

    fn turn(slf: &Bound<'_, Self>, request: &Request<'_, '_>, keep_alive: bool) -> Turn {
        Turn {
            connection: slf.clone().unbind(),
            number: lock(&slf.get().state).turns.next_number(),
            received: request.received.clone().unbind(),
            body_start: request.body_start,
            accept: request.accept,
            request_id: request.id,
            keep_alive,
            started: Instant::now(),
        }
    }

    /// Keeps an answer's turn; a caller with too many due is not read until all are written.
    fn wait(slf: &Bound<'_, Self>, weight: usize, keep_alive: bool) {
        slf.get().push(slf.py(), None, weight, keep_alive);
    }

    /// Sends an answer, or keeps it until its turn.
    fn respond(
        slf: &Bound<'_, Self>,
        response: Bound<'_, PyBytes>,
        weight: usize,
        keep_alive: bool,
    ) -> PyResult<()> {
        let this = slf.get();
        if lock(&this.state).turns.is_empty() {
            return this.send(slf.py(), response, keep_alive);
        }
        this.push(slf.py(), Some(response.unbind()), weight, keep_alive);
        Ok(())
    }

    fn push(&self, py: Python<'_>, response: Option<Py<PyBytes>>, weight: usize, keep_alive: bool) {
        let lane = self.lane.get();
        lane.hold(signed(weight));
        {
            let mut state = lock(&self.state);
            state.turns.push(response, weight, keep_alive);
            if state.turns.len() < lane.due_answers_max {
                return;
            }
            state.usual = false;
        }
        if let Some(crowded) = self.call(py, |calls| Some(&calls.crowded))
            && let Err(error) = crowded.call0(py)
        {
            error.write_unraisable(py, None); // the turn is taken all the same
        }
    }

    /// Puts an answer in its place and writes those whose turn has come.
    fn deliver(
        slf: &Bound<'_, Self>,
        number: TurnNumber,
        response: Bound<'_, PyBytes>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        lock(&this.state).turns.put(number, response.unbind());
        loop {
            let (ready, over) = {
                let mut state = lock(&this.state);
                let ready = state.turns.next_ready();
                if ready.is_some() {
                    state.since = this.lane.get().sweep();
                }
                (ready, state.turns.is_empty() && !state.usual)
            };
            let Some(ready) = ready else {
                if !over {
                    return Ok(());
                }
                let over = this.call(py, |calls| Some(&calls.over));
                return over.map_or(Ok(()), |over| over.call0(py).map(drop));
            };
            this.release(ready.weight);
            this.send(py, ready.answer.into_bound(py), ready.keep_alive)?;
            if !ready.keep_alive {
                this.clear();
                return Ok(());
            }
        }
    }

    fn send(&self, py: Python<'_>, response: Bound<'_, PyBytes>, keep_alive: bool) -> PyResult<()> {
        self.lane.get().times.get().count_lane_answer();
        let send =
            self.call(py, |calls| if keep_alive { calls.write.as_ref() } else { Some(&calls.end) });
        send.map_or(Ok(()), |send| send.call1(py, (response,)).map(drop))
    }

    fn release(&self, weight: usize) {
        self.lane.get().hold(signed(weight).saturating_neg());
    }

    /// One of the calls, held while it is called: it may let go of all of them.
    fn call(
        &self,
        py: Python<'_>,
        which: impl FnOnce(&Calls) -> Option<&Py<PyAny>>,
    ) -> Option<Py<PyAny>> {
        let state = lock(&self.state);
        state.calls.as_ref().and_then(which).map(|call| call.clone_ref(py))
    }
}

impl Request<'_, '_> {
    fn call(&self, now_ms: i64, keep_alive: bool) -> PyResult<ReadCall<'_>> {
        let (accept, coding) = form_of(self.accept)?;
        Ok(ReadCall {
            body: self.body(),
            accept,
            coding,
            now_ms,
            request_id: self.id.as_bytes(),
            keep_alive,
            reloaded: false,
        })
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
