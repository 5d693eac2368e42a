//! Sixteen bytes as two words, for any processor.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::Window;
use crate::transcode::pen::{ASCII_ZEROS, eight, put};

/// Sixteen ASCII zeros.
const ZEROS: u128 = ((ASCII_ZEROS as u128) << 64) | ASCII_ZEROS as u128;

/// Sixteen decimal digits, the first in the top byte.
#[derive(Clone, Copy)]
pub(in crate::transcode) struct Digits(u128);

impl Digits {
    /// The digits of two numbers below 10^8.
    #[inline(always)]
    pub(in crate::transcode) fn of(high: u64, low: u64) -> Self {
        Self((u128::from(eight(high)) << 64) | u128::from(eight(low)))
    }

    /// A digit, a number below 10^8, and zeros.
    #[inline(always)]
    pub(in crate::transcode) fn nine(first: u64, others: u64) -> Self {
        Self((u128::from(first) << 120) | (u128::from(eight(others)) << 56))
    }

    /// How many digits there are up to the last that is not zero.
    #[inline(always)]
    pub(in crate::transcode) fn kept(self) -> u32 {
        16_u32.wrapping_sub(self.0.trailing_zeros() >> 3)
    }

    /// Stores them.
    #[inline(always)]
    pub(in crate::transcode) fn put(self, window: &mut Window, at: usize) {
        put(window, at, (self.0 | ZEROS).to_be_bytes());
    }

    /// Stores them with a point after the first `before`, 1 to 15.
    #[inline(always)]
    pub(in crate::transcode) fn put_with_point(self, window: &mut Window, at: usize, before: u32) {
        let text = (self.0 | ZEROS).swap_bytes();
        let point = at.wrapping_add(before as usize);
        put(window, at, text.to_le_bytes());
        put(window, point, [b'.']);
        let after = text.wrapping_shr(before.wrapping_mul(8));
        put(window, point.wrapping_add(1), after.to_le_bytes());
    }
}

/// Whether one of the first `length` bytes, at most 16, must be escaped in JSON or is not ASCII.
#[inline(always)]
pub(in crate::transcode) fn is_special(chunk: [u8; 16], length: usize) -> bool {
    let halves = (chunk.first_chunk::<8>(), chunk.last_chunk::<8>(), MASKS.get(length));
    let (Some(low), Some(high), Some((low_mask, high_mask))) = halves else { return true };
    let low = special_bytes(u64::from_le_bytes(*low)) & low_mask;
    let high = special_bytes(u64::from_le_bytes(*high)) & high_mask;
    low | high != 0
}

/// The high bit of each byte that is special. A byte above a special one may be marked too.
#[inline(always)]
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let control = word.wrapping_sub(ONES.wrapping_mul(0x20));
    let quote = (word ^ ONES.wrapping_mul(b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ ONES.wrapping_mul(b'\\' as u64)).wrapping_sub(ONES);
    (word | control | quote | backslash) & ONES.wrapping_mul(0x80)
}

/// The bits of the first n of 16 bytes, as two words.
const MASKS: [(u64, u64); 17] = {
    let mut masks = [(u64::MAX, u64::MAX); 17];
    let mut rest: &mut [(u64, u64)] = &mut masks;
    let mut bits: u32 = 0;
    while let Some((first, after)) = rest.split_first_mut() {
        let high = bits.saturating_sub(64);
        first.0 = if bits < 64 { (1 << bits) - 1 } else { u64::MAX };
        first.1 = if high < 64 { (1 << high) - 1 } else { u64::MAX };
        bits = bits.saturating_add(8);
        rest = after;
    }
    masks
};

/// Moves the low seven bits of eight bytes together; the high bits are clear.
#[inline(always)]
pub(in crate::transcode) const fn gather(groups: u64) -> u64 {
    let bits = (groups & 0x007F_007F_007F_007F) | ((groups & 0x7F00_7F00_7F00_7F00) >> 1);
    let bits = (bits & 0x0000_3FFF_0000_3FFF) | ((bits & 0x3FFF_0000_3FFF_0000) >> 2);
    (bits & 0x0000_0000_0FFF_FFFF) | ((bits & 0x0FFF_FFFF_0000_0000) >> 4)
}
