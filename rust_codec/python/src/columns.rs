//! Arrow columns in, bulk commands out.

use headrace_codec::columns::{self, EventTime};
use headrace_codec::command::Method;
use headrace_codec::error::Error;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::catalog::Catalog;
use crate::error;

/// Encode every row of an Arrow IPC stream as a bulk command; raises `EncodeError`.
#[pyfunction]
#[pyo3(signature = (
    catalog, group, arrow_ipc_stream, *, method, event_time_column=None, event_time_ms=None
))]
pub(crate) fn encode_columns<'py>(
    py: Python<'py>,
    catalog: &Catalog,
    group: &str,
    arrow_ipc_stream: &[u8],
    method: &str,
    event_time_column: Option<&str>,
    event_time_ms: Option<i64>,
) -> PyResult<Bound<'py, PyList>> {
    let event_time = match (event_time_column, event_time_ms) {
        (Some(name), None) => EventTime::Column(name),
        (None, Some(time)) => EventTime::FixedMs(time),
        _ => {
            let message = "encode_columns takes either event_time_column or event_time_ms";
            return Err(PyTypeError::new_err(message));
        }
    };
    let failed = |failure: Error| error::encode(py, &failure);
    let method = Method::parse(method).map_err(failed)?;
    let group = catalog.core.find_group(group).map_err(failed)?;
    let commands =
        py.detach(|| columns::encode_columns(group, arrow_ipc_stream, method, event_time));
    let commands = commands.map_err(failed)?;
    let list = PyList::empty(py);
    for (key, command) in commands.iter() {
        list.append((PyBytes::new(py, key), PyBytes::new(py, command)))?;
    }
    Ok(list)
}
