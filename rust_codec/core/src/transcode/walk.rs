//! The quick walk's way with one value.
//!
//! It gives up ([`Stop`]) on whatever is not plain, damaged bytes included; the plain walk of
//! [`super`] then prints the row or says what is wrong and where. So nothing here needs an error of
//! its own, and the plain walk is what this one is tested against.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::decimal::{print_double, print_float};
use super::pen::{Pen, ROOM, print_long, print_short, put};
use super::sixteen::is_special;
use super::step::Step;
use super::take::{Body, Stop, Walk, each_block};
use crate::decode::{integer_to_float, long_to_double, long_to_float};
use crate::format::LIST_ITEMS_MAX;
use crate::resolve::{Reading, Shape};
use crate::schema::Scalar;
use crate::status::FieldSet;
use crate::text;

/// Room of a field: of its label, which is shorter than that of a value, and of its value.
pub(super) const FIELD_ROOM: usize = 2 * ROOM;

/// Where a value ended.
pub(super) struct Other {
    /// Bytes of the body that are left.
    pub(super) stored: usize,
    /// Bytes of room that are left.
    pub(super) room: usize,
    pub(super) finite: bool,
}

/// Prints the types that have no kind of their own.
#[inline(never)]
pub(super) fn show_other(mut rest: Body<'_>, step: &Step, mut pen: Pen<'_>) -> Walk<Other> {
    let finite = match step.shape {
        Shape::Scalar(reading) => show_scalar(&mut rest, reading, step.quoted, &mut pen)?,
        Shape::List(Reading::Same(Scalar::Float)) => {
            show_floats(&mut rest, LIST_ITEMS_MAX, &mut pen)?.0
        }
        Shape::List(item) => show_items(&mut rest, item, LIST_ITEMS_MAX, step, &mut pen)?,
        Shape::Vector(size) => {
            let (finite, items) = show_floats(&mut rest, size as usize, &mut pen)?;
            if items != size as usize {
                return Err(Stop);
            }
            finite
        }
    };
    Ok(Other { stored: rest.len(), room: pen.left(), finite })
}

fn show_items(
    rest: &mut Body<'_>,
    item: Reading,
    limit: usize,
    step: &Step,
    pen: &mut Pen<'_>,
) -> Walk<bool> {
    let (mut finite, mut before) = (true, b'[');
    each_block(rest, limit, |rest, count| {
        for _ in 0..count {
            pen.byte(before)?;
            before = b',';
            finite &= show_scalar(rest, item, step.quoted, pen)?;
        }
        Ok(())
    })?;
    close_list(before, pen)?;
    Ok(finite)
}

/// Floats, whose bytes are all of one size, in one loop.
fn show_floats(rest: &mut Body<'_>, limit: usize, pen: &mut Pen<'_>) -> Walk<(bool, usize)> {
    let (mut finite, mut before) = (true, b'[');
    let items = each_block(rest, limit, |rest, count| {
        let (floats, _) = rest.bytes(count.wrapping_mul(4))?.as_chunks::<4>();
        for bytes in floats {
            let (first, place) = pen.window::<{ ROOM + 1 }>()?.split_first_mut().ok_or(Stop)?;
            *first = before;
            before = b',';
            let place = place.first_chunk_mut::<ROOM>().ok_or(Stop)?;
            let (length, whole) = float(place, f32::from_le_bytes(*bytes));
            pen.keep(length.wrapping_add(1) & (ROOM - 1));
            finite &= whole;
        }
        Ok(())
    })?;
    close_list(before, pen)?;
    Ok((finite, items))
}

/// Closes a list, and opens it when no item did.
fn close_list(before: u8, pen: &mut Pen<'_>) -> Walk<()> {
    if before == b'[' {
        pen.byte(before)?;
    }
    pen.byte(b']')
}

/// The bytes left after the value of a step of any kind, its union index included.
#[inline(never)]
pub(super) fn skip_whole(mut rest: Body<'_>, step: &Step) -> Walk<usize> {
    if step.nullable && rest.null()? { Ok(rest.len()) } else { skip_other(rest, step) }
}

#[inline(never)]
pub(super) fn skip_other(mut rest: Body<'_>, step: &Step) -> Walk<usize> {
    let (item, limit) = match step.shape {
        Shape::Scalar(reading) => {
            skip_scalar(&mut rest, reading.stored())?;
            return Ok(rest.len());
        }
        Shape::List(item) => (item.stored(), LIST_ITEMS_MAX),
        Shape::Vector(size) => (Scalar::Float, size as usize),
    };
    let items = each_block(&mut rest, limit, |rest, count| match item {
        Scalar::Float => rest.bytes(count.wrapping_mul(4)).map(drop),
        Scalar::Double => rest.bytes(count.wrapping_mul(8)).map(drop),
        _ => (0..count).try_for_each(|_| skip_scalar(rest, item)),
    })?;
    let exact = matches!(step.shape, Shape::Vector(_));
    if exact && items != limit { Err(Stop) } else { Ok(rest.len()) }
}

fn show_scalar(
    rest: &mut Body<'_>,
    reading: Reading,
    quoted: bool,
    pen: &mut Pen<'_>,
) -> Walk<bool> {
    match reading {
        Reading::Same(Scalar::Boolean) => show_boolean(rest, pen),
        Reading::Same(Scalar::Integer) => show_long(i64::from(rest.integer()?), pen),
        Reading::IntegerToLong => show_quotable(i64::from(rest.integer()?), quoted, pen),
        Reading::Same(Scalar::Long) => show_quotable(rest.varint()?, quoted, pen),
        Reading::Same(Scalar::Float) => show_float(rest.float()?, pen),
        Reading::Same(Scalar::Double) => show_double(rest.double()?, pen),
        Reading::Same(Scalar::Text) => show_text(rest, pen),
        Reading::Same(Scalar::Bytes) => show_bytes(rest, pen),
        Reading::Same(Scalar::Date) => {
            let days = rest.integer()?;
            show_pushed(pen, |out| text::push_date(out, days))
        }
        Reading::Same(Scalar::Timestamp) => {
            let micros = rest.varint()?;
            show_pushed(pen, |out| text::push_timestamp(out, micros))
        }
        Reading::IntegerToFloat => show_float(integer_to_float(rest.integer()?), pen),
        Reading::IntegerToDouble => show_double(f64::from(rest.integer()?), pen),
        Reading::LongToFloat => show_float(long_to_float(rest.varint()?), pen),
        Reading::LongToDouble => show_double(long_to_double(rest.varint()?), pen),
        Reading::FloatToDouble => show_double(f64::from(rest.float()?), pen),
    }
}

fn skip_scalar(rest: &mut Body<'_>, scalar: Scalar) -> Walk<()> {
    match scalar {
        Scalar::Boolean => skip_boolean(rest),
        Scalar::Integer | Scalar::Date => rest.skip_integer(),
        Scalar::Long | Scalar::Timestamp => rest.skip_varint(),
        Scalar::Float => rest.float().map(drop),
        Scalar::Double => rest.double().map(drop),
        Scalar::Text | Scalar::Bytes => skip_text(rest),
    }
}

#[inline(always)]
pub(super) fn skip_boolean(rest: &mut Body<'_>) -> Walk<()> {
    match rest.byte()? {
        0 | 1 => Ok(()),
        _ => Err(Stop),
    }
}

#[inline(always)]
pub(super) fn skip_text(rest: &mut Body<'_>) -> Walk<()> {
    let length = rest.length()?;
    rest.bytes(length).map(drop)
}

/// Prints a boolean and gives its length, without a branch on which it is.
#[inline(always)]
pub(super) fn print_boolean(window: &mut [u8; ROOM], stored: u8) -> Walk<usize> {
    static TABLE: [([u8; 8], u8); 2] = [(*b"false\0\0\0", 5), (*b"true\0\0\0\0", 4)];
    let (word, length) = TABLE.get(usize::from(stored)).ok_or(Stop)?;
    put(window, 0, *word);
    Ok(usize::from(*length))
}

fn show_boolean(rest: &mut Body<'_>, pen: &mut Pen<'_>) -> Walk<bool> {
    let length = print_boolean(pen.window()?, rest.byte()?)?;
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

fn show_double(value: f64, pen: &mut Pen<'_>) -> Walk<bool> {
    let (length, finite) = double(pen.window()?, value);
    pen.keep(length);
    Ok(finite)
}

fn show_float(value: f32, pen: &mut Pen<'_>) -> Walk<bool> {
    let (length, finite) = float(pen.window()?, value);
    pen.keep(length);
    Ok(finite)
}

/// Prints a double; gives its length, and notes whether it is none.
#[inline(always)]
pub(super) fn noted_double(
    window: &mut [u8; ROOM],
    value: f64,
    step: &Step,
    not_finite: &mut FieldSet,
) -> usize {
    match print_double(window, value) {
        Some(length) => length,
        None => print_rare(window, value, value.is_finite(), step, not_finite),
    }
}

/// Prints a float; gives its length, and notes whether it is none.
#[inline(always)]
pub(super) fn noted_float(
    window: &mut [u8; ROOM],
    value: f32,
    step: &Step,
    not_finite: &mut FieldSet,
) -> usize {
    match print_float(window, value) {
        Some(length) => length,
        None => print_rare(window, value, value.is_finite(), step, not_finite),
    }
}

/// Prints a double; gives its length, and whether it is finite.
#[inline(always)]
fn double(window: &mut [u8; ROOM], value: f64) -> (usize, bool) {
    let finite = value.is_finite();
    (print_double(window, value).unwrap_or_else(|| print_any(window, value, finite)), finite)
}

/// Prints a float; gives its length, and whether it is finite.
#[inline(always)]
fn float(window: &mut [u8; ROOM], value: f32) -> (usize, bool) {
    let finite = value.is_finite();
    (print_float(window, value).unwrap_or_else(|| print_any(window, value, finite)), finite)
}

/// Prints zero, and what is very large, very small or no number, which it notes.
#[inline(never)]
fn print_rare(
    window: &mut [u8; ROOM],
    value: impl zmij::Float,
    finite: bool,
    step: &Step,
    not_finite: &mut FieldSet,
) -> usize {
    let length = print_any(window, value, finite);
    if !finite {
        not_finite.insert(step.column as usize);
    }
    length
}

/// Prints any number, and null for what is none.
#[inline(never)]
fn print_any(window: &mut [u8; ROOM], value: impl zmij::Float, finite: bool) -> usize {
    if finite {
        return print_short(window, zmij::Buffer::new().format_finite(value).as_bytes());
    }
    put(window, 0, *b"null");
    4
}

/// Prints any text that is stored next.
#[inline(never)]
pub(super) fn show_any_text(mut rest: Body<'_>, mut pen: Pen<'_>) -> Walk<(usize, usize)> {
    show_text(&mut rest, &mut pen)?;
    Ok((rest.len(), pen.left()))
}

fn show_text(rest: &mut Body<'_>, pen: &mut Pen<'_>) -> Walk<bool> {
    let length = rest.length()?;
    let left = print_text(rest.bytes(length)?, pen.fork())?;
    pen.join(left);
    Ok(true)
}

/// Takes a text of up to sixteen bytes that are not special; None, and nothing taken, for others.
#[inline(always)]
pub(super) fn take_short(rest: &mut Body<'_>) -> Option<([u8; 16], usize)> {
    let mut after = *rest;
    let (length, chunk) = if let Some([length, chunk @ ..]) = rest.rest().first_chunk::<17>() {
        (*length, *chunk)
    } else {
        let length = after.byte().ok()?;
        (length, after.ahead())
    };
    // Twice the length; the lowest bit and the highest, of a number that goes on, become high ones.
    let length = usize::from(length.rotate_right(1));
    if length > 16 || is_special(chunk, length) {
        return None;
    }
    rest.skip(length.wrapping_add(1)).ok()?;
    Some((chunk, length))
}

/// Prints what [`take_short`] took, and gives its length.
#[inline(always)]
pub(super) fn print_short_text(window: &mut [u8; ROOM], chunk: [u8; 16], length: usize) -> usize {
    put(window, 0, [b'"']);
    put(window, 1, chunk);
    put(window, length.wrapping_add(1), [b'"']);
    length.wrapping_add(2)
}

/// Any text: 16 bytes at a time while none of them is special, then plain stretches and escapes.
#[inline(never)]
pub(super) fn print_text(content: &[u8], mut pen: Pen<'_>) -> Walk<usize> {
    pen.byte(b'"')?;
    let mut left = content;
    while let Some((chunk, after)) = left.split_first_chunk::<16>() {
        if is_special(*chunk, 16) {
            break;
        }
        *pen.window::<16>()? = *chunk;
        pen.keep(16);
        left = after;
    }
    if std::str::from_utf8(left).is_err() {
        return Err(Stop);
    }
    while !left.is_empty() {
        let plain = left.iter().position(|byte| text::needs_escape(*byte)).unwrap_or(left.len());
        let (head, tail) = left.split_at_checked(plain).ok_or(Stop)?;
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
    Ok(pen.left())
}

fn show_bytes(rest: &mut Body<'_>, pen: &mut Pen<'_>) -> Walk<bool> {
    let length = rest.length()?;
    let content = rest.bytes(length)?;
    show_pushed(pen, |out| text::push_base64(out, content))
}

/// Prints with a function of [`text`], for types that are seldom many in a row.
fn show_pushed(pen: &mut Pen<'_>, push: impl FnOnce(&mut Vec<u8>)) -> Walk<bool> {
    let mut shown = Vec::with_capacity(ROOM);
    push(&mut shown);
    pen.bytes(&shown)?;
    Ok(true)
}
