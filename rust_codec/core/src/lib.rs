//! Bytes of the Headrace feature store, free of Python: schema → checked → frozen plan, then
//! encode, decode, fold and transcode. Start with [`format`], which owns every byte.

#![forbid(unsafe_code)]

pub mod block;
pub mod catalog;
pub mod cell;
pub mod columns;
pub mod command;
pub mod cursor;
pub mod decode;
pub mod digest;
pub mod encode;
pub mod error;
pub mod fold;
pub mod format;
pub mod json;
pub mod key;
pub mod lane;
pub mod mutation;
pub mod nearest;
pub mod placement;
pub mod read;
pub mod resolve;
pub mod resp;
pub mod schema;
pub mod status;
pub mod text;
pub mod transcode;
