//! The read path: request bytes in, response bytes out, with nothing built for a key, a row or a
//! value on the way (design 2).
//!
//! [`request`] checks a body, [`plan`] has its names resolved, [`shape`] remembers plans by the bytes
//! around the keys, [`keys`] makes store keys, [`row`] folds what a store holds, [`answer`],
//! [`envelope`] and [`arrow`] print it, [`coding`] makes it shorter,
//! [`problem`] says why not, and [`engine`] runs one request.

pub mod answer;
pub mod arrow;
pub mod cached;
pub mod coding;
pub mod columns;
mod compile;
pub mod counters;
pub mod engine;
pub mod envelope;
pub mod feast;
pub mod head;
pub mod keys;
pub mod local;
pub mod pending;
pub mod plan;
pub mod problem;
pub mod request;
pub mod row;
pub mod shape;
pub mod statuses;

/// Bounds of one request (semantics 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Keys of one read.
    pub keys_max: usize,
    /// Reads of one request.
    pub reads_max: usize,
    /// Rows of one request.
    pub rows_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keys_max: 1_000, reads_max: 64, rows_max: 4_000 }
    }
}
