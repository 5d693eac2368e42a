//! The layout of the `rows` table. Integers are little-endian unless a table says BE.
//!
//! Cells are those of `headrace_codec::format`; this module only frames them. Keys of one group are
//! prefix-free (every field has a fixed width or carries its length), so an event's key can extend
//! the key of its History.
//!
//! # Object: key → row
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | [`OBJECT_LAYOUT`] |
//! | 1 | flags: bit 0 a delete marker follows; all others zero |
//! | 18 | with flag bit 0: the delete marker |
//! | 8 + n each | a frame, ascending by field id: field id u16 (0: whole record), cell length u32, check u16, cell |
//!
//! # History: key → head, then key · event → cell
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | [`HISTORY_LAYOUT`] |
//! | 1 | flags as above |
//! | 4 + 2 | event count u32, check u16 |
//! | 18 | with flag bit 0: the delete marker |
//!
//! An event's key is the History's key, the event time i64 BE and the event id u64 BE, both with every
//! bit turned (the time's sign bit first), so that the newest event sorts first.
//!
//! # Delete marker
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | write timestamp i64 of the newest DELETE |
//! | 8 | when it arrived, i64 ms; it is kept for [`DELETE_GRACE_MS`] from then |
//! | 2 | check |
//!
//! A check is the low half of the CRC32C of the bytes it follows, so that a damaged frame is an error
//! and never a cell under another field.

use headrace_codec::cursor::Cursor;
use headrace_codec::error::{Error, Kind, Result};

/// First byte of an Object row.
pub const OBJECT_LAYOUT: u8 = 0x11;
/// First byte of a History head.
pub const HISTORY_LAYOUT: u8 = 0x21;
/// How long a delete marker outlives its arrival: 10 days (semantics 4).
pub const DELETE_GRACE_MS: i64 = 10 * 24 * 60 * 60 * 1000;
/// How long an expired cell is kept beyond its expiry: 1 day (semantics 3).
pub const EXPIRED_GRACE_MS: i64 = 24 * 60 * 60 * 1000;
/// Field id of a whole-record cell.
pub const RECORD_FIELD_ID: u16 = 0;
/// Bytes that an event's key adds to the key of its History.
pub const EVENT_KEY_BYTES: usize = 16;

const HAS_MARKER: u8 = 0b0000_0001;

/// The newest DELETE of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteMarker {
    /// Everything at or below this write timestamp is gone.
    pub write_timestamp: i64,
    /// When the DELETE reached this store.
    pub arrived_at_ms: i64,
}

impl DeleteMarker {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        let bytes: [u8; 16] = checked(cursor)?;
        let (timestamp, arrival) = bytes.split_at(8);
        Ok(Self { write_timestamp: long(timestamp), arrived_at_ms: long(arrival) })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.write_timestamp.to_le_bytes());
        out.extend_from_slice(&self.arrived_at_ms.to_le_bytes());
        push_check(out, start);
    }
}

/// An Object row, its framing checked; its cells are not opened yet.
#[derive(Debug, Clone, Copy)]
pub struct ObjectRow<'a> {
    /// The newest DELETE; cells at or below it are already gone.
    pub marker: Option<DeleteMarker>,
    frames: &'a [u8],
}

impl<'a> ObjectRow<'a> {
    /// Checks the framing of a row.
    pub fn parse(row: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(row);
        let flagged = open(&mut cursor, OBJECT_LAYOUT)?;
        let marker = flagged.then(|| DeleteMarker::read(&mut cursor)).transpose()?;
        let frames = cursor.rest();
        let mut previous = None;
        while !cursor.rest().is_empty() {
            let (field_id, _) = read_frame(&mut cursor)?;
            if previous.is_some_and(|previous| previous >= field_id) {
                return Err(
                    Error::new(Kind::Corrupt, "a row's cells are out of order").at(cursor.offset())
                );
            }
            previous = Some(field_id);
        }
        Ok(Self { marker, frames })
    }

    /// Puts the cells of a row into `cells` and returns its marker, in one walk: what
    /// [`Self::parse`] and [`Self::cells`] give together. On an error `cells` holds a part.
    pub fn read_into(
        row: &'a [u8],
        cells: &mut Vec<(u16, &'a [u8])>,
    ) -> Result<Option<DeleteMarker>> {
        let mut cursor = Cursor::new(row);
        let deleted = open(&mut cursor, OBJECT_LAYOUT)?;
        let marker = deleted.then(|| DeleteMarker::read(&mut cursor)).transpose()?;
        let mut previous = None;
        while !cursor.rest().is_empty() {
            let (field_id, cell) = read_frame(&mut cursor)?;
            check_order(previous.replace(field_id), field_id, &cursor)?;
            cells.push((field_id, cell));
        }
        Ok(marker)
    }

    /// Write timestamp of the newest DELETE.
    #[must_use]
    pub fn delete_timestamp(&self) -> Option<i64> {
        self.marker.map(|marker| marker.write_timestamp)
    }

    /// The cells as (field id, cell bytes), ascending by field id; id 0 is a whole record.
    #[must_use]
    pub const fn cells(&self) -> Cells<'a> {
        Cells { cursor: Cursor::new(self.frames) }
    }

    /// Appends the bytes of a row.
    pub fn write<'c>(
        out: &mut Vec<u8>,
        marker: Option<DeleteMarker>,
        cells: impl IntoIterator<Item = (u16, &'c [u8])>,
    ) -> Result<()> {
        out.extend_from_slice(&[OBJECT_LAYOUT, u8::from(marker.is_some())]);
        if let Some(marker) = marker {
            marker.write(out);
        }
        for (field_id, cell) in cells {
            let start = out.len();
            let length = u32::try_from(cell.len())
                .map_err(|_| Error::new(Kind::TooLarge, "a cell is longer than 4 GiB"))?;
            out.extend_from_slice(&field_id.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            push_check(out, start);
            out.extend_from_slice(cell);
        }
        Ok(())
    }
}

/// The cells of one Object row.
#[derive(Debug, Clone)]
pub struct Cells<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Cells<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // `ObjectRow::parse` walked every frame, so the only error left is the end.
        read_frame(&mut self.cursor).ok()
    }
}

/// What stands under the key of a History.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryHead {
    /// Events that are stored.
    pub count: u32,
    /// The newest DELETE; events at or below it are already gone.
    pub marker: Option<DeleteMarker>,
}

impl HistoryHead {
    /// Checks and reads a head.
    pub fn parse(head: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(head);
        let flagged = open(&mut cursor, HISTORY_LAYOUT)?;
        let count = u32::from_le_bytes(checked(&mut cursor)?);
        let marker = flagged.then(|| DeleteMarker::read(&mut cursor)).transpose()?;
        cursor.finish()?;
        Ok(Self { count, marker })
    }

    /// Appends the bytes of a head.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[HISTORY_LAYOUT, u8::from(self.marker.is_some())]);
        let start = out.len();
        out.extend_from_slice(&self.count.to_le_bytes());
        push_check(out, start);
        if let Some(marker) = self.marker {
            marker.write(out);
        }
    }
}

/// Writes the key of an event into `out`, replacing what was there.
pub fn event_key(out: &mut Vec<u8>, key: &[u8], event_time_ms: i64, event_id: u64) {
    out.clear();
    out.extend_from_slice(key);
    out.extend_from_slice(&(!(event_time_ms.cast_unsigned() ^ SIGN)).to_be_bytes());
    out.extend_from_slice(&(!event_id).to_be_bytes());
}

/// Event time and event id of an event's key, None when the key is no event of `key`.
#[must_use]
pub fn read_event_key(key: &[u8], event: &[u8]) -> Option<(i64, u64)> {
    let (time, id) = event.strip_prefix(key)?.split_first_chunk::<8>()?;
    let time = (!u64::from_be_bytes(*time) ^ SIGN).cast_signed();
    Some((time, !u64::from_be_bytes(id.try_into().ok()?)))
}

const SIGN: u64 = 1 << 63;

fn open(cursor: &mut Cursor<'_>, layout: u8) -> Result<bool> {
    let [found, flags] = cursor.array()?;
    if found != layout || flags & !HAS_MARKER != 0 {
        return Err(Error::new(Kind::Corrupt, "unknown layout of a stored row").at(0));
    }
    Ok(flags & HAS_MARKER != 0)
}

fn check_order(previous: Option<u16>, field_id: u16, cursor: &Cursor<'_>) -> Result<()> {
    if previous.is_some_and(|previous| previous >= field_id) {
        let message = "a row's cells are out of order";
        return Err(Error::new(Kind::Corrupt, message).at(cursor.offset()));
    }
    Ok(())
}

fn read_frame<'a>(cursor: &mut Cursor<'a>) -> Result<(u16, &'a [u8])> {
    let [id_low, id_high, length @ ..]: [u8; 6] = checked(cursor)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    Ok((u16::from_le_bytes([id_low, id_high]), cursor.take(length)?))
}

fn checked<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u8; N]> {
    let start = cursor.offset();
    let bytes = cursor.array()?;
    if u16::from_le_bytes(cursor.array()?) != check(&bytes) {
        return Err(Error::new(Kind::Checksum, "the check of a stored row fails").at(start));
    }
    Ok(bytes)
}

fn push_check(out: &mut Vec<u8>, start: usize) {
    let check = check(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&check.to_le_bytes());
}

fn check(bytes: &[u8]) -> u16 {
    let [low, high, ..] = crc32c::crc32c(bytes).to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn long(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headrace_codec::cell;

    const MARKER: DeleteMarker = DeleteMarker { write_timestamp: -7, arrived_at_ms: 1 << 40 };

    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        cell::seal(&mut out, 1_700_000_000_000_001, 42, body);
        out
    }

    #[test]
    fn a_row_reads_back_with_its_marker_and_its_cells() {
        let (record, patch) = (sealed(b"record"), sealed(b""));
        for marker in [None, Some(MARKER)] {
            let mut row = Vec::new();
            ObjectRow::write(&mut row, marker, [(0, &*record), (9, &*patch)]).unwrap();
            let parsed = ObjectRow::parse(&row).unwrap();
            assert_eq!(parsed.marker, marker);
            assert_eq!(parsed.cells().collect::<Vec<_>>(), [(0, &*record), (9, &*patch)]);
            let mut cells = Vec::new();
            assert_eq!(ObjectRow::read_into(&row, &mut cells).unwrap(), marker);
            assert_eq!(cells, [(0, &*record), (9, &*patch)]);
        }
    }

    #[test]
    fn a_head_reads_back() {
        for head in [
            HistoryHead::default(),
            HistoryHead { count: u32::MAX, marker: Some(MARKER) },
            HistoryHead { count: 3, marker: None },
        ] {
            let mut bytes = Vec::new();
            head.write(&mut bytes);
            assert_eq!(HistoryHead::parse(&bytes).unwrap(), head);
        }
    }

    #[test]
    fn event_keys_sort_newest_first_and_read_back() {
        let times = [i64::MIN, -1, 0, 1, 1_700_000_000_000, i64::MAX];
        let ids = [0, 1, u64::MAX];
        let mut keys = Vec::new();
        for time in times.into_iter().rev() {
            for id in ids.into_iter().rev() {
                let mut key = Vec::new();
                event_key(&mut key, b"key", time, id);
                assert_eq!(read_event_key(b"key", &key), Some((time, id)));
                keys.push(key);
            }
        }
        assert!(keys.is_sorted());
        assert_eq!(read_event_key(b"key", b"key"), None);
    }

    /// Opens every cell too, as a reader does.
    fn opens(row: &[u8]) -> bool {
        let whole =
            |cells: &[(u16, &[u8])]| cells.iter().all(|(_, bytes)| cell::Cell::open(bytes).is_ok());
        let mut cells = Vec::new();
        let in_one_walk = ObjectRow::read_into(row, &mut cells).is_ok();
        let opens = ObjectRow::parse(row).is_ok_and(|row| whole(&row.cells().collect::<Vec<_>>()));
        assert_eq!(in_one_walk && whole(&cells), opens);
        opens
    }

    #[test]
    fn every_flipped_bit_of_a_row_and_of_a_head_is_detected() {
        let mut row = Vec::new();
        let (record, patch) = (sealed(b"record"), sealed(b"x"));
        ObjectRow::write(&mut row, Some(MARKER), [(0, &*record), (1, &*patch)]).unwrap();
        assert!(opens(&row));
        let mut head = Vec::new();
        HistoryHead { count: 7, marker: Some(MARKER) }.write(&mut head);
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&flipped), "bit {bit} of the row");
        }
        for bit in 0..head.len() * 8 {
            let mut flipped = head.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(HistoryHead::parse(&flipped).is_err(), "bit {bit} of the head");
        }
    }

    #[test]
    fn a_row_cut_short_inside_a_frame_is_detected() {
        let mut row = Vec::new();
        let record = sealed(b"record");
        ObjectRow::write(&mut row, Some(MARKER), [(0, &*record)]).unwrap();
        for length in (0..row.len()).filter(|length| *length != 20) {
            assert!(ObjectRow::parse(&row[..length]).is_err(), "{length} bytes");
        }
    }

    proptest::proptest! {
        /// Whatever lies there: an error, or a row that is written back to the same bytes.
        #[test]
        fn any_bytes_are_an_error_or_one_canonical_row(
            bodies in proptest::collection::vec(proptest::collection::vec(0..=255_u8, 0..9), 0..4),
            marked in proptest::bool::ANY,
            edits in proptest::collection::vec((0..200_usize, 0..=255_u8, 0..4_u8), 0..4),
        ) {
            let cells: Vec<_> = bodies.iter().map(|body| sealed(body)).collect();
            let framed = (0..).step_by(3).zip(cells.iter().map(Vec::as_slice));
            let mut bytes = Vec::new();
            ObjectRow::write(&mut bytes, marked.then_some(MARKER), framed).unwrap();
            for (place, byte, edit) in edits {
                let place = place.min(bytes.len());
                match edit {
                    0 => bytes.truncate(place),
                    1 => bytes.insert(place, byte),
                    _ => bytes.iter_mut().skip(place).take(1).for_each(|old| *old = byte),
                }
            }
            if let Ok(row) = ObjectRow::parse(&bytes) {
                let mut again = Vec::new();
                ObjectRow::write(&mut again, row.marker, row.cells()).unwrap();
                proptest::prop_assert_eq!(again, bytes.clone());
            }
            if let Ok(head) = HistoryHead::parse(&bytes) {
                let mut again = Vec::new();
                head.write(&mut again);
                proptest::prop_assert_eq!(again, bytes);
            }
        }
    }
}
