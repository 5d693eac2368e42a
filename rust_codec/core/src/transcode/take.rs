//! Taking values from the front of a body, for the quick walks: of JSON and of Arrow.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

pub(crate) use super::walk::{Stop, Walk};
use crate::cursor::unzigzag;
use crate::format::TEXT_BYTES_MAX;

#[inline(always)]
pub(crate) fn take_null(rest: &mut &[u8]) -> Walk<bool> {
    match take_byte(rest)? {
        0 => Ok(true),
        2 => Ok(false),
        _ => Err(Stop::Unusual),
    }
}

#[inline(always)]
pub(crate) fn each_item(
    rest: &mut &[u8],
    limit: usize,
    mut item: impl FnMut(&mut &[u8]) -> Walk<()>,
) -> Walk<usize> {
    let mut items: usize = 0;
    loop {
        let count = usize::try_from(take_varint(rest)?).map_err(|_| Stop::Unusual)?;
        if count == 0 {
            return Ok(items);
        }
        items = items.wrapping_add(count);
        if count > rest.len() || items > limit {
            return Err(Stop::Unusual);
        }
        for _ in 0..count {
            item(rest)?;
        }
    }
}

#[inline(always)]
pub(crate) fn take_byte(rest: &mut &[u8]) -> Walk<u8> {
    let (byte, after) = rest.split_first().ok_or(Stop::Unusual)?;
    *rest = after;
    Ok(*byte)
}

#[inline(always)]
pub(crate) fn take_double(rest: &mut &[u8]) -> Walk<f64> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Stop::Unusual)?;
    *rest = after;
    Ok(f64::from_le_bytes(*bytes))
}

#[inline(always)]
pub(crate) fn take_float(rest: &mut &[u8]) -> Walk<f32> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Stop::Unusual)?;
    *rest = after;
    Ok(f32::from_le_bytes(*bytes))
}

#[inline(always)]
pub(crate) fn take_integer(rest: &mut &[u8]) -> Walk<i32> {
    i32::try_from(take_varint(rest)?).map_err(|_| Stop::Unusual)
}

/// A byte length within what is left and within [`TEXT_BYTES_MAX`].
#[inline(always)]
pub(crate) fn take_length(rest: &mut &[u8]) -> Walk<usize> {
    let length = usize::try_from(take_varint(rest)?).map_err(|_| Stop::Unusual)?;
    if length > rest.len() || length > TEXT_BYTES_MAX { Err(Stop::Unusual) } else { Ok(length) }
}

/// A zigzag varint: up to eight bytes at once without a branch a byte.
#[inline(always)]
pub(crate) fn take_varint(rest: &mut &[u8]) -> Walk<i64> {
    const STOPS: u64 = 0x8080_8080_8080_8080;
    let word = match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => last_word(rest),
    };
    let stops = !word & STOPS;
    if stops == 0 {
        return take_any_varint(rest);
    }
    let length = (stops.trailing_zeros() >> 3).wrapping_add(1);
    *rest = rest.get(length as usize..).ok_or(Stop::Unusual)?;
    // Everything up to the first byte whose high bit is clear; then the 7-bit groups move together.
    let bits = word & (stops ^ stops.wrapping_sub(1)) & !STOPS;
    let bits = (bits & 0x007F_007F_007F_007F) | ((bits & 0x7F00_7F00_7F00_7F00) >> 1);
    let bits = (bits & 0x0000_3FFF_0000_3FFF) | ((bits & 0x3FFF_0000_3FFF_0000) >> 2);
    let bits = (bits & 0x0000_0000_0FFF_FFFF) | ((bits & 0x0FFF_FFFF_0000_0000) >> 4);
    Ok(unzigzag(bits))
}

/// Fewer than eight bytes as a word. A varint that runs into the padding is longer than `rest`.
#[inline(never)]
fn last_word(rest: &[u8]) -> u64 {
    rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// The longest varints.
#[inline(always)]
fn take_any_varint(rest: &mut &[u8]) -> Walk<i64> {
    let (value, after) = read_varint(rest)?;
    *rest = after;
    Ok(value)
}

#[inline(never)]
fn read_varint(mut rest: &[u8]) -> Walk<(i64, &[u8])> {
    let mut value: u64 = 0;
    let mut shift: u32 = 0;
    while shift < 63 {
        let byte = take_byte(&mut rest)?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok((unzigzag(value), rest));
        }
        shift = shift.wrapping_add(7);
    }
    match take_byte(&mut rest)? {
        byte @ (0 | 1) => Ok((unzigzag(value | u64::from(byte) << 63), rest)),
        _ => Err(Stop::Unusual),
    }
}
