//! Reading: one snapshot, rows borrowed from the map.

use heed::RoPrefix;
use heed::types::Bytes;

use crate::environment::Reading;
use crate::error::{Error, Result};
use crate::layout::{HistoryHead, ObjectRow, read_event_key};

/// One snapshot of the store; what it lends lives as long as it does.
///
/// Keep it short: pages that it can see are not used again meanwhile. Do not begin a second one on the
/// same thread while holding one: a map that grows in between would wait for both.
pub struct ReadTransaction<'s> {
    reading: Reading<'s>,
}

impl<'s> ReadTransaction<'s> {
    pub(crate) const fn new(reading: Reading<'s>) -> Self {
        Self { reading }
    }

    /// The row of an Object: delete marker and cells, borrowed from the map.
    ///
    /// None when the key was never written. Readers decide expiry themselves (semantics 3).
    pub fn object_row(&self, key: &[u8]) -> Result<Option<ObjectRow<'_>>> {
        let row = self.reading.rows.get(&self.reading.transaction, key)?;
        Ok(row.map(ObjectRow::parse).transpose()?)
    }

    /// Puts the cells of an Object row into `cells` and returns the write timestamp of its newest
    /// DELETE: what [`Self::object_row`] gives, in one walk.
    pub fn object_cells<'t>(
        &'t self,
        key: &[u8],
        cells: &mut Vec<(u16, &'t [u8])>,
    ) -> Result<Option<i64>> {
        let Some(row) = self.reading.rows.get(&self.reading.transaction, key)? else {
            return Ok(None);
        };
        let marker = ObjectRow::read_into(row, cells)?;
        Ok(marker.map(|marker| marker.write_timestamp))
    }

    /// At most `limit` events of a History, newest first; deleted ones are already gone.
    pub fn events(&self, key: &[u8], limit: usize) -> Result<Events<'_>> {
        let mut entries = self.reading.rows.prefix_iter(&self.reading.transaction, key)?;
        if let Some(head) = entries.next() {
            HistoryHead::parse(head?.1)?;
        }
        Ok(Events { entries, key_bytes: key.len(), left: limit })
    }

    /// A small named value.
    pub fn named(&self, name: &str) -> Result<Option<&[u8]>> {
        Ok(self.reading.names.get(&self.reading.transaction, name.as_bytes())?)
    }

    /// Every name that begins with `prefix`, in byte order.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.reading.names.iter(&self.reading.transaction)? {
            let name = String::from_utf8_lossy(entry?.0);
            if name.starts_with(prefix) {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Distinct keys of a group that hold a cell, in byte order.
    pub fn keys(&self, group_id: u32) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::<Vec<u8>>::new();
        let prefix = group_id.to_be_bytes();
        for entry in self.reading.rows.prefix_iter(&self.reading.transaction, &prefix)? {
            let (key, value) = entry?;
            // Keys of a group are prefix-free: an extension of a key is one of its events.
            if keys.last().is_none_or(|last| !key.starts_with(last)) && holds_a_cell(value)? {
                keys.push(key.to_vec());
            }
        }
        Ok(keys)
    }

    /// Entries of the rows table: Object rows, History heads and events.
    pub fn entries(&self) -> Result<u64> {
        Ok(self.reading.rows.len(&self.reading.transaction)?)
    }
}

fn holds_a_cell(value: &[u8]) -> Result<bool> {
    match HistoryHead::parse(value) {
        Ok(head) => Ok(head.count > 0),
        Err(_) => Ok(ObjectRow::parse(value)?.cells().next().is_some()),
    }
}

/// One event of a History.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'t> {
    /// Event time in milliseconds.
    pub event_time_ms: i64,
    /// Content digest.
    pub event_id: u64,
    /// Cell bytes, not opened yet.
    pub cell: &'t [u8],
}

/// Events of one History, newest first.
pub struct Events<'t> {
    entries: RoPrefix<'t, Bytes, Bytes>,
    key_bytes: usize,
    left: usize,
}

impl<'t> Iterator for Events<'t> {
    type Item = Result<Event<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.entries.next()?;
        Some(entry.map_err(Error::from).and_then(|(key, cell)| {
            let event = key
                .split_at_checked(self.key_bytes)
                .and_then(|(history, _)| read_event_key(history, key));
            let (event_time_ms, event_id) = event.ok_or_else(|| {
                use headrace_codec::error::{Error, Kind};
                Error::new(Kind::Corrupt, "an entry of a History is no event")
            })?;
            Ok(Event { event_time_ms, event_id, cell })
        }))
    }
}
