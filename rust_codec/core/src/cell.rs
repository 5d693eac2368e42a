//! Cells: seal and open. The layout is in [`crate::format`].

use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::format::{CELL_LAYOUT, SINGLE_OBJECT_MARKER, WRITE_TIMESTAMP_PER_MS};

/// An opened cell: the checksum held, the body is not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Event time in ms × 1000 + tie; the higher one wins.
    pub write_timestamp: i64,
    /// CRC32C, as it stands in the bytes.
    pub checksum: u32,
    /// CRC-64-AVRO of the writer's schema.
    pub fingerprint: u64,
    /// Avro body.
    pub body: &'a [u8],
}

impl<'a> Cell<'a> {
    /// Opens and checks a cell.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        if cursor.byte()? != CELL_LAYOUT {
            return Err(Error::new(Kind::Corrupt, "unknown cell layout version").at(0));
        }
        let checksum = u32::from_le_bytes(cursor.array()?);
        if checksum != checksum_of(cursor.rest()) {
            return Err(Error::new(Kind::Checksum, "the cell's checksum does not match").at(1));
        }
        let write_timestamp = i64::from_le_bytes(cursor.array()?);
        if cursor.array::<2>()? != SINGLE_OBJECT_MARKER {
            return Err(Error::new(Kind::Corrupt, "no Avro single-object marker").at(13));
        }
        let fingerprint = u64::from_le_bytes(cursor.array()?);
        Ok(Self { write_timestamp, checksum, fingerprint, body: cursor.rest() })
    }

    /// Event time in milliseconds.
    #[must_use]
    pub const fn event_time_ms(&self) -> i64 {
        self.write_timestamp.div_euclid(WRITE_TIMESTAMP_PER_MS)
    }
}

/// Appends a sealed cell around a body.
pub fn seal(out: &mut Vec<u8>, write_timestamp: i64, fingerprint: u64, body: &[u8]) {
    let stamp = write_timestamp.to_le_bytes();
    let print = fingerprint.to_le_bytes();
    let mut checksum = CHECKSUM_OF_LAYOUT;
    for part in [&stamp[..], &SINGLE_OBJECT_MARKER, &print, body] {
        checksum = crc32c::crc32c_append(checksum, part);
    }
    out.push(CELL_LAYOUT);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&stamp);
    out.extend_from_slice(&SINGLE_OBJECT_MARKER);
    out.extend_from_slice(&print);
    out.extend_from_slice(body);
}

/// CRC32C of the one byte `CELL_LAYOUT`, so that a flipped version byte is detected too.
const CHECKSUM_OF_LAYOUT: u32 = 0xA016_D052;

fn checksum_of(rest: &[u8]) -> u32 {
    crc32c::crc32c_append(CHECKSUM_OF_LAYOUT, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_is_the_checksum_of_the_layout_byte() {
        assert_eq!(crc32c::crc32c(&[CELL_LAYOUT]), CHECKSUM_OF_LAYOUT);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_detected() {
        let mut bytes = Vec::new();
        seal(&mut bytes, 1_700_000_000_000_123, 0xDEAD_BEEF, b"body of a record");
        assert!(Cell::open(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(Cell::open(bytes.get(..length).unwrap_or_default()).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            if let Some(byte) = flipped.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            assert!(Cell::open(&flipped).is_err(), "bit {bit}");
        }
    }
}
