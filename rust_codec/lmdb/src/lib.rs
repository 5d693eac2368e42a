//! The embedded online store: LMDB in one crate, so that a read is one call into Rust.
