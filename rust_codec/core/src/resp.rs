//! The part of RESP (redis.io, "Redis serialization protocol specification", versions 2 and 3) that
//! the cache path speaks: commands out, flat replies in.
//!
//! A reply is found by scanning what has arrived so far; the scan resumes where it stopped, so a
//! reply that comes in many pieces is still walked once. Nested arrays, pushes and maps are none of
//! ours: they are a protocol error, after which the connection must be dropped.

use std::ops::Range;

use crate::error::{Error, Kind, Result};
use crate::format::RECORD_BYTES_MAX;

/// Most items of one reply.
pub const REPLY_ITEMS_MAX: usize = 16_384;
/// Longest header line of a reply; errors are cut by the server well below it.
pub const LINE_BYTES_MAX: usize = 16_384;

/// Appends the header of a command with `arguments` parts.
pub fn write_command(out: &mut Vec<u8>, arguments: usize) {
    write_line(out, b'*', arguments);
}

/// Appends one part of a command.
pub fn write_argument(out: &mut Vec<u8>, argument: &[u8]) {
    write_arguments(out, &[argument]);
}

/// Appends one part of a command that is the concatenation of several pieces.
pub fn write_arguments(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    let length = pieces.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.len()));
    write_line(out, b'$', length);
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_line(out: &mut Vec<u8>, kind: u8, number: usize) {
    // Keys and small batches have lengths of two digits.
    if let (10..100, Ok(short)) = (number, u8::try_from(number)) {
        let (tens, ones) = ((short / 10).saturating_add(b'0'), (short % 10).saturating_add(b'0'));
        out.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
        return;
    }
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One item of a reply; ranges point into the scanned buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `$-1` or `_`: no such key.
    Null,
    /// A bulk string's bytes.
    Bulk(Range<usize>),
    /// A simple string such as `OK`.
    Status(Range<usize>),
    /// An integer.
    Integer(i64),
    /// An error's text; at the top, or one item of an array.
    Error(Range<usize>),
}

/// A scan of one reply, resumable.
#[derive(Debug, Default)]
pub struct ReplyScan {
    position: usize,
    /// Items still to come; None before the reply's first line was read.
    missing: Option<usize>,
    array: bool,
    items: Vec<Item>,
}

/// One whole reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'s> {
    /// Whether it was an array; a single item otherwise.
    pub array: bool,
    /// Items in order.
    pub items: &'s [Item],
    /// Bytes of the buffer that the reply took.
    pub length: usize,
}

impl ReplyScan {
    /// Goes on from where the last call stopped. None while the reply is incomplete; an error means
    /// the stream cannot be trusted any more. `buffer` must start at the reply's first byte.
    pub fn advance(&mut self, buffer: &[u8]) -> Result<Option<Reply<'_>>> {
        loop {
            match self.missing {
                Some(0) => {
                    let (array, length) = (self.array, self.position);
                    return Ok(Some(Reply { array, items: &self.items, length }));
                }
                Some(missing) => {
                    let Some(item) = self.item(buffer)? else { return Ok(None) };
                    self.items.push(item);
                    self.missing = Some(missing.saturating_sub(1));
                }
                None => {
                    if buffer.first() == Some(&b'*') {
                        let Some(count) = self.count(buffer)? else { return Ok(None) };
                        self.array = true;
                        self.items.reserve(count);
                        self.missing = Some(count);
                    } else if buffer.is_empty() {
                        return Ok(None);
                    } else {
                        self.missing = Some(1);
                    }
                }
            }
        }
    }

    /// Makes the scan ready for the next reply, keeping its memory.
    pub fn reset(&mut self) {
        self.position = 0;
        self.missing = None;
        self.array = false;
        self.items.clear();
    }

    fn count(&mut self, buffer: &[u8]) -> Result<Option<usize>> {
        let Some((text, after)) = line(buffer, self.position)? else { return Ok(None) };
        let count = usize::try_from(number(buffer, &text)?)
            .ok()
            .filter(|count| *count <= REPLY_ITEMS_MAX)
            .ok_or_else(|| broken("an array's length is out of range", text.start))?;
        self.position = after;
        Ok(Some(count))
    }

    fn item(&mut self, buffer: &[u8]) -> Result<Option<Item>> {
        let Some((text, after)) = line(buffer, self.position)? else { return Ok(None) };
        let kind = buffer.get(self.position).copied().unwrap_or_default();
        let item = match kind {
            b'$' => {
                let length = number(buffer, &text)?;
                if length == -1 {
                    Item::Null
                } else {
                    let Some(bulk) = bulk(buffer, after, length)? else { return Ok(None) };
                    self.position = bulk.end.saturating_add(2);
                    return Ok(Some(Item::Bulk(bulk)));
                }
            }
            b'_' => Item::Null,
            b'+' => Item::Status(text),
            b'-' => Item::Error(text),
            b':' => Item::Integer(number(buffer, &text)?),
            _ => return Err(broken("a reply of no kind that was asked for", self.position)),
        };
        self.position = after;
        Ok(Some(item))
    }
}

/// The rest of a header line after its kind byte, and where the next line starts.
fn line(buffer: &[u8], start: usize) -> Result<Option<(Range<usize>, usize)>> {
    let rest = buffer.get(start..).unwrap_or_default();
    let window = rest.get(..LINE_BYTES_MAX).unwrap_or(rest);
    match memchr::memchr(b'\n', window) {
        Some(newline) => {
            let end = start.saturating_add(newline);
            let text = start.saturating_add(1)..end.saturating_sub(1);
            if text.start > text.end || buffer.get(text.end) != Some(&b'\r') {
                return Err(broken("a reply's line does not end in CR LF", end));
            }
            Ok(Some((text, end.saturating_add(1))))
        }
        None if window.len() == LINE_BYTES_MAX => Err(broken("a reply's line has no end", start)),
        None => Ok(None),
    }
}

fn bulk(buffer: &[u8], start: usize, length: i64) -> Result<Option<Range<usize>>> {
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= RECORD_BYTES_MAX)
        .ok_or_else(|| broken("a bulk string's length is out of range", start))?;
    let end = start.saturating_add(length);
    match buffer.get(end..end.saturating_add(2)) {
        Some(b"\r\n") => Ok(Some(start..end)),
        Some(_) => Err(broken("a bulk string does not end in CR LF", end)),
        None => Ok(None),
    }
}

fn number(buffer: &[u8], text: &Range<usize>) -> Result<i64> {
    let digits = buffer.get(text.clone()).unwrap_or_default();
    // Lengths are plain and short; what is not is read by the book.
    let mut value: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || digits.len() > 9 {
            return long_number(digits)
                .ok_or_else(|| broken("a reply's number is none", text.start));
        }
        value = value.saturating_mul(10).saturating_add(i64::from(digit));
    }
    if digits.is_empty() {
        return Err(broken("a reply's number is none", text.start));
    }
    Ok(value)
}

#[cold]
fn long_number(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    text.parse().ok()
}

#[cold]
fn broken(message: &'static str, offset: usize) -> Error {
    Error::new(Kind::Corrupt, message).at(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan_whole(bytes: &[u8]) -> Result<Option<(Vec<Item>, usize)>> {
        let mut scan = ReplyScan::default();
        Ok(scan.advance(bytes)?.map(|reply| (reply.items.to_vec(), reply.length)))
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&mut out, 2);
        write_argument(&mut out, b"MGET");
        write_arguments(&mut out, &[b"h1:", b"k\r\n"]);
        assert_eq!(out, b"*2\r\n$4\r\nMGET\r\n$6\r\nh1:k\r\n\r\n");
    }

    #[test]
    fn an_mget_reply_gives_its_values_and_nulls_in_order() {
        let bytes = b"*3\r\n$2\r\n\r\n\r\n$-1\r\n_\r\n+next";
        let (items, length) = scan_whole(bytes).unwrap().unwrap();
        assert_eq!(items, [Item::Bulk(8..10), Item::Null, Item::Null]);
        assert_eq!(length, bytes.len() - 5);
    }

    #[test]
    fn an_error_is_an_item_and_not_a_failure_of_the_stream() {
        let (items, _) = scan_whole(b"-OOM command not allowed\r\n").unwrap().unwrap();
        assert_eq!(items, [Item::Error(1..24)]);
    }

    #[test]
    fn what_was_not_asked_for_ends_the_stream() {
        for bytes in [
            &b"garbage\r\n"[..],
            b"*1\r\n*1\r\n:1\r\n",
            b">2\r\n+a\r\n+b\r\n",
            b"*99999\r\n",
            b"*-1\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$1\r\nabc\r\n",
            b":1x\r\n",
            b"$+1\r\na\r\n",
            b"\n",
            b"+\n",
        ] {
            assert!(scan_whole(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(scan_whole(&[b'+'; LINE_BYTES_MAX]).is_err());
    }

    proptest! {
        #[test]
        fn a_reply_is_the_same_however_its_bytes_arrive(
            values in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
            cuts in proptest::collection::vec(0_usize..400, 0..6),
        ) {
            let mut bytes = Vec::new();
            write_command(&mut bytes, values.len());
            for value in &values {
                match value {
                    Some(value) => write_argument(&mut bytes, value),
                    None => bytes.extend_from_slice(b"$-1\r\n"),
                }
            }
            let mut ends: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            ends.sort_unstable();
            let mut scan = ReplyScan::default();
            for end in ends {
                prop_assert!(scan.advance(&bytes[..end]).unwrap().is_none());
            }
            let reply = scan.advance(&bytes).unwrap().unwrap();
            let read: Vec<Option<Vec<u8>>> = reply.items.iter().map(|item| match item {
                Item::Bulk(range) => Some(bytes[range.clone()].to_vec()),
                _ => None,
            }).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_bytes_make_the_scan_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan_whole(&bytes);
        }

        #[test]
        fn no_bytes_like_replies_make_the_scan_panic(text in "[*$:+_0-9\\-\r\na]{0,60}") {
            let _ = scan_whole(text.as_bytes());
        }
    }
}
