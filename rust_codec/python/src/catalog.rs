//! `Catalog`: one generation of the compiled registry.

use std::sync::Arc;

use headrace_codec::catalog::{Catalog as CoreCatalog, Group};
use headrace_codec::error::{Error, Kind};
use headrace_codec::key::{KeyValue, KeyWriter, decode_key};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyMapping, PyString};

use crate::error;
use crate::record::{self, FoldedRecord};

/// One generation of the compiled registry, frozen: the only thing encode and decode accept.
#[pyclass(frozen, module = "headrace.codec._codec")]
pub(crate) struct Catalog {
    /// Shared with whatever still works under this generation.
    pub(crate) core: Arc<CoreCatalog>,
}

#[pymethods]
impl Catalog {
    /// Compile a catalog document (JSON, see `headrace.registry.catalog`); raises `SchemaError`.
    #[new]
    fn new(py: Python<'_>, document: &[u8]) -> PyResult<Self> {
        let core = py
            .detach(|| CoreCatalog::from_json(document))
            .map_err(|failure| error::schema(py, &failure))?;
        Ok(Self { core: Arc::new(core) })
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.core.generation
    }

    /// The id of a group, or None when the catalog has no group of that name.
    fn group_id(&self, group: &str) -> Option<u32> {
        self.core.group(group).map(|found| found.id)
    }

    /// The name of a group by id, or None when the catalog has no such id.
    fn group_name(&self, group_id: u32) -> Option<&str> {
        self.core.group_by_id(group_id).map(|found| found.name.as_str())
    }

    /// CRC-64-AVRO of the group's current record schema; `KeyError` for an unknown group.
    fn fingerprint(&self, group: &str) -> PyResult<u64> {
        let found = self.core.group(group).ok_or_else(|| PyKeyError::new_err(group.to_owned()))?;
        Ok(found.current().fingerprint)
    }

    /// The Avro schema (JSON text) of any schema ever registered, by fingerprint.
    fn avro_schema(&self, fingerprint: u64) -> Option<&str> {
        self.core.schema(fingerprint).map(|(_, schema)| schema.avro.as_str())
    }

    /// Key bytes (semantics 8) from one value per key field; raises `EncodeError`.
    fn encode_key<'py>(
        &self,
        py: Python<'py>,
        group: &str,
        keys: &Bound<'py, PyMapping>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let found = self.core.find_group(group).map_err(|failure| error::encode(py, &failure))?;
        let key = key_bytes(found, keys)?;
        Ok(PyBytes::new(py, &key))
    }

    /// Group name and key fields of key bytes; raises `DecodeError`.
    fn decode_key<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
    ) -> PyResult<(String, Bound<'py, PyDict>)> {
        let (group, values) =
            decode_key(&self.core, key).map_err(|failure| error::decode(py, &failure))?;
        let named = PyDict::new(py);
        for (field, value) in group.keys.iter().zip(values) {
            match value {
                KeyValue::Integer(number) => named.set_item(&field.name, number)?,
                KeyValue::Text(text) => named.set_item(&field.name, text)?,
            }
        }
        Ok((group.name.clone(), named))
    }

    /// Group name and key values, in schema order, of many keys; raises `DecodeError`.
    fn decode_keys<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let decoded = PyList::empty(py);
        let mut name: Option<(Arc<Group>, Bound<'py, PyString>)> = None;
        for key in keys {
            let (group, values) = decode_key(&self.core, key.cast::<PyBytes>()?.as_bytes())
                .map_err(|failure| error::decode(py, &failure))?;
            // Keys of one request are of few groups: a name is made once for a run of them.
            let text = match name.take() {
                Some((known, text)) if known.id == group.id => text,
                _ => PyString::new(py, &group.name),
            };
            let parameters = PyList::empty(py);
            for value in values {
                match value {
                    KeyValue::Integer(number) => parameters.append(number)?,
                    KeyValue::Text(text) => parameters.append(text)?,
                }
            }
            decoded.append((&text, parameters))?;
            name = Some((group, text));
        }
        Ok(decoded)
    }

    /// Fold the cells of one Object row; None when no cell is live. Raises `DecodeError`.
    #[pyo3(signature = (group, cells, *, delete_timestamp, now_ms))]
    #[expect(clippy::needless_pass_by_value, reason = "arguments arrive as owned values")]
    fn fold_object(
        &self,
        py: Python<'_>,
        group: &str,
        cells: Vec<(u16, PyBackedBytes)>,
        delete_timestamp: Option<i64>,
        now_ms: i64,
    ) -> PyResult<Option<FoldedRecord>> {
        record::fold_object(py, &self.core, group, &cells, delete_timestamp, now_ms)
    }

    /// Event time in ms and the value fields of one History event, as Python values.
    fn decode_event<'py>(
        &self,
        py: Python<'py>,
        group: &str,
        cell: &[u8],
    ) -> PyResult<(i64, Bound<'py, PyDict>)> {
        record::decode_event(py, &self.core, group, cell)
    }

    /// Open a cache block (checks layout, CRC and schema); raises `DecodeError`.
    fn decode_block(&self, py: Python<'_>, group: &str, block: &[u8]) -> PyResult<FoldedRecord> {
        record::decode_block(py, &self.core, group, block)
    }

    /// The cache block of a History's events, given as cells, newest first.
    #[expect(clippy::needless_pass_by_value, clippy::unused_self, reason = "pyo3; no static")]
    fn history_block<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        cells: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        record::history_block(py, key, &cells)
    }

    /// JSON array of the rows of whole-record cells; raises `DecodeError`.
    #[pyo3(signature = (group, cells, fields, *, layout))]
    #[expect(clippy::needless_pass_by_value, reason = "arguments arrive as owned values")]
    fn transcode<'py>(
        &self,
        py: Python<'py>,
        group: &str,
        cells: Vec<Bound<'py, PyBytes>>,
        fields: Option<Vec<String>>,
        layout: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        record::transcode(py, &self.core, group, &cells, fields.as_deref(), layout)
    }
}

fn key_bytes(group: &Group, keys: &Bound<'_, PyMapping>) -> PyResult<Vec<u8>> {
    let py = keys.py();
    let refuse = |failure: &Error| error::encode(py, failure);
    for name in keys.keys()? {
        let name: String = name.extract()?;
        if !group.keys.iter().any(|field| field.name == name) {
            let message = format!("`{name}` is no key field of `{}`", group.name);
            return Err(refuse(&Error::new(Kind::Key, message)));
        }
    }
    let mut out = Vec::new();
    let mut writer = KeyWriter::new(group, &mut out);
    for field in &group.keys {
        if !keys.contains(&field.name)? {
            break; // `finish` names it.
        }
        let value = keys.get_item(&field.name)?;
        push(&mut writer, &field.name, &value)?.map_err(|failure| refuse(&failure))?;
    }
    writer.finish().map_err(|failure| refuse(&failure))?;
    Ok(out)
}

fn push(
    writer: &mut KeyWriter<'_>,
    name: &str,
    value: &Bound<'_, PyAny>,
) -> PyResult<Result<(), Error>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(writer.push_text(&text.to_string_lossy()));
    }
    if value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>() {
        return Ok(match value.extract::<i64>() {
            Ok(number) => writer.push_integer(number),
            Err(_) => Err(Error::new(Kind::Key, "the number does not fit 64 bits").under(name)),
        });
    }
    let kind = value.get_type().name()?;
    let message = format!("a key is an int or a str, got {kind}");
    Ok(Err(Error::new(Kind::Key, message).under(name)))
}
