//! `Placement`: which cache node holds a key.

use headrace_codec::key::key_digest;
use headrace_codec::placement as core;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::error::schema;

/// The nodes of one cache and the epoch of their list.
#[pyclass(frozen, module = "headrace.codec")]
pub(crate) struct Placement {
    pub(crate) inner: core::Placement,
}

#[pymethods]
impl Placement {
    #[new]
    #[pyo3(signature = (nodes, *, epoch))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts owned arguments")]
    fn new(py: Python<'_>, nodes: Vec<String>, epoch: u32) -> PyResult<Self> {
        let names = nodes.iter().map(String::as_str);
        let made = core::Placement::new(names, epoch);
        made.map(|inner| Self { inner }).map_err(|error| schema(py, &error))
    }

    /// Position of the node that holds a key.
    fn node(&self, key: &[u8]) -> usize {
        self.inner.node(key_digest(key))
    }

    /// The cache key of a key's block.
    fn block_key<'py>(&self, py: Python<'py>, key: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &[self.inner.block_prefix(), key].concat())
    }

    /// The cache key of a key's lease.
    fn lease_key<'py>(&self, py: Python<'py>, key: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &[self.inner.lease_prefix(), key].concat())
    }

    /// Node, block key and lease key of many keys.
    fn places<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let places = PyList::empty(py);
        for key in keys {
            let key = key.cast::<PyBytes>()?.as_bytes();
            places.append((self.node(key), self.block_key(py, key), self.lease_key(py, key)))?;
        }
        Ok(places)
    }

    /// Block and lease keys of many keys, one list a node: what an invalidation deletes.
    fn invalidations<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyList>,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let lists: Vec<_> = (0..self.inner.nodes()).map(|_| PyList::empty(py)).collect();
        for key in keys {
            let key = key.cast::<PyBytes>()?.as_bytes();
            if let Some(list) = lists.get(self.inner.node(key_digest(key))) {
                list.append(self.block_key(py, key))?;
                list.append(self.lease_key(py, key))?;
            }
        }
        Ok(lists)
    }
}
