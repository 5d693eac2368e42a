//! Bytes of the Headrace feature store, free of Python: schema → checked → frozen plan, then
//! encode, decode, fold and transcode. Start with [`format`], which owns every byte.

#![forbid(unsafe_code)]

pub mod catalog;
pub mod cell;
pub mod cursor;
pub mod error;
pub mod format;
pub mod json;
pub mod key;
pub mod mutation;
pub mod nearest;
pub mod schema;
