//! The only bounds arithmetic: a reading position over borrowed bytes.

use crate::error::{Error, Kind, Result};

/// A position in bytes; every read checks what is left before it takes.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, rest: bytes }
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.bytes.len().saturating_sub(self.rest.len())
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.early())?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.early())?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8> {
        let (head, rest) = self.rest.split_first().ok_or_else(|| self.early())?;
        self.rest = rest;
        Ok(*head)
    }

    /// A zigzag varint of up to ten bytes.
    #[inline]
    pub fn varint(&mut self) -> Result<i64> {
        let start = self.offset();
        let mut value: u64 = 0;
        let mut shift: u32 = 0;
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return Err(Error::new(Kind::Corrupt, "a varint is longer than 64 bits").at(start));
            }
            value |= bits.wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(unzigzag(value));
            }
            shift = shift.saturating_add(7);
            if shift > 63 {
                return Err(Error::new(Kind::Corrupt, "a varint is longer than 64 bits").at(start));
            }
        }
    }

    /// A varint used as a byte length, checked against what is left.
    #[inline]
    pub fn length(&mut self) -> Result<usize> {
        let start = self.offset();
        let value = self.varint()?;
        usize::try_from(value)
            .ok()
            .filter(|length| *length <= self.rest.len())
            .ok_or_else(|| Error::new(Kind::Corrupt, "a length goes past the end").at(start))
    }

    /// Fails when bytes are left.
    pub fn finish(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Corrupt, "bytes are left after the value").at(self.offset()))
    }

    #[cold]
    fn early(&self) -> Error {
        Error::new(Kind::Corrupt, "the bytes end early").at(self.bytes.len())
    }
}

/// The signed number of a zigzag code.
#[must_use]
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// The zigzag code of a signed number.
#[must_use]
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

/// Appends a zigzag varint.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest > 0x7F {
        out.push(u8::try_from(rest & 0x7F).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}
