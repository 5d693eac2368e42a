//! The read path over a source in memory: request bytes in, response bytes out.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic here is a failed test, which is what it should be"
)]

mod answers;
mod arrow;
mod avro;
mod feast;
mod fixture;
mod pending;
mod problems;
mod shapes;
