//! What is done to sixteen bytes at once, two words at a time.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{ASCII_ZEROS, eight};

/// Sixteen ASCII zeros.
pub(super) const ZEROS: u128 = ((ASCII_ZEROS as u128) << 64) | ASCII_ZEROS as u128;

/// The sixteen digits of two numbers below 10^8 as ASCII, the first in the top byte, and how many
/// there are up to the last that is not zero.
#[inline(always)]
pub(super) fn sixteen_digits(high: u64, low: u64) -> (u128, u32) {
    let digits = (u128::from(eight(high)) << 64) | u128::from(eight(low));
    let kept = 16_u32.wrapping_sub(digits.trailing_zeros() >> 3);
    (digits | ZEROS, kept)
}

/// Whether one of the first `length` bytes must be escaped in JSON or is not ASCII.
#[inline(always)]
pub(super) fn is_special(chunk: [u8; 16], length: usize) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::needs_escape;

    #[test]
    fn sixteen_digits_are_those_of_the_number() {
        let mut state = 1_u64;
        for round in 0..200_000_u32 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 1) % 10_u64.pow(round % 17).max(1);
            let number =
                if round % 3 == 0 { number - number % 10_u64.pow(round % 9) } else { number };
            let (high, low) = (number / 100_000_000, number % 100_000_000);
            let wanted = format!("{number:016}");
            let kept = u32::try_from(wanted.trim_end_matches('0').len()).unwrap();
            let (digits, count) = sixteen_digits(high, low);
            assert_eq!(String::from_utf8(digits.to_be_bytes().to_vec()).unwrap(), wanted);
            assert_eq!(count, kept, "{number}");
        }
    }

    #[test]
    fn every_byte_at_every_place_is_special_when_it_must_be_escaped_or_is_not_ascii() {
        for place in 0..16 {
            for byte in 0..=255 {
                for other in [b'a', 0x7F, b' ', b'#', b']'] {
                    let mut chunk = [other; 16];
                    chunk[place] = byte;
                    let special = needs_escape(byte) || byte >= 0x80;
                    for length in 0..=16 {
                        assert_eq!(is_special(chunk, length), special && place < length);
                    }
                }
            }
        }
    }
}
