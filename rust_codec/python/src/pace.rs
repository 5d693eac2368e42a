//! `Pace`, and the gate of cached reads: who is let in, and what the others are told.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use headrace_codec::lane::pace::{Pace as CorePace, WINDOW_NS, WINDOWS};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::lock;

/// The work before one stage, in units of its own; `admits` is asked before any is added.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct Pace {
    inner: Mutex<CorePace>,
}

#[pymethods]
impl Pace {
    /// Length of the windows in which speed is measured.
    #[classattr]
    const WINDOW_S: f64 = Duration::from_nanos(WINDOW_NS).as_secs_f64();
    /// How many of them are remembered.
    #[classattr]
    const WINDOWS: usize = WINDOWS;

    #[new]
    #[pyo3(signature = (*, least, unknown))]
    fn new(least: u64, unknown: u64) -> Self {
        Self { inner: Mutex::new(CorePace::new(least, unknown)) }
    }

    /// Units that wait now.
    #[getter]
    fn under_way(&self) -> u64 {
        lock(&self.inner).under_way()
    }

    /// Units a second that the stage can do; None while unknown.
    #[getter]
    fn rate(&self) -> Option<u64> {
        lock(&self.inner).rate()
    }

    /// Whether one who comes now would wait no longer than that.
    fn admits(&self, now_s: f64, wait_s: f64) -> bool {
        lock(&self.inner).admits(|| nanoseconds(now_s), nanoseconds(wait_s))
    }

    /// Units come to wait.
    fn begin(&self, units: u64) {
        lock(&self.inner).begin(units);
    }

    /// Units leave after so long, finished by the stage or given up.
    #[pyo3(signature = (units, elapsed_ns, *, finished=true))]
    fn end(&self, units: u64, elapsed_ns: u64, finished: bool) {
        lock(&self.inner).end(units, elapsed_ns, finished);
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    whole_ns(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What stands before the cache: refusing costs no call into Python, since the more is refused the
/// less time there is for it.
pub(crate) struct Gate {
    pace: CorePace,
    /// Requests that wait for nodes; so many are never refused, however large.
    reads: u64,
    least_reads: u64,
    since: Instant,
    wait_ns: u64,
    refusal: Refusal,
    refused: u64,
}

/// A response but for the id of its request, the generation, and whether its connection stays open.
#[derive(FromPyObject)]
pub(crate) struct Refusal(Vec<u8>, Vec<u8>);

impl Default for Gate {
    /// Lets all in.
    fn default() -> Self {
        Self::new(CorePace::new(u64::MAX, u64::MAX), 0, 0, Refusal(Vec::new(), Vec::new()))
    }
}

impl Gate {
    pub(crate) fn new(pace: CorePace, least_reads: u64, wait_ms: u64, refusal: Refusal) -> Self {
        Self {
            pace,
            reads: 0,
            least_reads,
            since: Instant::now(),
            wait_ns: whole_ns(Duration::from_millis(wait_ms)),
            refusal,
            refused: 0,
        }
    }

    /// Work of the requests that wait for nodes.
    pub(crate) const fn under_way(&self) -> u64 {
        self.pace.under_way()
    }

    /// Requests refused since start.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) const fn begin(&mut self, work: u64) {
        self.reads = self.reads.saturating_add(1);
        self.pace.begin(work);
    }

    pub(crate) fn end(&mut self, work: u64, started: Instant) {
        self.reads = self.reads.saturating_sub(1);
        self.pace.end(work, elapsed_ns(started), true);
    }

    /// What was begun needs no node after all.
    pub(crate) const fn leave(&mut self, work: u64) {
        self.reads = self.reads.saturating_sub(1);
        self.pace.end(work, 0, false);
    }

    /// The response that refuses one more request, when too much is under way already.
    pub(crate) fn refuse<'py>(
        &mut self,
        py: Python<'py>,
        request_id: &[u8],
        generation: impl FnOnce() -> u64,
        keep_alive: bool,
    ) -> Option<Bound<'py, PyBytes>> {
        let since = self.since;
        if self.reads < self.least_reads || self.pace.admits(|| elapsed_ns(since), self.wait_ns) {
            return None;
        }
        self.refused = self.refused.saturating_add(1);
        let Refusal(before_id, after_generation) = &self.refusal;
        let generation = generation().to_string();
        let last: &[u8] = if keep_alive { b"" } else { b"\r\nconnection: close" };
        let parts = [
            before_id,
            request_id,
            b"\r\nheadrace-generation: ",
            generation.as_bytes(),
            last,
            after_generation,
        ];
        Some(PyBytes::new(py, &parts.concat()))
    }
}

fn elapsed_ns(since: Instant) -> u64 {
    whole_ns(since.elapsed())
}
