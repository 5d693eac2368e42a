//! Commands in, writes out: `encode_commands`, `CommandBatch` and what it is made of.

use headrace_codec::command::{self, CommandBatch as CoreBatch};
use headrace_codec::mutation::{Mutation as CoreMutation, MutationKind};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use crate::catalog::Catalog;
use crate::error;

/// Commands turned into cells, in one call and without a Python object per value.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct CommandBatch {
    /// What stores of the codec write from.
    pub(crate) core: CoreBatch,
}

/// One accepted command: index, method, key bytes, event time in ms.
type Coordinate<'py> = (usize, &'static str, Bound<'py, PyBytes>, i64);

#[pymethods]
impl CommandBatch {
    /// Commands that became at least one mutation or arrived expired.
    #[getter]
    fn accepted(&self) -> usize {
        self.core.accepted()
    }

    /// Commands that had expired on arrival: counted, and no mutation is made (semantics 3).
    #[getter]
    fn expired(&self) -> usize {
        self.core.expired()
    }

    /// Commands that cannot be applied, in batch order.
    #[getter]
    fn rejections(&self) -> Vec<Rejection> {
        self.core
            .rejections()
            .iter()
            .map(|rejection| Rejection { core: rejection.clone() })
            .collect()
    }

    /// Number of writes.
    #[getter]
    fn mutation_count(&self) -> usize {
        self.core.mutation_count()
    }

    /// The newest event time of the accepted commands.
    #[getter]
    fn newest_event_time_ms(&self) -> Option<i64> {
        self.core.newest_event_time_ms()
    }

    /// The writes as Python objects, for stores that are driven from Python.
    fn mutations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mutations = self.core.mutations().map(|mutation| Mutation::new(py, &mutation));
        let list = PyList::empty(py);
        mutations.into_iter().try_for_each(|mutation| list.append(mutation))?;
        Ok(list)
    }

    /// Distinct key bytes that the batch writes, for cache invalidation.
    fn touched_keys<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.core.touched_keys().into_iter().map(|key| PyBytes::new(py, key)).collect()
    }

    /// Per accepted command: (index, method, key bytes, event time in ms), for downsync.
    fn coordinates<'py>(&self, py: Python<'py>) -> Vec<Coordinate<'py>> {
        self.core
            .coordinates()
            .map(|command| {
                let key = PyBytes::new(py, command.key);
                (command.index, command.method.name(), key, command.event_time_ms)
            })
            .collect()
    }
}

/// Why one command cannot be applied.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct Rejection {
    core: command::Rejection,
}

#[pymethods]
impl Rejection {
    /// Position of the command in the list that was given.
    #[getter]
    fn index(&self) -> usize {
        self.core.index
    }

    /// A stable upper-case word.
    #[getter]
    fn code(&self) -> &'static str {
        self.core.error.kind.code()
    }

    /// The sentence for a person, without the place.
    #[getter]
    fn message(&self) -> &str {
        &self.core.error.message
    }

    /// The byte of the command at which reading stopped.
    #[getter]
    fn offset(&self) -> Option<usize> {
        self.core.error.offset
    }

    /// The place inside the command, such as `values.level`.
    #[getter]
    fn path(&self) -> String {
        self.core.error.path()
    }
}

/// One write for one store row. Field names follow design 1.
#[pyclass(frozen, get_all, module = "headrace.codec._codec")]
pub(crate) struct Mutation {
    /// Position of its command in the list that was given.
    index: usize,
    /// record, patch, event, `delete_row` or `delete_history`.
    kind: &'static str,
    /// The id of the group.
    group_id: u32,
    /// Key bytes, group id included.
    key: Py<PyBytes>,
    /// The patched field; 0 for every other kind.
    field_id: u16,
    /// Content digest, as an unsigned 64-bit number.
    event_id: u64,
    /// Event time in ms.
    event_time_ms: i64,
    /// Event time in ms × 1000 + tie; the higher one wins.
    write_timestamp: i64,
    /// event time + ttl, or None without a ttl.
    expires_at_ms: Option<i64>,
    /// The cell; empty for a delete.
    cell: Py<PyBytes>,
}

impl Mutation {
    fn new(py: Python<'_>, core: &CoreMutation<'_>) -> Self {
        let (kind, field_id) = match core.kind {
            MutationKind::Record => ("record", 0),
            MutationKind::Patch(field_id) => ("patch", field_id),
            MutationKind::Event => ("event", 0),
            MutationKind::DeleteRow => ("delete_row", 0),
            MutationKind::DeleteHistory => ("delete_history", 0),
        };
        Self {
            index: core.index,
            kind,
            group_id: core.group_id(),
            key: PyBytes::new(py, core.key).unbind(),
            field_id,
            event_id: core.digest,
            event_time_ms: core.event_time_ms(),
            write_timestamp: core.write_timestamp,
            expires_at_ms: core.expires_at_ms,
            cell: PyBytes::new(py, core.cell).unbind(),
        }
    }
}

/// Check a batch of commands (each JSON text, or a bulk Avro command) and encode them to cells.
#[pyfunction]
#[pyo3(signature = (catalog, payloads, *, now_ms))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts arguments by value")]
pub(crate) fn encode_commands(
    py: Python<'_>,
    catalog: &Catalog,
    payloads: Vec<PyBackedBytes>,
    now_ms: i64,
) -> CommandBatch {
    let catalog = &catalog.core;
    let core = py.detach(|| {
        command::encode_commands(catalog, payloads.iter().map(|payload| &**payload), now_ms)
    });
    CommandBatch { core }
}

/// Key bytes by which a command is spread over partitions; raises `EncodeError`.
#[pyfunction]
pub(crate) fn partition_key<'py>(
    py: Python<'py>,
    catalog: &Catalog,
    payload: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let mut key = Vec::new();
    command::partition_key(&catalog.core, payload, &mut key)
        .map_err(|failure| error::encode(py, &failure))?;
    Ok(PyBytes::new(py, &key))
}
