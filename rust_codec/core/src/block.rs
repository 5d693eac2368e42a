//! Blocks: what caches hold of one row. The layout is in [`crate::format`].
//!
//! Whether a block is still good (oldest + ttl, the tier's own ttl) is the caller's decision.

use crate::catalog::Group;
use crate::cell::Cell;
use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::fold::{self, Folded, Upgraded};
use crate::format::{
    BLOCK_ABSENT, BLOCK_HEADER_BYTES, BLOCK_HISTORY, BLOCK_LAYOUT, SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
};
use crate::transcode::is_written;

/// An opened block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block<'a> {
    /// The row was looked for and is not there.
    Absent,
    /// The folded record of an Object.
    Object(ObjectBlock<'a>),
    /// The newest events of a History.
    History(HistoryBlock<'a>),
}

/// A folded record in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectBlock<'a> {
    /// Event time of the newest live cell, ms.
    pub newest_event_time_ms: i64,
    /// Event time of the oldest live cell, ms.
    pub oldest_event_time_ms: i64,
    /// Bit i of byte i/8: whether value field i of the record's schema was ever written.
    pub written: &'a [u8],
    /// Fingerprint of the record's schema, one of the group's.
    pub fingerprint: u64,
    /// Avro body.
    pub body: &'a [u8],
}

/// Events in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBlock<'a> {
    /// Event time of the newest event, ms.
    pub newest_event_time_ms: i64,
    /// Event time of the oldest event, ms.
    pub oldest_event_time_ms: i64,
    count: u16,
    events: &'a [u8],
}

/// One event of a History.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Event time, ms.
    pub event_time_ms: i64,
    /// Fingerprint of its writer's schema.
    pub fingerprint: u64,
    /// Avro body.
    pub body: &'a [u8],
}

impl<'a> From<Cell<'a>> for Event<'a> {
    fn from(cell: Cell<'a>) -> Self {
        Self { event_time_ms: cell.event_time_ms(), fingerprint: cell.fingerprint, body: cell.body }
    }
}

impl<'a> ObjectBlock<'a> {
    /// The record under the group's current schema.
    pub fn upgrade(&self, group: &Group) -> Result<Upgraded<'a>> {
        let fields = fold::schema_of(group, self.fingerprint)?.fields.len();
        let all = (0..fields).all(|position| is_written(self.written, position));
        fold::upgrade(group, self.fingerprint, self.body, (!all).then_some(self.written))
    }
}

impl<'a> HistoryBlock<'a> {
    /// Number of events.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// The events, newest first.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        // `open` walked them all, so that no error is left to come here.
        let mut cursor = Cursor::new(self.events);
        (0..self.count).map_while(move |_| read_event(&mut cursor).ok())
    }
}

impl<'a> Block<'a> {
    /// Opens a block of the row of `group` whose key has this digest.
    ///
    /// Fails with [`Kind::Checksum`] for damaged bytes, [`Kind::Corrupt`] for a foreign layout or
    /// another key's block, and [`Kind::UnknownSchema`] when no schema of the group fits.
    pub fn open(bytes: &'a [u8], key_digest: u64, group: &Group) -> Result<Self> {
        Self::open_checked(bytes, Some(key_digest), group)
    }

    /// The same for whichever key it is: for tools that hold a block alone.
    pub fn open_of_any_key(bytes: &'a [u8], group: &Group) -> Result<Self> {
        Self::open_checked(bytes, None, group)
    }

    fn open_checked(bytes: &'a [u8], key_digest: Option<u64>, group: &Group) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        if cursor.byte()? != BLOCK_LAYOUT {
            return Err(Error::new(Kind::Corrupt, "unknown block layout version").at(0));
        }
        let flags = cursor.byte()?;
        let checksum = u32::from_le_bytes(cursor.array()?);
        if checksum != checksum_of(flags, cursor.rest()) {
            return Err(Error::new(Kind::Checksum, "the block's checksum does not match").at(2));
        }
        let found = u64::from_le_bytes(cursor.array()?);
        if key_digest.is_some_and(|expected| expected != found) {
            return Err(Error::new(Kind::Corrupt, "the block is another key's").at(6));
        }
        let newest_event_time_ms = i64::from_le_bytes(cursor.array()?);
        let oldest_event_time_ms = i64::from_le_bytes(cursor.array()?);
        match flags {
            BLOCK_ABSENT => {
                cursor.finish()?;
                Ok(Self::Absent)
            }
            BLOCK_HISTORY => {
                let count = u16::from_le_bytes(cursor.array()?);
                let events = cursor.rest();
                for _ in 0..count {
                    read_event(&mut cursor)?;
                }
                cursor.finish()?;
                Ok(Self::History(HistoryBlock {
                    newest_event_time_ms,
                    oldest_event_time_ms,
                    count,
                    events,
                }))
            }
            0 => {
                let (written, fingerprint, body) = open_record(cursor.rest(), group)?;
                Ok(Self::Object(ObjectBlock {
                    newest_event_time_ms,
                    oldest_event_time_ms,
                    written,
                    fingerprint,
                    body,
                }))
            }
            _ => Err(Error::new(Kind::Corrupt, "unknown block flags").at(1)),
        }
    }
}

/// Splits bitmap, fingerprint and body. The bitmap's length follows from the schema, whose
/// fingerprint stands behind it: the one of the group's schemas that is found at its own place.
fn open_record<'a>(rest: &'a [u8], group: &Group) -> Result<(&'a [u8], u64, &'a [u8])> {
    for schema in group.schemas.iter().rev() {
        let fields = schema.fields.len();
        let Some((written, record)) = rest.split_at_checked(fields.div_ceil(8)) else { continue };
        let Some((header, body)) = record.split_first_chunk::<SINGLE_OBJECT_HEADER_BYTES>() else {
            continue;
        };
        if *header != single_object_header(schema.fingerprint) {
            continue;
        }
        let spare = written.last().map_or(0, |last| match fields % 8 {
            0 => 0,
            used => last >> used,
        });
        if spare != 0 {
            let offset = BLOCK_HEADER_BYTES.saturating_add(written.len()).saturating_sub(1);
            return Err(Error::new(Kind::Corrupt, "unused bits are set").at(offset));
        }
        return Ok((written, schema.fingerprint, body));
    }
    let message = format!("the block's schema is none of `{}`", group.name);
    Err(Error::new(Kind::UnknownSchema, message).at(BLOCK_HEADER_BYTES))
}

fn read_event<'a>(cursor: &mut Cursor<'a>) -> Result<Event<'a>> {
    let event_time_ms = i64::from_le_bytes(cursor.array()?);
    let start = cursor.offset();
    let length = usize::try_from(u32::from_le_bytes(cursor.array()?)).unwrap_or(usize::MAX);
    let mut record = Cursor::new(cursor.take(length)?);
    if record.array::<2>()? != SINGLE_OBJECT_MARKER {
        return Err(Error::new(Kind::Corrupt, "no Avro single-object marker").at(start));
    }
    let fingerprint = u64::from_le_bytes(record.array()?);
    Ok(Event { event_time_ms, fingerprint, body: record.rest() })
}

fn single_object_header(fingerprint: u64) -> [u8; SINGLE_OBJECT_HEADER_BYTES] {
    let mut header = [0; SINGLE_OBJECT_HEADER_BYTES];
    let (marker, print) = header.split_at_mut(SINGLE_OBJECT_MARKER.len());
    marker.copy_from_slice(&SINGLE_OBJECT_MARKER);
    print.copy_from_slice(&fingerprint.to_le_bytes());
    header
}

/// Appends an Avro single-object encoding: marker, fingerprint, body.
pub fn push_single_object(out: &mut Vec<u8>, fingerprint: u64, body: &[u8]) {
    out.extend_from_slice(&single_object_header(fingerprint));
    out.extend_from_slice(body);
}

/// Seals a block that says that the row is not there.
#[must_use]
pub fn seal_absent(key_digest: u64) -> Vec<u8> {
    let mut out = begin(BLOCK_ABSENT, key_digest, 0, 0);
    finish(&mut out);
    out
}

/// Seals the block of a folded record.
#[must_use]
pub fn seal_object(key_digest: u64, folded: &Folded<'_>) -> Vec<u8> {
    let newest = folded.newest_event_time_ms;
    let mut out = begin(0, key_digest, newest, folded.oldest_event_time_ms);
    match &folded.written {
        Some(bits) => out.extend_from_slice(bits),
        None => push_all_written(&mut out, folded.schema.fields.len()),
    }
    push_single_object(&mut out, folded.schema.fingerprint, &folded.body);
    finish(&mut out);
    out
}

/// Seals the block of a History's events, which must come newest first; without any it is absent.
///
/// Fails with [`Kind::TooLarge`] beyond 65,535 events or an event of 4 GiB.
pub fn seal_history<'a>(
    key_digest: u64,
    events: impl IntoIterator<Item = Event<'a>>,
) -> Result<Vec<u8>> {
    let events: Vec<Event<'a>> = events.into_iter().collect();
    let (Some(newest), Some(oldest)) = (events.first(), events.last()) else {
        return Ok(seal_absent(key_digest));
    };
    let too_large = || Error::new(Kind::TooLarge, "a History is too large for a block");
    let (newest, oldest) = (newest.event_time_ms, oldest.event_time_ms);
    let mut out = begin(BLOCK_HISTORY, key_digest, newest, oldest);
    let count = u16::try_from(events.len()).map_err(|_| too_large())?;
    out.extend_from_slice(&count.to_le_bytes());
    for event in events {
        let length = event.body.len().saturating_add(SINGLE_OBJECT_HEADER_BYTES);
        out.extend_from_slice(&event.event_time_ms.to_le_bytes());
        let length = u32::try_from(length).map_err(|_| too_large())?;
        out.extend_from_slice(&length.to_le_bytes());
        push_single_object(&mut out, event.fingerprint, event.body);
    }
    finish(&mut out);
    Ok(out)
}

fn push_all_written(out: &mut Vec<u8>, fields: usize) {
    out.extend(std::iter::repeat_n(0xFF_u8, fields / 8));
    let used = fields % 8;
    if used > 0 {
        out.push(0xFF_u8 >> (8_usize.saturating_sub(used)));
    }
}

fn begin(flags: u8, key_digest: u64, newest: i64, oldest: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&[BLOCK_LAYOUT, flags, 0, 0, 0, 0]);
    out.extend_from_slice(&key_digest.to_le_bytes());
    out.extend_from_slice(&newest.to_le_bytes());
    out.extend_from_slice(&oldest.to_le_bytes());
    out
}

fn finish(out: &mut [u8]) {
    if let Some(([_, flags, checksum @ ..], rest)) = out.split_first_chunk_mut::<6>() {
        *checksum = checksum_of(*flags, rest).to_le_bytes();
    }
}

/// CRC32C over layout, flags and everything behind the checksum.
fn checksum_of(flags: u8, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[BLOCK_LAYOUT, flags]), rest)
}
