//! What a command becomes: writes, each for one store row.

use crate::format::WRITE_TIMESTAMP_PER_MS;

/// What a write does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutationKind {
    /// Puts the whole-record cell of an Object.
    Record,
    /// Puts the patch cell of one field of an Object.
    Patch(u16),
    /// Adds one event to a History.
    Event,
    /// Deletes an Object row up to the write timestamp.
    DeleteRow,
    /// Deletes a History's events up to the write timestamp.
    DeleteHistory,
}

/// One write. Borrowed from the batch that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation<'a> {
    /// Position of its command in the batch that was given.
    pub index: usize,
    /// What to do.
    pub kind: MutationKind,
    /// Key bytes, group id included.
    pub key: &'a [u8],
    /// Event time in ms × 1000 + tie.
    pub write_timestamp: i64,
    /// Content digest: the event id of a History event.
    pub digest: u64,
    /// Event time + ttl in ms, None without a ttl.
    pub expires_at_ms: Option<i64>,
    /// The sealed cell; empty for deletes.
    pub cell: &'a [u8],
}

impl Mutation<'_> {
    /// The id of the group that the key begins with.
    #[must_use]
    pub fn group_id(&self) -> u32 {
        self.key.first_chunk().map_or(0, |id| u32::from_be_bytes(*id))
    }

    /// Event time in ms.
    #[must_use]
    pub const fn event_time_ms(&self) -> i64 {
        self.write_timestamp.div_euclid(WRITE_TIMESTAMP_PER_MS)
    }
}
