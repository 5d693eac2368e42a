//! The quick walk: one pass over the body, one dispatch a field, no call out but for doubles.
//!
//! It gives up ([`Stop::Unusual`]) on whatever is not plain, damaged bytes included; the plain
//! walk of [`super`] then prints the row or says what is wrong and where. So nothing here needs an
//! error of its own, and the plain walk is what this one is tested against.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{Full, Pen, ROOM, print_long, print_short, put};
use super::take::{
    each_item, take_byte, take_double, take_float, take_integer, take_length, take_null,
    take_varint,
};
use crate::decode::{integer_to_float, long_to_double, long_to_float};
use crate::format::LIST_ITEMS_MAX;
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;
use crate::text;

/// Longest label the quick walk stores in one go.
pub(super) const LABEL_MAX: usize = 64;

/// Why the walk stopped.
pub(crate) enum Stop {
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

pub(crate) type Walk<T> = Result<T, Stop>;

/// What a step does, decided once so that the loop dispatches once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Prints what stands where nothing was written.
    Constant,
    Boolean,
    Integer,
    Long,
    Float,
    Double,
    Text,
    /// Prints any other type.
    Other,
    SkipBoolean,
    SkipInteger,
    SkipLong,
    SkipFloat,
    SkipDouble,
    SkipText,
    /// Moves past any other type.
    SkipOther,
}

/// One step of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// Whether a union index stands before the value.
    nullable: bool,
    /// Whether null is a value.
    null_allowed: bool,
    /// Longs print as strings.
    quoted: bool,
    shape: Shape,
    /// Position in the writer's schema.
    pub(super) position: usize,
    /// Position in the request.
    pub(super) column: usize,
}

impl Step {
    pub(super) const fn constant(column: usize) -> Self {
        Self {
            kind: Kind::Constant,
            nullable: false,
            null_allowed: true,
            quoted: false,
            shape: Shape::Scalar(Reading::Same(Scalar::Boolean)),
            position: 0,
            column,
        }
    }

    pub(super) const fn show(
        reading: FieldReading,
        quoted: bool,
        position: usize,
        column: usize,
    ) -> Self {
        let FieldReading { shape, nullable, null_allowed } = reading;
        let kind = match shape {
            Shape::Scalar(Reading::Same(Scalar::Boolean)) => Kind::Boolean,
            Shape::Scalar(Reading::Same(Scalar::Integer)) => Kind::Integer,
            Shape::Scalar(Reading::Same(Scalar::Long)) if !quoted => Kind::Long,
            Shape::Scalar(Reading::Same(Scalar::Float)) => Kind::Float,
            Shape::Scalar(Reading::Same(Scalar::Double)) => Kind::Double,
            Shape::Scalar(Reading::Same(Scalar::Text)) => Kind::Text,
            _ => Kind::Other,
        };
        Self { kind, nullable, null_allowed, quoted, shape, position, column }
    }

    /// Whether it prints nothing.
    #[inline(always)]
    pub(super) const fn is_skip(&self) -> bool {
        matches!(
            self.kind,
            Kind::SkipBoolean
                | Kind::SkipInteger
                | Kind::SkipLong
                | Kind::SkipFloat
                | Kind::SkipDouble
                | Kind::SkipText
                | Kind::SkipOther
        )
    }

    pub(super) const fn skip(reading: FieldReading) -> Self {
        let FieldReading { shape, nullable, null_allowed } = reading;
        let kind = match shape {
            Shape::Scalar(scalar) => match scalar.stored() {
                Scalar::Boolean => Kind::SkipBoolean,
                Scalar::Integer | Scalar::Date => Kind::SkipInteger,
                Scalar::Long | Scalar::Timestamp => Kind::SkipLong,
                Scalar::Float => Kind::SkipFloat,
                Scalar::Double => Kind::SkipDouble,
                Scalar::Text | Scalar::Bytes => Kind::SkipText,
            },
            Shape::List(_) | Shape::Vector(_) => Kind::SkipOther,
        };
        Self { kind, nullable, null_allowed, quoted: false, shape, position: 0, column: 0 }
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
pub(super) fn show(rest: &mut &[u8], step: &Step, pen: &mut Pen<'_>) -> Walk<Shown> {
    if step.nullable && take_null(rest)? {
        if !step.null_allowed {
            return Ok(Shown::Unwritten);
        }
        *pen.window::<4>()? = *b"null";
        pen.keep(4);
        return Ok(Shown::Value);
    }
    let finite = match step.kind {
        Kind::Boolean => show_boolean(rest, pen)?,
        Kind::Integer => show_long(i64::from(take_integer(rest)?), pen)?,
        Kind::Long => show_long(take_varint(rest)?, pen)?,
        Kind::Float => show_float(take_float(rest)?, pen)?,
        Kind::Double => show_double(take_double(rest)?, pen)?,
        Kind::Text => show_text(rest, pen)?,
        _ => {
            let (after, at, finite) = show_other(rest, step, pen.fork())?;
            *rest = after;
            pen.join(at);
            finite
        }
    };
    Ok(if finite { Shown::Value } else { Shown::NotFinite })
}

/// Prints the types that have no kind of their own; gives what is left, where the pen stopped, and
/// whether all was finite.
#[inline(never)]
fn show_other<'a>(
    mut rest: &'a [u8],
    step: &Step,
    mut pen: Pen<'_>,
) -> Walk<(&'a [u8], usize, bool)> {
    let finite = match step.shape {
        Shape::Scalar(reading) => show_scalar(&mut rest, reading, step.quoted, &mut pen)?,
        Shape::List(item) => show_items(&mut rest, item, LIST_ITEMS_MAX, step, &mut pen)?.0,
        Shape::Vector(size) => {
            let (item, size) = (Reading::Same(Scalar::Float), size as usize);
            let (finite, items) = show_items(&mut rest, item, size, step, &mut pen)?;
            if items != size {
                return Err(Stop::Unusual);
            }
            finite
        }
    };
    Ok((rest, pen.at(), finite))
}

fn show_items(
    rest: &mut &[u8],
    item: Reading,
    limit: usize,
    step: &Step,
    pen: &mut Pen<'_>,
) -> Walk<(bool, usize)> {
    pen.byte(b'[')?;
    let mut finite = true;
    let items = each_item(rest, limit, |rest| {
        finite &= show_scalar(rest, item, step.quoted, pen)?;
        Ok(pen.byte(b',')?)
    })?;
    if items > 0 {
        pen.back();
    }
    pen.byte(b']')?;
    Ok((finite, items))
}

/// Moves past the value at the front of `rest`.
#[inline(always)]
pub(super) fn skip(rest: &mut &[u8], step: &Step) -> Walk<()> {
    if step.nullable && take_null(rest)? {
        return Ok(());
    }
    match step.kind {
        Kind::SkipBoolean => skip_boolean(rest),
        Kind::SkipInteger => take_integer(rest).map(drop),
        Kind::SkipLong => take_varint(rest).map(drop),
        Kind::SkipFloat => take_float(rest).map(drop),
        Kind::SkipDouble => take_double(rest).map(drop),
        Kind::SkipText => skip_text(rest),
        _ => {
            *rest = skip_other(rest, step)?;
            Ok(())
        }
    }
}

/// Moves past the value of a step of any kind, its union index included.
#[inline(never)]
pub(super) fn skip_whole<'a>(mut rest: &'a [u8], step: &Step) -> Walk<&'a [u8]> {
    if step.nullable && take_null(&mut rest)? { Ok(rest) } else { skip_other(rest, step) }
}

#[inline(never)]
fn skip_other<'a>(mut rest: &'a [u8], step: &Step) -> Walk<&'a [u8]> {
    let (item, limit) = match step.shape {
        Shape::Scalar(reading) => {
            skip_scalar(&mut rest, reading.stored())?;
            return Ok(rest);
        }
        Shape::List(item) => (item.stored(), LIST_ITEMS_MAX),
        Shape::Vector(size) => (Scalar::Float, size as usize),
    };
    let items = each_item(&mut rest, limit, |rest| skip_scalar(rest, item))?;
    let exact = matches!(step.shape, Shape::Vector(_));
    if exact && items != limit { Err(Stop::Unusual) } else { Ok(rest) }
}

fn show_scalar(rest: &mut &[u8], reading: Reading, quoted: bool, pen: &mut Pen<'_>) -> Walk<bool> {
    match reading {
        Reading::Same(Scalar::Boolean) => show_boolean(rest, pen),
        Reading::Same(Scalar::Integer) => show_long(i64::from(take_integer(rest)?), pen),
        Reading::IntegerToLong => show_quotable(i64::from(take_integer(rest)?), quoted, pen),
        Reading::Same(Scalar::Long) => show_quotable(take_varint(rest)?, quoted, pen),
        Reading::Same(Scalar::Float) => show_float(take_float(rest)?, pen),
        Reading::Same(Scalar::Double) => show_double(take_double(rest)?, pen),
        Reading::Same(Scalar::Text) => show_text(rest, pen),
        Reading::Same(Scalar::Bytes) => show_bytes(rest, pen),
        Reading::Same(Scalar::Date) => {
            let days = take_integer(rest)?;
            show_pushed(pen, |out| text::push_date(out, days))
        }
        Reading::Same(Scalar::Timestamp) => {
            let micros = take_varint(rest)?;
            show_pushed(pen, |out| text::push_timestamp(out, micros))
        }
        Reading::IntegerToFloat => show_float(integer_to_float(take_integer(rest)?), pen),
        Reading::IntegerToDouble => show_double(f64::from(take_integer(rest)?), pen),
        Reading::LongToFloat => show_float(long_to_float(take_varint(rest)?), pen),
        Reading::LongToDouble => show_double(long_to_double(take_varint(rest)?), pen),
        Reading::FloatToDouble => show_double(f64::from(take_float(rest)?), pen),
    }
}

fn skip_scalar(rest: &mut &[u8], scalar: Scalar) -> Walk<()> {
    match scalar {
        Scalar::Boolean => skip_boolean(rest),
        Scalar::Integer | Scalar::Date => take_integer(rest).map(drop),
        Scalar::Long | Scalar::Timestamp => take_varint(rest).map(drop),
        Scalar::Float => take_float(rest).map(drop),
        Scalar::Double => take_double(rest).map(drop),
        Scalar::Text | Scalar::Bytes => skip_text(rest),
    }
}

#[inline(always)]
fn skip_boolean(rest: &mut &[u8]) -> Walk<()> {
    match take_byte(rest)? {
        0 | 1 => Ok(()),
        _ => Err(Stop::Unusual),
    }
}

#[inline(always)]
fn skip_text(rest: &mut &[u8]) -> Walk<()> {
    let length = take_length(rest)?;
    *rest = rest.get(length..).ok_or(Stop::Unusual)?;
    Ok(())
}

#[inline(always)]
fn show_boolean(rest: &mut &[u8], pen: &mut Pen<'_>) -> Walk<bool> {
    let (word, length) = match take_byte(rest)? {
        0 => (*b"false\0\0\0", 5),
        1 => (*b"true\0\0\0\0", 4),
        _ => return Err(Stop::Unusual),
    };
    *pen.window::<8>()? = word;
    pen.keep(length);
    Ok(true)
}

#[inline(always)]
fn show_long(value: i64, pen: &mut Pen<'_>) -> Walk<bool> {
    let length = print_long(pen.window::<ROOM>()?, value);
    pen.keep(length);
    Ok(true)
}

fn show_quotable(value: i64, quoted: bool, pen: &mut Pen<'_>) -> Walk<bool> {
    if quoted {
        pen.byte(b'"')?;
    }
    show_long(value, pen)?;
    if quoted {
        pen.byte(b'"')?;
    }
    Ok(true)
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
fn show_text(rest: &mut &[u8], pen: &mut Pen<'_>) -> Walk<bool> {
    let length = take_length(rest)?;
    let (content, after) = rest.split_at_checked(length).ok_or(Stop::Unusual)?;
    let chunk = match rest.first_chunk::<16>() {
        Some(chunk) => *chunk,
        None => last_chunk(rest),
    };
    *rest = after;
    if length > 16 || is_special(&chunk, length) {
        let at = print_text(content, pen.fork())?;
        pen.join(at);
        return Ok(true);
    }
    let window = pen.window::<CHUNK_ROOM>()?;
    put(window, 0, [b'"']);
    put(window, 1, chunk);
    put(window, length.wrapping_add(1), [b'"']);
    pen.keep(length.wrapping_add(2));
    Ok(true)
}

/// Fewer than 16 bytes, padded.
#[inline(never)]
fn last_chunk(rest: &[u8]) -> [u8; 16] {
    let mut chunk = [0; 16];
    for (slot, byte) in chunk.iter_mut().zip(rest) {
        *slot = *byte;
    }
    chunk
}

/// Any text: 16 bytes at a time while none of them is special, then plain stretches and escapes.
#[inline(never)]
fn print_text(content: &[u8], mut pen: Pen<'_>) -> Walk<usize> {
    pen.byte(b'"')?;
    let mut left = content;
    while let Some((chunk, after)) = left.split_first_chunk::<16>() {
        if is_special(chunk, 16) {
            break;
        }
        *pen.window::<16>()? = *chunk;
        pen.keep(16);
        left = after;
    }
    if std::str::from_utf8(left).is_err() {
        return Err(Stop::Unusual);
    }
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
    Ok(pen.at())
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

fn show_bytes(rest: &mut &[u8], pen: &mut Pen<'_>) -> Walk<bool> {
    let length = take_length(rest)?;
    let (content, after) = rest.split_at_checked(length).ok_or(Stop::Unusual)?;
    *rest = after;
    show_pushed(pen, |out| text::push_base64(out, content))
}

/// Prints with a function of [`text`], for types that are seldom many in a row.
fn show_pushed(pen: &mut Pen<'_>, push: impl FnOnce(&mut Vec<u8>)) -> Walk<bool> {
    let mut shown = Vec::with_capacity(ROOM);
    push(&mut shown);
    pen.bytes(&shown)?;
    Ok(true)
}
