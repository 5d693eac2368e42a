//! The core's one error type as Python exceptions.

use headrace_codec::error::Error;
use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

create_exception!(
    headrace.codec._codec,
    CodecError,
    PyValueError,
    "Bytes, JSON or a schema that cannot be accepted.\n\n\
     `code` is a stable upper-case word, `offset` the byte at which reading stopped (None where\n\
     there is none), `path` the place inside the value, such as `values.level` (empty at the top)."
);
create_exception!(
    headrace.codec._codec,
    SchemaError,
    CodecError,
    "A catalog document or an Avro schema that is not well formed."
);
create_exception!(
    headrace.codec._codec,
    EncodeError,
    CodecError,
    "A value that does not fit the field it is meant for."
);
create_exception!(
    headrace.codec._codec,
    DecodeError,
    CodecError,
    "Stored bytes that are torn, foreign or damaged."
);

/// Gives the classes the attributes that instances fill.
pub(crate) fn declare_attributes(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<CodecError>();
    class.setattr("code", "")?;
    class.setattr("offset", py.None())?;
    class.setattr("path", "")
}

/// For a catalog document that cannot be compiled.
pub(crate) fn schema(py: Python<'_>, error: &Error) -> PyErr {
    raise(&py.get_type::<SchemaError>(), error)
}

/// For values that cannot be encoded.
pub(crate) fn encode(py: Python<'_>, error: &Error) -> PyErr {
    raise(&py.get_type::<EncodeError>(), error)
}

/// For stored bytes that cannot be read.
pub(crate) fn decode(py: Python<'_>, error: &Error) -> PyErr {
    raise(&py.get_type::<DecodeError>(), error)
}

fn raise(class: &Bound<'_, PyType>, error: &Error) -> PyErr {
    let fill = |instance: &Bound<'_, PyAny>| -> PyResult<()> {
        instance.setattr("code", error.kind.code())?;
        instance.setattr("offset", error.offset)?;
        instance.setattr("path", error.path())
    };
    let made = class.call1((error.to_string(),)).and_then(|instance| {
        fill(&instance)?;
        Ok(instance)
    });
    made.map_or_else(|failure| failure, PyErr::from_value)
}
