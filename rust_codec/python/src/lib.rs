//! The thin Python binding: no logic, no arithmetic.

/// The extension module `headrace.codec._codec`.
#[pyo3::pymodule]
mod _codec {}
