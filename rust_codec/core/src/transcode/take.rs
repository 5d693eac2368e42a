//! Taking values from the front of a body, for the quick walks: of JSON and of Arrow.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::sixteen::gather;
use crate::cursor::unzigzag;
use crate::format::TEXT_BYTES_MAX;

/// The high bit of every byte of a word.
const STOPS: u64 = 0x8080_8080_8080_8080;

/// The body, or the room for what it prints, is not plain: whoever asked looks at it another way.
#[derive(Debug)]
pub(crate) struct Stop;

pub(crate) type Walk<T> = Result<T, Stop>;

/// What is left of a body.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    rest: &'a [u8],
    /// The last sixteen bytes of the whole, so that words near the end are shifted out of it
    /// instead of being gathered byte by byte.
    tail: u128,
}

impl<'a> Body<'a> {
    #[inline(always)]
    pub(crate) fn new(body: &'a [u8]) -> Self {
        let tail =
            body.last_chunk().map_or_else(|| short_tail(body), |it| u128::from_le_bytes(*it));
        Self { rest: body, tail }
    }

    /// The same body from a position on.
    #[inline(always)]
    pub(crate) fn from(&self, start: usize) -> Walk<Self> {
        let rest = self.rest.get(start..).ok_or(Stop)?;
        Ok(Self { rest, tail: self.tail })
    }

    /// Moves on to where so many bytes are left.
    #[inline(always)]
    pub(crate) fn leave(&mut self, left: usize) -> Walk<()> {
        self.rest = self.rest.get(self.len().wrapping_sub(left)..).ok_or(Stop)?;
        Ok(())
    }

    /// Bytes that are left.
    #[inline(always)]
    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that are left.
    #[inline(always)]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether the union index at the front says null.
    #[inline(always)]
    pub(crate) fn null(&mut self) -> Walk<bool> {
        match self.byte()? {
            0 => Ok(true),
            2 => Ok(false),
            _ => Err(Stop),
        }
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self) -> Walk<u8> {
        let (byte, after) = self.rest.split_first().ok_or(Stop)?;
        self.rest = after;
        Ok(*byte)
    }

    /// The next `N` bytes.
    #[inline(always)]
    pub(crate) fn array<const N: usize>(&mut self) -> Walk<[u8; N]> {
        let (bytes, after) = self.rest.split_first_chunk().ok_or(Stop)?;
        self.rest = after;
        Ok(*bytes)
    }

    /// The next `length` bytes.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, length: usize) -> Walk<&'a [u8]> {
        let (bytes, after) = self.rest.split_at_checked(length).ok_or(Stop)?;
        self.rest = after;
        Ok(bytes)
    }

    /// Moves past so many bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: usize) -> Walk<()> {
        self.rest = self.rest.get(count..).ok_or(Stop)?;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn double(&mut self) -> Walk<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    #[inline(always)]
    pub(crate) fn float(&mut self) -> Walk<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    #[inline(always)]
    pub(crate) fn integer(&mut self) -> Walk<i32> {
        i32::try_from(self.varint()?).map_err(|_| Stop)
    }

    /// A byte length within what is left and within [`TEXT_BYTES_MAX`].
    #[inline(always)]
    pub(crate) fn length(&mut self) -> Walk<usize> {
        let length = match self.rest.split_first() {
            // Nearly every text is that short.
            Some((byte, after)) if *byte < 0x80 && byte & 1 == 0 => {
                self.rest = after;
                usize::from(byte >> 1)
            }
            _ => usize::try_from(self.varint()?).map_err(|_| Stop)?,
        };
        if length > self.rest.len() || length > TEXT_BYTES_MAX {
            return Err(Stop);
        }
        Ok(length)
    }

    /// The next sixteen bytes, not taken; zeros stand for those that are not there.
    #[inline(always)]
    pub(crate) fn ahead(&self) -> [u8; 16] {
        self.rest.first_chunk().copied().unwrap_or_else(|| self.last().to_le_bytes())
    }

    /// Fewer than sixteen bytes as a word.
    #[inline(always)]
    fn last(&self) -> u128 {
        let missing = 16_usize.wrapping_sub(self.rest.len()).wrapping_mul(8);
        self.tail.checked_shr(u32::try_from(missing).unwrap_or(128)).unwrap_or(0)
    }

    /// A zigzag varint.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Walk<i64> {
        self.zigzag().map(unzigzag)
    }

    /// Moves past a varint.
    #[inline(always)]
    pub(crate) fn skip_varint(&mut self) -> Walk<()> {
        let (_, stops) = self.word();
        if stops == 0 {
            return self.long_varint().map(drop);
        }
        self.pass(stops)
    }

    /// Moves past a varint that fits an `i32`.
    #[inline(always)]
    pub(crate) fn skip_integer(&mut self) -> Walk<()> {
        let (_, stops) = self.word();
        // Four bytes hold 28 bits; longer ones may not fit.
        if stops & 0x8080_8080 == 0 {
            return self.integer().map(drop);
        }
        self.pass(stops)
    }

    /// A varint as its zigzag bits: up to eight bytes at once without a branch a byte.
    #[inline(always)]
    pub(crate) fn zigzag(&mut self) -> Walk<u64> {
        let (word, stops) = self.word();
        if stops == 0 {
            return self.long_varint();
        }
        self.pass(stops)?;
        // Everything up to the first byte whose high bit is clear.
        Ok(gather(word & (stops ^ stops.wrapping_sub(1)) & !STOPS))
    }

    /// The next eight bytes, and the high bits of those whose own is clear.
    #[inline(always)]
    fn word(&self) -> (u64, u64) {
        let word = match self.rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            // A varint that runs into the padding is longer than what is left.
            None => low(self.last()),
        };
        (word, !word & STOPS)
    }

    /// Moves past the first byte that is marked.
    #[inline(always)]
    fn pass(&mut self, stops: u64) -> Walk<()> {
        let length = (stops.trailing_zeros() >> 3).wrapping_add(1);
        self.rest = self.rest.get(length as usize..).ok_or(Stop)?;
        Ok(())
    }

    /// The longest varints.
    #[inline(always)]
    fn long_varint(&mut self) -> Walk<u64> {
        let (value, after) = read_varint(self.rest)?;
        self.rest = after;
        Ok(value)
    }
}

/// The low word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low word is what is asked for")]
const fn low(value: u128) -> u64 {
    value as u64
}

/// The tail of a body of fewer than sixteen bytes.
#[inline(never)]
fn short_tail(body: &[u8]) -> u128 {
    let word = body.iter().rev().fold(0_u128, |word, byte| (word << 8) | u128::from(*byte));
    let missing = 16_usize.wrapping_sub(body.len()).wrapping_mul(8);
    word.checked_shl(u32::try_from(missing).unwrap_or(128)).unwrap_or(0)
}

#[inline(never)]
fn read_varint(mut rest: &[u8]) -> Walk<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut shift: u32 = 0;
    loop {
        let (byte, after) = rest.split_first().ok_or(Stop)?;
        rest = after;
        if shift == 63 {
            break if *byte < 2 { Ok((value | u64::from(*byte) << 63, rest)) } else { Err(Stop) };
        }
        value |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            break Ok((value, rest));
        }
        shift = shift.wrapping_add(7);
    }
}

/// Calls `block` for each block of an Avro array with its number of items; how many there were.
#[inline(always)]
pub(crate) fn each_block<'a>(
    rest: &mut Body<'a>,
    limit: usize,
    mut block: impl FnMut(&mut Body<'a>, usize) -> Walk<()>,
) -> Walk<usize> {
    let mut items: usize = 0;
    loop {
        // A negative count, which a byte size follows, is left to the plain walk.
        let count = usize::try_from(rest.varint()?).map_err(|_| Stop)?;
        if count == 0 {
            return Ok(items);
        }
        items = items.wrapping_add(count);
        if count > rest.len() || items > limit {
            return Err(Stop);
        }
        block(rest, count)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Cursor, write_varint};

    #[test]
    fn varints_of_every_length_are_taken_wherever_the_body_ends() {
        let longs = (0..63).flat_map(|bit| [(1_i64 << bit) - 1, 1 << bit, -(1_i64 << bit)]);
        for value in longs.chain([0, i64::MAX, i64::MIN]) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            for more in 0..20 {
                let body = [&bytes[..], &vec![0xFF; more]].concat();
                let mut rest = Body::new(&body);
                assert_eq!(rest.varint().ok(), Some(value), "{value} before {more} bytes");
                assert_eq!(rest.len(), more);
                let (mut long, mut integer) = (Body::new(&body), Body::new(&body));
                assert_eq!((long.skip_varint().is_ok(), long.len()), (true, more));
                let fits = i32::try_from(value).is_ok();
                assert_eq!(integer.skip_integer().is_ok(), fits, "{value}");
                assert!(!fits || integer.len() == more);
            }
            for length in 0..bytes.len() {
                assert!(Body::new(&bytes[..length]).varint().is_err());
                assert!(Body::new(&bytes[..length]).skip_varint().is_err());
                assert!(Body::new(&bytes[..length]).skip_integer().is_err());
            }
        }
    }

    #[test]
    fn any_bytes_are_the_varint_that_the_plain_walk_reads() {
        let mut state = 1_u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mixed = (u128::from(state) << 64 | u128::from(state.rotate_left(29))).to_le_bytes();
            let dense =
                mixed.map(|byte| if state.trailing_zeros() > 2 { byte | 0x80 } else { byte });
            let bytes = &dense[..usize::try_from(state >> 60).unwrap()];
            let (mut rest, mut cursor) = (Body::new(bytes), Cursor::new(bytes));
            assert_eq!(rest.varint().ok(), cursor.varint().ok(), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_ahead_are_padded_with_zeros() {
        let bytes: Vec<u8> = (1..40).collect();
        for end in 0..bytes.len() {
            let body = Body::new(&bytes[..end]);
            for start in 0..=end {
                let mut wanted = [0; 16];
                let left = &bytes[start..end];
                let shown = left.len().min(16);
                wanted[..shown].copy_from_slice(&left[..shown]);
                assert_eq!(body.from(start).ok().unwrap().ahead(), wanted);
            }
        }
    }
}
