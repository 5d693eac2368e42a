//! The content digest: what a write says, whatever schema it was written under. The layout of the
//! digested bytes is in [`crate::format`].
//!
//! The walk that digests a value also checks it in full, so that foreign Avro (bulk commands) is
//! validated and digested in one pass.

use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::format::{DATE_MAX_DAYS, DATE_MIN_DAYS, DAY_MICROS, LIST_ITEMS_MAX, TEXT_BYTES_MAX};
use crate::schema::{Field, FieldType, RecordSchema, Scalar};

/// Collects named fields and digests them. Kept between commands, so it allocates once.
#[derive(Debug, Default)]
pub struct Digester {
    canonical: Vec<u8>,
}

impl Digester {
    /// Forgets all fields.
    pub fn reset(&mut self) {
        self.canonical.clear();
    }

    /// Adds one field, reading its Avro value from the cursor; fields come in ascending id order.
    ///
    /// Fails when the bytes are no value of the field's type that may be stored.
    pub fn push(&mut self, field: &Field, cursor: &mut Cursor<'_>) -> Result<()> {
        self.canonical.extend_from_slice(&field.id.to_le_bytes());
        self.push_value(field, cursor).map_err(|error| error.under(&field.name))
    }

    /// The digest of the fields so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.canonical)
    }

    fn push_value(&mut self, field: &Field, cursor: &mut Cursor<'_>) -> Result<()> {
        if field.nullable {
            let start = cursor.offset();
            match cursor.byte()? {
                0 => {
                    self.canonical.push(0);
                    return Ok(());
                }
                2 => {}
                _ => {
                    let message = "a union index is neither 0 nor 1";
                    return Err(Error::new(Kind::Corrupt, message).at(start));
                }
            }
        }
        match field.field_type {
            FieldType::Scalar(scalar) => self.push_scalar(scalar, cursor),
            FieldType::List(item) => {
                let count_at = self.open(8);
                let count =
                    each_item(cursor, LIST_ITEMS_MAX, |cursor| self.push_scalar(item, cursor))?;
                self.close(count_at, count);
                Ok(())
            }
            FieldType::Vector(size) => self.push_vector(size, cursor),
        }
    }

    fn push_vector(&mut self, size: u32, cursor: &mut Cursor<'_>) -> Result<()> {
        let start = cursor.offset();
        let count_at = self.open(9);
        let wanted = usize::try_from(size).unwrap_or(usize::MAX);
        let count = each_item(cursor, wanted, |cursor| {
            let value = read_float(cursor)?;
            self.canonical.extend_from_slice(&value.to_le_bytes());
            Ok(())
        })?;
        if count != wanted {
            let message = format!("a Vector<{size}> has exactly {size} items, got {count}");
            return Err(Error::new(Kind::WrongType, message).at(start));
        }
        self.close(count_at, count);
        Ok(())
    }

    /// Appends a tag and room for an item count.
    fn open(&mut self, tag: u8) -> usize {
        self.canonical.push(tag);
        let count_at = self.canonical.len();
        self.canonical.extend_from_slice(&[0; 4]);
        count_at
    }

    fn close(&mut self, count_at: usize, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
        for (place, byte) in self.canonical.iter_mut().skip(count_at).zip(count) {
            *place = byte;
        }
    }

    fn push_scalar(&mut self, scalar: Scalar, cursor: &mut Cursor<'_>) -> Result<()> {
        match scalar {
            Scalar::Boolean => {
                let start = cursor.offset();
                let value = cursor.byte()?;
                if value > 1 {
                    let message = "a boolean is neither 0 nor 1";
                    return Err(Error::new(Kind::Corrupt, message).at(start));
                }
                self.canonical.extend_from_slice(&[1, value]);
            }
            Scalar::Integer => {
                let bounds = i64::from(i32::MIN)..=i64::from(i32::MAX);
                self.push_word(2, bounded(cursor, &bounds, scalar)?);
            }
            Scalar::Long => self.push_word(2, cursor.varint()?),
            Scalar::Float => {
                let value = shortest_as_double(read_float(cursor)?);
                self.push_word(3, value.to_bits().cast_signed());
            }
            Scalar::Double => {
                let start = cursor.offset();
                let value = f64::from_le_bytes(cursor.array()?);
                check_finite(value.is_finite(), start)?;
                self.push_word(3, value.to_bits().cast_signed());
            }
            Scalar::Text => {
                let start = cursor.offset();
                let bytes = read_bytes(cursor)?;
                std::str::from_utf8(bytes)
                    .map_err(|_| Error::new(Kind::Corrupt, "the text is not UTF-8").at(start))?;
                self.push_bytes(4, bytes);
            }
            Scalar::Bytes => self.push_bytes(5, read_bytes(cursor)?),
            Scalar::Date => {
                let bounds = DATE_MIN_DAYS..=DATE_MAX_DAYS;
                self.push_word(6, bounded(cursor, &bounds, scalar)?);
            }
            Scalar::Timestamp => {
                let first = DATE_MIN_DAYS.saturating_mul(DAY_MICROS);
                let last = DATE_MAX_DAYS.saturating_add(1).saturating_mul(DAY_MICROS);
                let bounds = first..=last.saturating_sub(1);
                self.push_word(7, bounded(cursor, &bounds, scalar)?);
            }
        }
        Ok(())
    }

    #[inline]
    fn push_word(&mut self, tag: u8, value: i64) {
        self.canonical.push(tag);
        self.canonical.extend_from_slice(&value.to_le_bytes());
    }

    fn push_bytes(&mut self, tag: u8, value: &[u8]) {
        self.canonical.push(tag);
        // Never longer than `TEXT_BYTES_MAX`.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.canonical.extend_from_slice(&length.to_le_bytes());
        self.canonical.extend_from_slice(value);
    }
}

/// Checks a whole record body and digests it. `spans` is scratch room, kept between calls.
pub fn digest_record(
    schema: &RecordSchema,
    body: &[u8],
    digester: &mut Digester,
    spans: &mut Vec<usize>,
) -> Result<u64> {
    let mut cursor = Cursor::new(body);
    digester.reset();
    if schema.in_id_order {
        for field in &schema.fields {
            digester.push(field, &mut cursor)?;
        }
        cursor.finish()?;
        return Ok(digester.digest());
    }
    // The first walk finds where each field starts, the second digests in ascending id order.
    spans.clear();
    for field in &schema.fields {
        spans.push(cursor.offset());
        digester.push(field, &mut cursor)?;
    }
    cursor.finish()?;
    digester.reset();
    for position in &schema.by_id {
        let found = schema.fields.get(*position).zip(spans.get(*position));
        let Some((field, start)) = found else { continue };
        digester.push(field, &mut Cursor::new(body.get(*start..).unwrap_or_default()))?;
    }
    Ok(digester.digest())
}

/// The double nearest to a float's shortest decimal form.
fn shortest_as_double(value: f32) -> f64 {
    let wide = f64::from(value);
    // Whole numbers below 2^24 are their own shortest form.
    if wide.fract() == 0.0 && wide.abs() < 16_777_216.0 {
        return wide;
    }
    zmij::Buffer::new().format_finite(value).parse().unwrap_or(wide)
}

fn bounded(
    cursor: &mut Cursor<'_>,
    bounds: &std::ops::RangeInclusive<i64>,
    scalar: Scalar,
) -> Result<i64> {
    let start = cursor.offset();
    let value = cursor.varint()?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    let message = format!("the number does not fit a {}", scalar.name());
    Err(Error::new(Kind::OutOfRange, message).at(start))
}

fn read_float(cursor: &mut Cursor<'_>) -> Result<f32> {
    let start = cursor.offset();
    let value = f32::from_le_bytes(cursor.array()?);
    check_finite(value.is_finite(), start)?;
    Ok(value)
}

fn check_finite(finite: bool, start: usize) -> Result<()> {
    if finite {
        return Ok(());
    }
    Err(Error::new(Kind::OutOfRange, "NaN and infinity cannot be stored").at(start))
}

fn read_bytes<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let start = cursor.offset();
    let length = cursor.length()?;
    if length > TEXT_BYTES_MAX {
        let message = format!("the value takes more than {TEXT_BYTES_MAX} bytes");
        return Err(Error::new(Kind::TooLarge, message).at(start));
    }
    cursor.take(length)
}

/// Reads an Avro array item by item and counts. Blocks may come in any number, but not with a
/// byte size in front (a negative count): no common writer makes those, and readers are simpler.
fn each_item<'a>(
    cursor: &mut Cursor<'a>,
    most: usize,
    mut take: impl FnMut(&mut Cursor<'a>) -> Result<()>,
) -> Result<usize> {
    let mut total = 0_usize;
    loop {
        let start = cursor.offset();
        let count = cursor.varint()?;
        if count == 0 {
            return Ok(total);
        }
        let count = usize::try_from(count).map_err(|_| {
            Error::new(Kind::Corrupt, "an array block has a negative count").at(start)
        })?;
        total = total.saturating_add(count);
        if total > most {
            let message = format!("the array has more than {most} items");
            return Err(Error::new(Kind::TooLarge, message).at(start));
        }
        let first = total.saturating_sub(count);
        for item in first..total {
            take(cursor).map_err(|error| error.under(&item.to_string()))?;
        }
    }
}

#[cfg(test)]
mod tests;
