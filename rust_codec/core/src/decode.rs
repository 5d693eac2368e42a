//! Walks Avro bodies: values go to a [`Sink`], or are skipped. Nothing is allocated for a value.

use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::format::{LIST_ITEMS_MAX, TEXT_BYTES_MAX};
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::{RecordSchema, Scalar};

/// Takes the values of a walk. Borrowed text and bytes live as long as the call.
pub trait Sink {
    /// What can go wrong here; a walk's own errors are converted into it.
    type Error: From<Error>;
    /// A null of a nullable field.
    fn null(&mut self) -> std::result::Result<(), Self::Error>;
    /// A Boolean.
    fn boolean(&mut self, value: bool) -> std::result::Result<(), Self::Error>;
    /// An Integer.
    fn integer(&mut self, value: i32) -> std::result::Result<(), Self::Error>;
    /// A Long.
    fn long(&mut self, value: i64) -> std::result::Result<(), Self::Error>;
    /// A Float, any bit pattern.
    fn float(&mut self, value: f32) -> std::result::Result<(), Self::Error>;
    /// A Double, any bit pattern.
    fn double(&mut self, value: f64) -> std::result::Result<(), Self::Error>;
    /// A Text.
    fn text(&mut self, value: &str) -> std::result::Result<(), Self::Error>;
    /// A Bytes.
    fn bytes(&mut self, value: &[u8]) -> std::result::Result<(), Self::Error>;
    /// A Date: days since 1970-01-01.
    fn date(&mut self, days: i32) -> std::result::Result<(), Self::Error>;
    /// A Timestamp: microseconds since 1970-01-01 UTC.
    fn timestamp(&mut self, micros: i64) -> std::result::Result<(), Self::Error>;
    /// A list or vector opens; its items follow.
    fn begin_list(&mut self) -> std::result::Result<(), Self::Error>;
    /// It closes.
    fn end_list(&mut self) -> std::result::Result<(), Self::Error>;
}

/// Decodes one whole record body as its writer wrote it, one value a field in schema order.
///
/// Fails with [`Kind::Corrupt`] when the bytes are not a body of this schema, trailing bytes included.
pub fn decode<S: Sink>(
    schema: &RecordSchema,
    body: &[u8],
    sink: &mut S,
) -> std::result::Result<(), S::Error> {
    let mut cursor = Cursor::new(body);
    for field in &schema.fields {
        decode_field(&mut cursor, FieldReading::of(field), sink)?;
    }
    Ok(cursor.finish()?)
}

/// Decodes one field. A null that is no longer allowed is given as null all the same; callers who
/// resolve look at [`starts_with_null`] first.
pub fn decode_field<S: Sink>(
    cursor: &mut Cursor<'_>,
    reading: FieldReading,
    sink: &mut S,
) -> std::result::Result<(), S::Error> {
    if reading.nullable && union_is_null(cursor)? {
        return sink.null();
    }
    match reading.shape {
        Shape::Scalar(scalar) => decode_scalar(cursor, scalar, sink),
        Shape::List(item) => {
            sink.begin_list()?;
            each_item(cursor, LIST_ITEMS_MAX, |cursor| decode_scalar(cursor, item, sink))?;
            sink.end_list()
        }
        Shape::Vector(size) => {
            sink.begin_list()?;
            let item = Reading::Same(Scalar::Float);
            let limit = usize::try_from(size).unwrap_or(LIST_ITEMS_MAX);
            let items = each_item(cursor, limit, |cursor| decode_scalar(cursor, item, sink))?;
            check_vector(cursor, items, limit)?;
            sink.end_list()
        }
    }
}

/// Moves past one field, checking its structure.
pub fn skip_field(cursor: &mut Cursor<'_>, reading: FieldReading) -> Result<()> {
    if reading.nullable && union_is_null(cursor)? {
        return Ok(());
    }
    match reading.shape {
        Shape::Scalar(scalar) => skip_scalar(cursor, scalar.stored()),
        Shape::List(item) => {
            each_item(cursor, LIST_ITEMS_MAX, |cursor| skip_scalar(cursor, item.stored()))?;
            Ok(())
        }
        Shape::Vector(size) => {
            let limit = usize::try_from(size).unwrap_or(LIST_ITEMS_MAX);
            let items = each_item(cursor, limit, |cursor| skip_scalar(cursor, Scalar::Float))?;
            check_vector(cursor, items, limit)
        }
    }
}

/// Whether the field's bytes begin with the null branch of its union.
#[must_use]
pub fn starts_with_null(bytes: &[u8], reading: FieldReading) -> bool {
    reading.nullable && bytes.first() == Some(&0)
}

fn union_is_null(cursor: &mut Cursor<'_>) -> Result<bool> {
    let start = cursor.offset();
    match cursor.byte()? {
        0 => Ok(true),
        2 => Ok(false),
        _ => Err(Error::new(Kind::Corrupt, "a union index is neither 0 nor 1").at(start)),
    }
}

/// Calls `item` for each item of an Avro array (blocks, those with a byte size included).
pub(crate) fn each_item<E: From<Error>>(
    cursor: &mut Cursor<'_>,
    limit: usize,
    mut item: impl FnMut(&mut Cursor<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<usize, E> {
    let mut items: usize = 0;
    loop {
        let count = begin_block(cursor)?;
        if count == 0 {
            return Ok(items);
        }
        items = items.saturating_add(count);
        if items > limit {
            let message = format!("an array has more than {limit} items");
            return Err(Error::new(Kind::Corrupt, message).at(cursor.offset()).into());
        }
        for _ in 0..count {
            item(cursor)?;
        }
    }
}

/// The count of the next array block; every item takes at least a byte, so it is bounded by what
/// is left.
fn begin_block(cursor: &mut Cursor<'_>) -> Result<usize> {
    let start = cursor.offset();
    let count = cursor.varint()?;
    if count < 0 {
        cursor.length()?;
    }
    usize::try_from(count.unsigned_abs())
        .ok()
        .filter(|count| *count <= cursor.rest().len())
        .ok_or_else(|| Error::new(Kind::Corrupt, "an item count goes past the end").at(start))
}

fn check_vector(cursor: &Cursor<'_>, items: usize, size: usize) -> Result<()> {
    if items == size {
        return Ok(());
    }
    let message = format!("a vector of {size} holds {items} items");
    Err(Error::new(Kind::Corrupt, message).at(cursor.offset()))
}

fn decode_scalar<S: Sink>(
    cursor: &mut Cursor<'_>,
    reading: Reading,
    sink: &mut S,
) -> std::result::Result<(), S::Error> {
    match reading {
        Reading::Same(Scalar::Boolean) => sink.boolean(read_boolean(cursor)?),
        Reading::Same(Scalar::Integer) => sink.integer(read_integer(cursor)?),
        Reading::Same(Scalar::Long) => sink.long(cursor.varint()?),
        Reading::Same(Scalar::Float) => sink.float(read_float(cursor)?),
        Reading::Same(Scalar::Double) => sink.double(read_double(cursor)?),
        Reading::Same(Scalar::Text) => sink.text(read_text(cursor)?),
        Reading::Same(Scalar::Bytes) => sink.bytes(read_bytes(cursor)?),
        Reading::Same(Scalar::Date) => sink.date(read_integer(cursor)?),
        Reading::Same(Scalar::Timestamp) => sink.timestamp(cursor.varint()?),
        Reading::IntegerToLong => sink.long(i64::from(read_integer(cursor)?)),
        Reading::IntegerToFloat => sink.float(integer_to_float(read_integer(cursor)?)),
        Reading::IntegerToDouble => sink.double(f64::from(read_integer(cursor)?)),
        Reading::LongToFloat => sink.float(long_to_float(cursor.varint()?)),
        Reading::LongToDouble => sink.double(long_to_double(cursor.varint()?)),
        Reading::FloatToDouble => sink.double(f64::from(read_float(cursor)?)),
    }
}

fn skip_scalar(cursor: &mut Cursor<'_>, scalar: Scalar) -> Result<()> {
    match scalar {
        Scalar::Boolean => read_boolean(cursor).map(drop),
        Scalar::Integer | Scalar::Date => read_integer(cursor).map(drop),
        Scalar::Long | Scalar::Timestamp => cursor.varint().map(drop),
        Scalar::Float => cursor.array::<4>().map(drop),
        Scalar::Double => cursor.array::<8>().map(drop),
        Scalar::Text | Scalar::Bytes => read_bytes(cursor).map(drop),
    }
}

pub(crate) fn read_boolean(cursor: &mut Cursor<'_>) -> Result<bool> {
    let start = cursor.offset();
    match cursor.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::new(Kind::Corrupt, "a boolean is neither 0 nor 1").at(start)),
    }
}

pub(crate) fn read_integer(cursor: &mut Cursor<'_>) -> Result<i32> {
    let start = cursor.offset();
    i32::try_from(cursor.varint()?)
        .map_err(|_| Error::new(Kind::Corrupt, "an int is longer than 32 bits").at(start))
}

pub(crate) fn read_float(cursor: &mut Cursor<'_>) -> Result<f32> {
    Ok(f32::from_le_bytes(cursor.array()?))
}

pub(crate) fn read_double(cursor: &mut Cursor<'_>) -> Result<f64> {
    Ok(f64::from_le_bytes(cursor.array()?))
}

pub(crate) fn read_bytes<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let start = cursor.offset();
    let length = cursor.length()?;
    if length > TEXT_BYTES_MAX {
        let message = format!("a value is longer than {TEXT_BYTES_MAX} bytes");
        return Err(Error::new(Kind::Corrupt, message).at(start));
    }
    cursor.take(length)
}

pub(crate) fn read_text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let bytes = read_bytes(cursor)?;
    let start = cursor.offset().saturating_sub(bytes.len());
    std::str::from_utf8(bytes).map_err(|error| {
        let place = start.saturating_add(error.valid_up_to());
        Error::new(Kind::Corrupt, "a text is not UTF-8").at(place)
    })
}

#[expect(clippy::cast_precision_loss, reason = "Avro resolves int to float by rounding")]
pub(crate) const fn integer_to_float(value: i32) -> f32 {
    value as f32
}

#[expect(clippy::cast_precision_loss, reason = "only on Promotion::Rounding")]
pub(crate) const fn long_to_float(value: i64) -> f32 {
    value as f32
}

#[expect(clippy::cast_precision_loss, reason = "only on Promotion::Rounding")]
pub(crate) const fn long_to_double(value: i64) -> f64 {
    value as f64
}
