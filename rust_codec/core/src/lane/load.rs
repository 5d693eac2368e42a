//! How much is under way at one stage, and how much of it the stage finished, in units of its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one stage.
#[derive(Debug, Default)]
pub struct Load {
    under_way: AtomicU64,
    finished: AtomicU64,
    held_ns: AtomicU64,
}

/// What a stage did since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Units that wait now.
    pub under_way: u64,
    /// Units that left.
    pub finished: u64,
    /// Each of those times the nanoseconds that it waited.
    pub held_ns: u64,
}

impl Load {
    /// Units come to wait.
    pub fn begin(&self, units: u64) {
        self.under_way.fetch_add(units, Ordering::Relaxed);
    }

    /// Units leave that have waited so long.
    pub fn end(&self, units: u64, elapsed_ns: u64) {
        self.under_way.fetch_sub(units, Ordering::Relaxed);
        self.finished.fetch_add(units, Ordering::Relaxed);
        self.held_ns.fetch_add(units.saturating_mul(elapsed_ns), Ordering::Relaxed);
    }

    /// Units that wait now.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// What was done since the last call.
    pub fn take(&self) -> Done {
        Done {
            under_way: self.under_way(),
            finished: self.finished.swap(0, Ordering::Relaxed),
            held_ns: self.held_ns.swap(0, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_is_told_once_and_what_waits_every_time() {
        let load = Load::default();
        load.begin(5);
        load.begin(7);
        load.end(5, 100);
        assert_eq!(load.take(), Done { under_way: 7, finished: 5, held_ns: 500 });
        load.end(7, 1);
        assert_eq!(load.take(), Done { under_way: 0, finished: 7, held_ns: 7 });
        assert_eq!(load.take(), Done { under_way: 0, finished: 0, held_ns: 0 });
    }
}
