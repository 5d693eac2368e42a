//! The embedded online store: LMDB in one crate, so that a read is one call into Rust.
//!
//! [`Store`] is the one handle of a process. Any number of processes read while one writes: a write
//! transaction takes LMDB's writer lock, which is shared by all processes that opened the store, so a
//! second writer waits until the first has committed and never sees half a batch. The lock is robust:
//! when its holder dies, the next writer gets it and the unfinished transaction has left no trace.
//!
//! An LMDB environment does not survive `fork`: open the store in the process that uses it.
//!
//! Read in this order: [`layout`] (every byte), [`Store`], `apply` with `object`, `history` and `rules`,
//! `environment` with `order`.

#![deny(unsafe_code)] // One exception, in `environment`: heed's open call (semantics 29).

mod apply;
mod collect;
mod environment;
mod error;
mod history;
pub mod layout;
mod object;
mod order;
mod read;
mod rows;
mod rules;
mod store;

pub use apply::Applied;
pub use error::{Error, Result};
pub use layout::{Cells, ObjectRow};
pub use read::{Event, Events, ReadTransaction};
pub use rows::row_error;
pub use store::{Options, Statistics, Store};
