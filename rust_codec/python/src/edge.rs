//! What stands at the edge of a process: its clock, the ids it gives to requests, and the count of
//! its answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use headrace_codec::lane::ids::{RequestId, RequestIds as CoreRequestIds};
use headrace_codec::lane::times::{BOUNDS_NS, ReadTimes as CoreReadTimes};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::lock;

/// The system's clock; called, it gives milliseconds since the epoch.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct SystemClock;

#[pymethods]
impl SystemClock {
    #[new]
    const fn new() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "called as a function is")]
    fn __call__(&self) -> i64 {
        system_now_ms()
    }
}

/// A clock as it was given.
pub(crate) enum Clock {
    System,
    Other(Py<PyAny>),
}

impl Clock {
    /// The system's own is read without a call into Python.
    pub(crate) fn of(clock: &Bound<'_, PyAny>) -> Self {
        if clock.is_exact_instance_of::<SystemClock>() {
            Self::System
        } else {
            Self::Other(clock.clone().unbind())
        }
    }

    pub(crate) fn now_ms(&self, py: Python<'_>) -> PyResult<i64> {
        match self {
            Self::System => Ok(system_now_ms()),
            Self::Other(clock) => clock.call0(py)?.extract(py),
        }
    }
}

fn system_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Makes request ids: a prefix of the process and a count.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct RequestIds {
    inner: CoreRequestIds,
}

#[pymethods]
impl RequestIds {
    #[new]
    fn new(prefix: &[u8]) -> Self {
        Self { inner: CoreRequestIds::new(prefix) }
    }

    /// The next id, such as `9f86d081884c-1a`.
    fn make<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.next().as_bytes())
    }
}

impl RequestIds {
    pub(crate) fn next(&self) -> RequestId {
        self.inner.make()
    }
}

/// Counts answers by status and time.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct ReadTimes {
    inner: Mutex<CoreReadTimes>,
    lane_answers: AtomicU64,
}

#[pymethods]
impl ReadTimes {
    /// Upper bounds of the buckets in nanoseconds; one more is above them.
    #[classattr]
    const BOUNDS_NS: [u64; BOUNDS_NS.len()] = BOUNDS_NS;

    #[new]
    fn new() -> Self {
        Self { inner: Mutex::default(), lane_answers: AtomicU64::new(0) }
    }

    /// Count one answer by its time and the three digits of its status.
    fn observe(&self, elapsed_ns: u64, status: &[u8]) {
        let number = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        lock(&self.inner).observe_status(elapsed_ns, number.unwrap_or_default());
    }

    /// Counts by bucket, the sum of all times in nanoseconds, and (status, count).
    fn totals(&self) -> (Vec<u64>, u64, Vec<(usize, u64)>) {
        let times = lock(&self.inner);
        (times.buckets().to_vec(), times.total_ns(), times.statuses().collect())
    }

    /// Answers that lanes wrote.
    #[getter]
    fn lane_answers(&self) -> u64 {
        self.lane_answers.load(Ordering::Relaxed)
    }

    /// Count from zero again.
    fn clear(&self) {
        *lock(&self.inner) = CoreReadTimes::default();
        self.lane_answers.store(0, Ordering::Relaxed);
    }
}

impl ReadTimes {
    pub(crate) fn count_lane_answer(&self) {
        self.lane_answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer of 503 that took no time.
    pub(crate) fn observe_refused(&self) {
        lock(&self.inner).observe_status(0, 503);
    }

    pub(crate) fn observe_since(&self, started: Instant, response: &[u8]) {
        let elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        lock(&self.inner).observe(elapsed_ns, response);
    }
}
