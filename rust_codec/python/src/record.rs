//! `FoldedRecord`, and the verbs of `Catalog` that turn stored bytes into answers.

use std::sync::Arc;

use headrace_codec::block::{self, Block, Event};
use headrace_codec::catalog::{Catalog, Group};
use headrace_codec::cell::Cell;
use headrace_codec::decode::{Sink, decode};
use headrace_codec::error::{Error, Kind};
use headrace_codec::fold::{self, Folded};
use headrace_codec::key::key_digest;
use headrace_codec::schema::RecordSchema;
use headrace_codec::text;
use headrace_codec::transcode::{self, Layout};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyNone, PyString, PyTzInfo,
};

use crate::error;

/// One record as the online store serves it.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct FoldedRecord {
    folded: Folded<'static>,
}

impl FoldedRecord {
    /// Owns the body that a fold may have borrowed.
    pub(crate) fn new(folded: Folded<'_>) -> Self {
        let body = folded.body.into_owned().into();
        Self { folded: Folded { body, ..folded } }
    }
}

#[pymethods]
impl FoldedRecord {
    /// Event time of the newest live cell, in ms.
    #[getter]
    fn newest_event_time_ms(&self) -> i64 {
        self.folded.newest_event_time_ms
    }

    /// Event time of the oldest live cell, in ms.
    #[getter]
    fn oldest_event_time_ms(&self) -> i64 {
        self.folded.oldest_event_time_ms
    }

    /// Every value field of the newest schema in schema order; never-written ones at their default.
    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        values(py, &self.folded.schema, &self.folded.body)
    }

    /// Which value fields were ever written (and have not expired).
    #[getter]
    fn written<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let named = PyDict::new(py);
        for (position, field) in self.folded.schema.fields.iter().enumerate() {
            named.set_item(&field.name, self.folded.is_written(position))?;
        }
        Ok(named)
    }

    /// The folded record as Avro single-object bytes of the newest schema.
    #[getter]
    fn avro<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut out = Vec::with_capacity(self.folded.body.len());
        block::push_single_object(&mut out, self.folded.schema.fingerprint, &self.folded.body);
        PyBytes::new(py, &out)
    }

    /// The cache block of this record for these key bytes.
    fn block<'py>(&self, py: Python<'py>, key: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &block::seal_object(key_digest(key), &self.folded))
    }
}

/// `Catalog.fold_object`
pub(crate) fn fold_object(
    py: Python<'_>,
    catalog: &Catalog,
    group: &str,
    cells: &[(u16, PyBackedBytes)],
    delete_timestamp: Option<i64>,
    now_ms: i64,
) -> PyResult<Option<FoldedRecord>> {
    let found = find(py, catalog, group)?;
    let cells = cells.iter().map(|(field_id, cell)| (*field_id, &**cell));
    let folded = fold::fold(found, cells, delete_timestamp, now_ms);
    Ok(folded.map_err(|failure| error::decode(py, &failure))?.map(FoldedRecord::new))
}

/// `Catalog.decode_event`
pub(crate) fn decode_event<'py>(
    py: Python<'py>,
    catalog: &Catalog,
    group: &str,
    cell: &[u8],
) -> PyResult<(i64, Bound<'py, PyDict>)> {
    let found = find(py, catalog, group)?;
    event(py, found, cell)
}

/// Event time and values of one event cell, under the group's current schema.
pub(crate) fn event<'py>(
    py: Python<'py>,
    group: &Group,
    cell: &[u8],
) -> PyResult<(i64, Bound<'py, PyDict>)> {
    let refuse = |failure: Error| error::decode(py, &failure);
    let cell = Cell::open(cell).map_err(refuse)?;
    let (_, body) = fold::upgrade(group, cell.fingerprint, cell.body, None).map_err(refuse)?;
    Ok((cell.event_time_ms(), values(py, group.current(), &body)?))
}

/// `Catalog.decode_block`
pub(crate) fn decode_block(
    py: Python<'_>,
    catalog: &Catalog,
    group: &str,
    bytes: &[u8],
) -> PyResult<FoldedRecord> {
    let refuse = |failure: Error| error::decode(py, &failure);
    let found = find(py, catalog, group)?;
    let Block::Object(opened) = Block::open_of_any_key(bytes, found).map_err(refuse)? else {
        let message = "the block holds no record of an Object";
        return Err(refuse(Error::new(Kind::Corrupt, message).at(1)));
    };
    let (written, body) = opened.upgrade(found).map_err(refuse)?;
    Ok(FoldedRecord::new(Folded {
        newest_event_time_ms: opened.newest_event_time_ms,
        oldest_event_time_ms: opened.oldest_event_time_ms,
        written,
        schema: Arc::clone(found.current()),
        body,
    }))
}

/// `Catalog.history_block`
pub(crate) fn history_block<'py>(
    py: Python<'py>,
    key: &[u8],
    cells: &[Bound<'py, PyBytes>],
) -> PyResult<Bound<'py, PyBytes>> {
    let opened = cells.iter().map(|cell| Cell::open(cell.as_bytes()).map(Event::from));
    let events: Result<Vec<Event<'_>>, Error> = opened.collect();
    let sealed = events.and_then(|events| block::seal_history(key_digest(key), events));
    Ok(PyBytes::new(py, &sealed.map_err(|failure| error::decode(py, &failure))?))
}

/// `Catalog.transcode`
pub(crate) fn transcode<'py>(
    py: Python<'py>,
    catalog: &Catalog,
    group: &str,
    cells: &[Bound<'py, PyBytes>],
    fields: Option<&[String]>,
    layout: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let refuse = |failure: Error| error::decode(py, &failure);
    let layout = match layout {
        "rows" => Layout::Row,
        "objects" => Layout::Object,
        _ => {
            let message = format!("layout is `rows` or `objects`, got `{layout}`");
            return Err(PyValueError::new_err(message));
        }
    };
    let found = find(py, catalog, group)?;
    let requested = found.current().positions(fields).map_err(refuse)?;
    let cells = cells.iter().map(PyBytesMethods::as_bytes);
    let out = transcode::cells(found, cells, &requested, layout).map_err(refuse)?;
    Ok(PyBytes::new(py, &out))
}

fn find<'c>(py: Python<'_>, catalog: &'c Catalog, group: &str) -> PyResult<&'c Arc<Group>> {
    catalog.find_group(group).map_err(|failure| error::decode(py, &failure))
}

/// Python values of a body, by field name in schema order.
fn values<'py>(
    py: Python<'py>,
    schema: &RecordSchema,
    body: &[u8],
) -> PyResult<Bound<'py, PyDict>> {
    let named = PyDict::new(py);
    let mut sink = ObjectSink { py, values: Vec::with_capacity(schema.fields.len()), list: None };
    decode(schema, body, &mut sink).map_err(|failure| match failure {
        Failure::Core(failure) => error::decode(py, &failure),
        Failure::Python(failure) => failure,
    })?;
    for (field, value) in schema.fields.iter().zip(sink.values) {
        named.set_item(&field.name, value)?;
    }
    Ok(named)
}

/// Either side's error, on its way out of a walk.
enum Failure {
    Core(Error),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(failure: Error) -> Self {
        Self::Core(failure)
    }
}

impl From<PyErr> for Failure {
    fn from(failure: PyErr) -> Self {
        Self::Python(failure)
    }
}

/// Makes one Python object a value.
struct ObjectSink<'py> {
    py: Python<'py>,
    values: Vec<Bound<'py, PyAny>>,
    list: Option<Vec<Bound<'py, PyAny>>>,
}

impl<'py> ObjectSink<'py> {
    fn push(&mut self, value: Bound<'py, PyAny>) {
        self.list.as_mut().unwrap_or(&mut self.values).push(value);
    }
}

impl Sink for ObjectSink<'_> {
    type Error = Failure;

    fn null(&mut self) -> Result<(), Failure> {
        self.push(PyNone::get(self.py).to_owned().into_any());
        Ok(())
    }
    fn boolean(&mut self, value: bool) -> Result<(), Failure> {
        self.push(PyBool::new(self.py, value).to_owned().into_any());
        Ok(())
    }
    fn integer(&mut self, value: i32) -> Result<(), Failure> {
        self.push(PyInt::new(self.py, value).into_any());
        Ok(())
    }
    fn long(&mut self, value: i64) -> Result<(), Failure> {
        self.push(PyInt::new(self.py, value).into_any());
        Ok(())
    }
    fn float(&mut self, value: f32) -> Result<(), Failure> {
        self.push(PyFloat::new(self.py, f64::from(value)).into_any());
        Ok(())
    }
    fn double(&mut self, value: f64) -> Result<(), Failure> {
        self.push(PyFloat::new(self.py, value).into_any());
        Ok(())
    }
    fn text(&mut self, value: &str) -> Result<(), Failure> {
        self.push(PyString::new(self.py, value).into_any());
        Ok(())
    }
    fn bytes(&mut self, value: &[u8]) -> Result<(), Failure> {
        self.push(PyBytes::new(self.py, value).into_any());
        Ok(())
    }
    fn date(&mut self, days: i32) -> Result<(), Failure> {
        let (year, month, day) = calendar(i64::from(days))?;
        self.push(PyDate::new(self.py, year, month, day)?.into_any());
        Ok(())
    }
    fn timestamp(&mut self, micros: i64) -> Result<(), Failure> {
        let (year, month, day) = calendar(text::day_of(micros))?;
        let (hour, minute, second, fraction) = text::clock(micros);
        let zone = PyTzInfo::utc(self.py)?;
        let made = PyDateTime::new(
            self.py,
            year,
            month,
            day,
            narrow(hour)?,
            narrow(minute)?,
            narrow(second)?,
            u32::try_from(fraction).map_err(|_| beyond_python())?,
            Some(&zone),
        )?;
        self.push(made.into_any());
        Ok(())
    }
    fn begin_list(&mut self) -> Result<(), Failure> {
        self.list = Some(Vec::new());
        Ok(())
    }
    fn end_list(&mut self) -> Result<(), Failure> {
        let items = self.list.take().unwrap_or_default();
        self.push(PyList::new(self.py, items)?.into_any());
        Ok(())
    }
}

fn calendar(days: i64) -> Result<(i32, u8, u8), Error> {
    let (year, month, day) = text::calendar(days);
    if !(1..=9999).contains(&year) {
        return Err(beyond_python());
    }
    Ok((i32::try_from(year).map_err(|_| beyond_python())?, narrow(month)?, narrow(day)?))
}

fn narrow(part: i64) -> Result<u8, Error> {
    u8::try_from(part).map_err(|_| beyond_python())
}

fn beyond_python() -> Error {
    Error::new(Kind::OutOfRange, "a date outside years 1 to 9999 has no Python value")
}
