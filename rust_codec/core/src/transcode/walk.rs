//! The quick walk: one pass over the body, one dispatch a field, no call out but for doubles.
//!
//! It gives up ([`Stop::Unusual`]) on whatever is not plain, damaged bytes included; the plain
//! walk of [`super`] then prints the row or says what is wrong and where. So nothing here needs an
//! error of its own, and the plain walk is what this one is tested against.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{Full, Pen, ROOM, print_long, print_short, put};
use crate::cursor::unzigzag;
use crate::decode::{integer_to_float, long_to_double, long_to_float};
use crate::format::{LIST_ITEMS_MAX, TEXT_BYTES_MAX};
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;
use crate::text;

/// Longest label the quick walk stores in one go.
pub(super) const LABEL_MAX: usize = 64;

/// Why the walk stopped.
pub(super) enum Stop {
    /// Too little room.
    Full,
    /// Not plain, or damaged.
    Unusual,
}

impl From<Full> for Stop {
    #[inline(always)]
    fn from(_: Full) -> Self {
        Self::Full
    }
}

type Walk<T> = Result<T, Stop>;

/// What one step does with a value, decided once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    /// What the bytes hold.
    pub(super) shape: Shape,
    /// Whether a union index stands before the value.
    pub(super) nullable: bool,
    /// Whether null is a value.
    pub(super) null_allowed: bool,
    /// Longs print as strings.
    pub(super) quoted: bool,
}

impl Operation {
    pub(super) const fn new(reading: FieldReading, quoted: bool) -> Self {
        let FieldReading { shape, nullable, null_allowed } = reading;
        Self { shape, nullable, null_allowed, quoted }
    }
}

/// What stands before a value: a comma, or `,"name":`, or nothing, padded to a fixed size.
#[derive(Debug, Clone)]
pub(super) struct Label {
    bytes: [u8; LABEL_MAX],
    length: u8,
}

impl Label {
    /// None when it is too long.
    pub(super) fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; LABEL_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    #[inline(always)]
    pub(super) fn write(&self, pen: &mut Pen<'_>) -> Walk<()> {
        let window = pen.window::<LABEL_MAX>()?;
        if self.length <= 32 {
            let (head, _) = self.bytes.split_first_chunk::<32>().ok_or(Stop::Unusual)?;
            put(window, 0, *head);
        } else {
            *window = self.bytes;
        }
        pen.keep(usize::from(self.length));
        Ok(())
    }
}

/// What became of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Its value stands there.
    Value,
    /// Its value, with null in place of what is not finite.
    NotFinite,
    /// Nothing was printed: a stored null that is no value any more.
    Unwritten,
}

/// Prints the value at the front of `rest` and moves past it.
#[inline(always)]
pub(super) fn show(rest: &mut &[u8], operation: Operation, pen: &mut Pen<'_>) -> Walk<Shown> {
    if operation.nullable && take_null(rest)? {
        if !operation.null_allowed {
            return Ok(Shown::Unwritten);
        }
        put(pen.window::<4>()?, 0, *b"null");
        pen.keep(4);
        return Ok(Shown::Value);
    }
    let finite = match operation.shape {
        Shape::Scalar(reading) => show_scalar(rest, reading, operation.quoted, pen)?,
        Shape::List(item) => show_list(rest, item, LIST_ITEMS_MAX, operation.quoted, pen)?.0,
        Shape::Vector(size) => {
            let (finite, items) =
                show_list(rest, Reading::Same(Scalar::Float), size as usize, false, pen)?;
            if items != size as usize {
                return Err(Stop::Unusual);
            }
            finite
        }
    };
    Ok(if finite { Shown::Value } else { Shown::NotFinite })
}

/// Moves past the value at the front of `rest`.
#[inline(always)]
pub(super) fn skip(rest: &mut &[u8], operation: Operation) -> Walk<()> {
    if operation.nullable && take_null(rest)? {
        return Ok(());
    }
    let (item, limit) = match operation.shape {
        Shape::Scalar(reading) => return skip_scalar(rest, reading.stored()),
        Shape::List(item) => (item.stored(), LIST_ITEMS_MAX),
        Shape::Vector(size) => (Scalar::Float, size as usize),
    };
    let items = each_item(rest, limit, |rest| skip_scalar(rest, item))?;
    let exact = matches!(operation.shape, Shape::Vector(_));
    if exact && items != limit { Err(Stop::Unusual) } else { Ok(()) }
}

#[inline(always)]
fn take_null(rest: &mut &[u8]) -> Walk<bool> {
    match take_byte(rest)? {
        0 => Ok(true),
        2 => Ok(false),
        _ => Err(Stop::Unusual),
    }
}

#[inline(always)]
fn show_scalar(rest: &mut &[u8], reading: Reading, quoted: bool, pen: &mut Pen<'_>) -> Walk<bool> {
    match reading {
        Reading::Same(Scalar::Boolean) => show_boolean(rest, pen)?,
        Reading::Same(Scalar::Integer) => show_long(i64::from(take_integer(rest)?), false, pen)?,
        Reading::IntegerToLong => show_long(i64::from(take_integer(rest)?), quoted, pen)?,
        Reading::Same(Scalar::Long) => show_long(take_varint(rest)?, quoted, pen)?,
        Reading::Same(Scalar::Float) => return show_float(take_float(rest)?, pen),
        Reading::Same(Scalar::Double) => return show_double(take_double(rest)?, pen),
        Reading::Same(Scalar::Text) => show_text(rest, pen)?,
        Reading::Same(Scalar::Bytes) => show_bytes(rest, pen)?,
        Reading::Same(Scalar::Date) => {
            let days = take_integer(rest)?;
            show_pushed(pen, |out| text::push_date(out, days))?;
        }
        Reading::Same(Scalar::Timestamp) => {
            let micros = take_varint(rest)?;
            show_pushed(pen, |out| text::push_timestamp(out, micros))?;
        }
        Reading::IntegerToFloat => return show_float(integer_to_float(take_integer(rest)?), pen),
        Reading::IntegerToDouble => return show_double(f64::from(take_integer(rest)?), pen),
        Reading::LongToFloat => return show_float(long_to_float(take_varint(rest)?), pen),
        Reading::LongToDouble => return show_double(long_to_double(take_varint(rest)?), pen),
        Reading::FloatToDouble => return show_double(f64::from(take_float(rest)?), pen),
    }
    Ok(true)
}

#[inline(always)]
fn skip_scalar(rest: &mut &[u8], scalar: Scalar) -> Walk<()> {
    match scalar {
        Scalar::Boolean => match take_byte(rest)? {
            0 | 1 => Ok(()),
            _ => Err(Stop::Unusual),
        },
        Scalar::Integer | Scalar::Date => take_integer(rest).map(drop),
        Scalar::Long | Scalar::Timestamp => take_varint(rest).map(drop),
        Scalar::Float => take_float(rest).map(drop),
        Scalar::Double => take_double(rest).map(drop),
        Scalar::Text | Scalar::Bytes => {
            let length = take_length(rest)?;
            *rest = rest.get(length..).ok_or(Stop::Unusual)?;
            Ok(())
        }
    }
}

#[inline(always)]
fn show_boolean(rest: &mut &[u8], pen: &mut Pen<'_>) -> Walk<()> {
    let (word, length) = match take_byte(rest)? {
        0 => (*b"false\0\0\0", 5),
        1 => (*b"true\0\0\0\0", 4),
        _ => return Err(Stop::Unusual),
    };
    *pen.window::<8>()? = word;
    pen.keep(length);
    Ok(())
}

#[inline(always)]
fn show_long(value: i64, quoted: bool, pen: &mut Pen<'_>) -> Walk<()> {
    if quoted {
        pen.byte(b'"')?;
    }
    let length = print_long(pen.window::<ROOM>()?, value);
    pen.keep(length);
    if quoted {
        pen.byte(b'"')?;
    }
    Ok(())
}

#[inline(always)]
fn show_double(value: f64, pen: &mut Pen<'_>) -> Walk<bool> {
    let window = pen.window::<ROOM>()?;
    let finite = value.is_finite();
    let length = if finite {
        print_short(window, zmij::Buffer::new().format_finite(value).as_bytes())
    } else {
        put(window, 0, *b"null");
        4
    };
    pen.keep(length);
    Ok(finite)
}

#[inline(always)]
fn show_float(value: f32, pen: &mut Pen<'_>) -> Walk<bool> {
    let window = pen.window::<ROOM>()?;
    let finite = value.is_finite();
    let length = if finite {
        print_short(window, zmij::Buffer::new().format_finite(value).as_bytes())
    } else {
        put(window, 0, *b"null");
        4
    };
    pen.keep(length);
    Ok(finite)
}

/// Room of a text of up to 16 bytes: quotes, and what a whole chunk stores beyond it.
const CHUNK_ROOM: usize = 18;

#[inline(always)]
fn show_text(rest: &mut &[u8], pen: &mut Pen<'_>) -> Walk<()> {
    let length = take_length(rest)?;
    let Some(chunk) = rest.first_chunk::<16>().filter(|_| length <= 16) else {
        return show_long_text(rest, length, pen);
    };
    if is_special(chunk, length) {
        return show_long_text(rest, length, pen);
    }
    let window = pen.window::<CHUNK_ROOM>()?;
    put(window, 0, [b'"']);
    put(window, 1, *chunk);
    put(window, length.wrapping_add(1), [b'"']);
    pen.keep(length.wrapping_add(2));
    *rest = rest.get(length..).ok_or(Stop::Unusual)?;
    Ok(())
}

/// Any text: chunk by chunk while nothing is to be escaped, byte by byte where something is.
#[inline(never)]
fn show_long_text(rest: &mut &[u8], length: usize, pen: &mut Pen<'_>) -> Walk<()> {
    let (content, after) = rest.split_at_checked(length).ok_or(Stop::Unusual)?;
    if length > TEXT_BYTES_MAX || std::str::from_utf8(content).is_err() {
        return Err(Stop::Unusual);
    }
    pen.byte(b'"')?;
    let mut left = content;
    while !left.is_empty() {
        let plain = left.iter().position(|byte| text::needs_escape(*byte)).unwrap_or(left.len());
        let (head, tail) = left.split_at_checked(plain).ok_or(Stop::Unusual)?;
        pen.bytes(head)?;
        left = tail;
        if let Some((byte, after)) = tail.split_first() {
            let (escape, length) = text::escape(*byte);
            *pen.window::<6>()? = escape;
            pen.keep(length);
            left = after;
        }
    }
    pen.byte(b'"')?;
    *rest = after;
    Ok(())
}

/// Whether one of the first `length` bytes must be escaped or is not ASCII.
#[inline(always)]
fn is_special(chunk: &[u8; 16], length: usize) -> bool {
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

#[inline(never)]
fn show_bytes(rest: &mut &[u8], pen: &mut Pen<'_>) -> Walk<()> {
    let length = take_length(rest)?;
    let (content, after) = rest.split_at_checked(length).ok_or(Stop::Unusual)?;
    let mut shown = Vec::with_capacity(length.wrapping_mul(2));
    text::push_base64(&mut shown, content);
    pen.bytes(&shown)?;
    *rest = after;
    Ok(())
}

#[inline(never)]
fn show_pushed(pen: &mut Pen<'_>, push: impl FnOnce(&mut Vec<u8>)) -> Walk<()> {
    let mut shown = Vec::with_capacity(ROOM);
    push(&mut shown);
    Ok(pen.bytes(&shown)?)
}

#[inline(never)]
fn show_list(
    rest: &mut &[u8],
    item: Reading,
    limit: usize,
    quoted: bool,
    pen: &mut Pen<'_>,
) -> Walk<(bool, usize)> {
    pen.byte(b'[')?;
    let mut finite = true;
    let items = each_item(rest, limit, |rest| {
        finite &= show_scalar(rest, item, quoted, pen)?;
        Ok(pen.byte(b',')?)
    })?;
    if items > 0 {
        pen.back();
    }
    pen.byte(b']')?;
    Ok((finite, items))
}

#[inline(always)]
fn each_item(
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
fn take_byte(rest: &mut &[u8]) -> Walk<u8> {
    let (byte, after) = rest.split_first().ok_or(Stop::Unusual)?;
    *rest = after;
    Ok(*byte)
}

#[inline(always)]
fn take_double(rest: &mut &[u8]) -> Walk<f64> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Stop::Unusual)?;
    *rest = after;
    Ok(f64::from_le_bytes(*bytes))
}

#[inline(always)]
fn take_float(rest: &mut &[u8]) -> Walk<f32> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Stop::Unusual)?;
    *rest = after;
    Ok(f32::from_le_bytes(*bytes))
}

#[inline(always)]
fn take_integer(rest: &mut &[u8]) -> Walk<i32> {
    i32::try_from(take_varint(rest)?).map_err(|_| Stop::Unusual)
}

/// A byte length within what is left and within [`TEXT_BYTES_MAX`].
#[inline(always)]
fn take_length(rest: &mut &[u8]) -> Walk<usize> {
    let length = usize::try_from(take_varint(rest)?).map_err(|_| Stop::Unusual)?;
    if length > rest.len() || length > TEXT_BYTES_MAX { Err(Stop::Unusual) } else { Ok(length) }
}

/// A zigzag varint: up to eight bytes at once without a branch a byte.
#[inline(always)]
fn take_varint(rest: &mut &[u8]) -> Walk<i64> {
    const STOPS: u64 = 0x8080_8080_8080_8080;
    let Some(chunk) = rest.first_chunk::<8>() else { return take_last_varint(rest) };
    let word = u64::from_le_bytes(*chunk);
    let stops = !word & STOPS;
    if stops == 0 {
        return take_last_varint(rest);
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

/// The varints that end within the last bytes of a body, and the longest ones.
#[inline(never)]
fn take_last_varint(rest: &mut &[u8]) -> Walk<i64> {
    let mut value: u64 = 0;
    let mut shift: u32 = 0;
    while shift < 63 {
        let byte = take_byte(rest)?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(unzigzag(value));
        }
        shift = shift.wrapping_add(7);
    }
    match take_byte(rest)? {
        byte @ (0 | 1) => Ok(unzigzag(value | u64::from(byte) << 63)),
        _ => Err(Stop::Unusual),
    }
}
