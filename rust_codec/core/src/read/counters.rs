//! Totals since start: requests by outcome, rows by group and status. Atomics, bound once a plan.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::statuses::Status;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every value as stored, or its default.
    Whole,
    /// Some rows UNAVAILABLE or CORRUPT.
    Partial,
    /// A 4xx.
    Refused,
    /// A 503.
    Unavailable,
    /// The catalog must be loaded anew first.
    Stale,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Whole, Self::Partial, Self::Refused, Self::Unavailable, Self::Stale];

    const fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Stale => "stale_catalog",
        }
    }
}

/// Rows of one request and group by status, added up before they are published.
pub type Tally = [u64; Status::ALL.len()];

/// Rows of one group.
#[derive(Debug, Default)]
pub struct GroupCounters {
    rows: [AtomicU64; Status::ALL.len()],
}

impl GroupCounters {
    /// Adds the rows of one read.
    pub fn add(&self, tally: &Tally) {
        for (counter, count) in self.rows.iter().zip(tally) {
            if *count > 0 {
                counter.fetch_add(*count, Ordering::Relaxed);
            }
        }
    }
}

/// All counters of one engine; they outlive every catalog.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [AtomicU64; Outcome::ALL.len()],
    /// Requests whose plan was remembered, and whose was not.
    plan_hits: AtomicU64,
    plan_misses: AtomicU64,
    groups: Mutex<BTreeMap<String, Arc<GroupCounters>>>,
}

impl Counters {
    /// The counters of a group, made when it is first planned.
    pub fn group(&self, name: &str) -> Arc<GroupCounters> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = groups.get(name) {
            return Arc::clone(found);
        }
        Arc::clone(groups.entry(name.to_owned()).or_default())
    }

    /// Counts a request.
    pub fn end(&self, outcome: Outcome) {
        let pairs = Outcome::ALL.iter().zip(&self.requests);
        for (_, counter) in pairs.filter(|(known, _)| **known == outcome) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the search for a plan.
    pub fn plan(&self, remembered: bool) {
        let counter = if remembered { &self.plan_hits } else { &self.plan_misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything by name: `requests/OUTCOME`, `plans/hit`, `plans/miss`, `rows/STATUS/GROUP`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut all: Vec<(String, u64)> = Outcome::ALL
            .iter()
            .zip(&self.requests)
            .map(|(outcome, counter)| (format!("requests/{}", outcome.word()), load(counter)))
            .collect();
        all.push(("plans/hit".to_owned(), load(&self.plan_hits)));
        all.push(("plans/miss".to_owned(), load(&self.plan_misses)));
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, group) in groups.iter() {
            for (status, counter) in Status::ALL.iter().zip(&group.rows) {
                all.push((format!("rows/{}/{name}", status.word()), load(counter)));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_names_every_outcome_and_every_status_of_every_group() {
        let counters = Counters::default();
        let group = counters.group("live::a");
        let mut tally = Tally::default();
        tally[Status::Missing.number()] = 3;
        group.add(&tally);
        counters.group("live::a").add(&tally);
        counters.end(Outcome::Partial);
        counters.plan(true);
        let all: BTreeMap<String, u64> = counters.snapshot().into_iter().collect();
        assert_eq!(all["rows/MISSING/live::a"], 6);
        assert_eq!(all["rows/OK/live::a"], 0);
        assert_eq!(all["requests/partial"], 1);
        assert_eq!(all["requests/whole"], 0);
        assert_eq!((all["plans/hit"], all["plans/miss"]), (1, 0));
    }
}
