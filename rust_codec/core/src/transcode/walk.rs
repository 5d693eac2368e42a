//! The quick walk: one pass over the body, one dispatch a field, no call out but for doubles.
//!
//! It gives up ([`Stop::Unusual`]) on whatever is not plain, damaged bytes included; the plain
//! walk of [`super`] then prints the row or says what is wrong and where. So nothing here needs an
//! error of its own, and the plain walk is what this one is tested against.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::decimal::{print_double, print_float};
use super::pen::{Full, Pen, ROOM, print_long, print_short, put};
use super::quick::{OBJECT, ROW};
use super::sixteen::is_special;
use super::take::{Body, each_block};
use crate::decode::{integer_to_float, long_to_double, long_to_float};
use crate::format::LIST_ITEMS_MAX;
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;
use crate::text;

/// Room of a field: of its label, which is shorter than that of a value, and of its value.
pub(super) const FIELD_ROOM: usize = 2 * ROOM;

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
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) kind: Kind,
    label: Label,
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
    pub(super) const fn constant(column: usize, label: Label) -> Self {
        Self {
            kind: Kind::Constant,
            label,
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
        label: Label,
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
        Self { kind, label, nullable, null_allowed, quoted, shape, position, column }
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
        let (label, quoted, position, column) = (Label::NONE, false, 0, 0);
        Self { kind, label, nullable, null_allowed, quoted, shape, position, column }
    }
}

/// `,"name":`, padded to a fixed size.
#[derive(Debug, Clone)]
pub(super) struct Label {
    bytes: [u8; ROOM],
    length: u8,
}

impl Label {
    const NONE: Self = Self { bytes: [0; ROOM], length: 0 };

    /// The label of a name with its quotes and its colon; None when it is too long.
    pub(super) fn new(name: &[u8]) -> Option<Self> {
        let mut label = Self { bytes: [b','; ROOM], length: u8::try_from(name.len()).ok()? };
        label.length = label.length.checked_add(1).filter(|length| usize::from(*length) < ROOM)?;
        label.bytes.get_mut(1..usize::from(label.length))?.copy_from_slice(name);
        Some(label)
    }

    /// Writes it and gives its length.
    #[inline(always)]
    fn write(&self, window: &mut [u8; FIELD_ROOM]) -> Walk<usize> {
        let place = window.first_chunk_mut::<ROOM>().ok_or(Stop::Full)?;
        if self.length <= 32 {
            let (head, _) = self.bytes.split_first_chunk::<32>().ok_or(Stop::Unusual)?;
            put(place, 0, *head);
        } else {
            *place = self.bytes;
        }
        Ok(usize::from(self.length))
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

/// What stands before a value: nothing, a comma or a comma and its label. What is printed first
/// gets the opening bracket in place of the comma in the end.
#[inline(always)]
pub(super) fn lead<const LAYOUT: u8>(step: &Step, window: &mut [u8; FIELD_ROOM]) -> Walk<usize> {
    match LAYOUT {
        OBJECT => step.label.write(window),
        ROW => {
            *window.first_mut().ok_or(Stop::Full)? = b',';
            Ok(1)
        }
        _ => Ok(0),
    }
}

/// Prints the value at the front of `rest` with what stands before it, and moves past it.
#[inline(always)]
pub(super) fn show<const LAYOUT: u8>(
    rest: &mut Body<'_>,
    step: &Step,
    pen: &mut Pen<'_>,
) -> Walk<Shown> {
    let window = pen.window::<FIELD_ROOM>()?;
    let lead = lead::<LAYOUT>(step, window)?;
    let place = window.get_mut(lead & (ROOM - 1)..).and_then(<[u8]>::first_chunk_mut::<ROOM>);
    let place = place.ok_or(Stop::Full)?;
    if step.nullable && rest.null()? {
        if !step.null_allowed {
            return Ok(Shown::Unwritten);
        }
        put(place, 0, *b"null");
        pen.keep(lead.wrapping_add(4) & (FIELD_ROOM - 1));
        return Ok(Shown::Value);
    }
    let (length, finite) = match step.kind {
        Kind::Boolean => (print_boolean(place, rest.byte()?)?, true),
        Kind::Integer => (print_long(place, i64::from(rest.integer()?)), true),
        Kind::Long => (print_long(place, rest.varint()?), true),
        Kind::Float => float(place, rest.float()?),
        Kind::Double => double(place, rest.double()?),
        Kind::Text => {
            let length = rest.length()?;
            let chunk = rest.ahead();
            let content = rest.bytes(length)?;
            if length > 16 || is_special(chunk, length) {
                pen.keep(lead);
                let left = print_text(content, pen.fork())?;
                pen.join(left);
                return Ok(Shown::Value);
            }
            (print_chunk(place, chunk, length), true)
        }
        _ => {
            pen.keep(lead);
            let other = show_other(*rest, step, pen.fork())?;
            *rest = rest.last_bytes(other.stored)?;
            pen.join(other.room);
            return Ok(if other.finite { Shown::Value } else { Shown::NotFinite });
        }
    };
    pen.keep(lead.wrapping_add(length) & (FIELD_ROOM - 1));
    Ok(if finite { Shown::Value } else { Shown::NotFinite })
}

/// Where a value ended.
struct Other {
    /// Bytes of the body that are left.
    stored: usize,
    /// Bytes of room that are left.
    room: usize,
    finite: bool,
}

/// Prints the types that have no kind of their own.
#[inline(never)]
fn show_other(mut rest: Body<'_>, step: &Step, mut pen: Pen<'_>) -> Walk<Other> {
    let finite = match step.shape {
        Shape::Scalar(reading) => show_scalar(&mut rest, reading, step.quoted, &mut pen)?,
        Shape::List(Reading::Same(Scalar::Float)) => {
            show_floats(&mut rest, LIST_ITEMS_MAX, &mut pen)?.0
        }
        Shape::List(item) => show_items(&mut rest, item, LIST_ITEMS_MAX, step, &mut pen)?,
        Shape::Vector(size) => {
            let (finite, items) = show_floats(&mut rest, size as usize, &mut pen)?;
            if items != size as usize {
                return Err(Stop::Unusual);
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
            let (first, place) =
                pen.window::<{ ROOM + 1 }>()?.split_first_mut().ok_or(Stop::Full)?;
            *first = before;
            before = b',';
            let place = place.first_chunk_mut::<ROOM>().ok_or(Stop::Full)?;
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
    Ok(pen.byte(b']')?)
}

/// Moves past the value at the front of `rest`.
#[inline(always)]
pub(super) fn skip(rest: &mut Body<'_>, step: &Step) -> Walk<()> {
    if step.nullable && rest.null()? {
        return Ok(());
    }
    match step.kind {
        Kind::SkipBoolean => skip_boolean(rest),
        Kind::SkipInteger => rest.integer().map(drop),
        Kind::SkipLong => rest.varint().map(drop),
        Kind::SkipFloat => rest.float().map(drop),
        Kind::SkipDouble => rest.double().map(drop),
        Kind::SkipText => skip_text(rest),
        _ => {
            *rest = rest.last_bytes(skip_other(*rest, step)?)?;
            Ok(())
        }
    }
}

/// The bytes left after the value of a step of any kind, its union index included.
#[inline(never)]
pub(super) fn skip_whole(mut rest: Body<'_>, step: &Step) -> Walk<usize> {
    if step.nullable && rest.null()? { Ok(rest.len()) } else { skip_other(rest, step) }
}

#[inline(never)]
fn skip_other(mut rest: Body<'_>, step: &Step) -> Walk<usize> {
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
    if exact && items != limit { Err(Stop::Unusual) } else { Ok(rest.len()) }
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
        Scalar::Integer | Scalar::Date => rest.integer().map(drop),
        Scalar::Long | Scalar::Timestamp => rest.varint().map(drop),
        Scalar::Float => rest.float().map(drop),
        Scalar::Double => rest.double().map(drop),
        Scalar::Text | Scalar::Bytes => skip_text(rest),
    }
}

#[inline(always)]
fn skip_boolean(rest: &mut Body<'_>) -> Walk<()> {
    match rest.byte()? {
        0 | 1 => Ok(()),
        _ => Err(Stop::Unusual),
    }
}

#[inline(always)]
fn skip_text(rest: &mut Body<'_>) -> Walk<()> {
    let length = rest.length()?;
    rest.bytes(length).map(drop)
}

/// Prints a boolean and gives its length.
#[inline(always)]
fn print_boolean(window: &mut [u8; ROOM], stored: u8) -> Walk<usize> {
    let (word, length) = match stored {
        0 => (*b"false\0\0\0", 5),
        1 => (*b"true\0\0\0\0", 4),
        _ => return Err(Stop::Unusual),
    };
    put(window, 0, word);
    Ok(length)
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

/// Prints a double; gives its length, and whether it is finite.
#[inline(always)]
fn double(window: &mut [u8; ROOM], value: f64) -> (usize, bool) {
    match print_double(window, value) {
        Some(length) => (length, true),
        None => print_rare(window, value, value.is_finite()),
    }
}

/// Prints a float; gives its length, and whether it is finite.
#[inline(always)]
fn float(window: &mut [u8; ROOM], value: f32) -> (usize, bool) {
    match print_float(window, value) {
        Some(length) => (length, true),
        None => print_rare(window, value, value.is_finite()),
    }
}

/// Prints zero, and what is very large, very small or no number.
#[inline(never)]
fn print_rare(window: &mut [u8; ROOM], value: impl zmij::Float, finite: bool) -> (usize, bool) {
    if finite {
        return (print_short(window, zmij::Buffer::new().format_finite(value).as_bytes()), true);
    }
    put(window, 0, *b"null");
    (4, false)
}

fn show_text(rest: &mut Body<'_>, pen: &mut Pen<'_>) -> Walk<bool> {
    let length = rest.length()?;
    let left = print_text(rest.bytes(length)?, pen.fork())?;
    pen.join(left);
    Ok(true)
}

/// Prints a text of up to sixteen bytes that are not special, and gives its length.
#[inline(always)]
fn print_chunk(window: &mut [u8; ROOM], chunk: [u8; 16], length: usize) -> usize {
    put(window, 0, [b'"']);
    put(window, 1, chunk);
    put(window, length.wrapping_add(1), [b'"']);
    length.wrapping_add(2)
}

/// Any text: 16 bytes at a time while none of them is special, then plain stretches and escapes.
#[inline(never)]
fn print_text(content: &[u8], mut pen: Pen<'_>) -> Walk<usize> {
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
