//! JSON values → Avro, in exactly the forms that answers print (semantics 10).
//!
//! | type | form in a command |
//! | --- | --- |
//! | Boolean | `true`, `false` |
//! | Integer, Long | decimal digits; no fraction, no exponent, no string |
//! | Float, Double | any JSON number, rounded once to the nearest value; refused when that is infinite |
//! | Text | a string of at most [`TEXT_BYTES_MAX`] bytes |
//! | Bytes | standard base64 with padding, at most [`TEXT_BYTES_MAX`] bytes decoded |
//! | Date | `2026-11-24`, years 0001 to 9999 |
//! | Timestamp | `2026-11-24T23:00:00.000000Z`: UTC, `T` and `Z` in capitals, one to six digits of fraction or none (answers print six, or none when they are zero) |
//! | `List<T>` | an array of at most [`LIST_ITEMS_MAX`] items, none of them null |
//! | `Vector<N>` | an array of exactly N numbers, each a Float |
//!
//! NaN and infinity have no JSON form and are refused from Avro too, so none is ever stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cursor::write_varint;
use crate::error::{Error, Kind, Result};
use crate::format::{DATE_MAX_DAYS, DATE_MIN_DAYS, DAY_MICROS, LIST_ITEMS_MAX, TEXT_BYTES_MAX};
use crate::json::{Reader, Token};
use crate::schema::{Field, FieldType, Scalar};

/// Appends the Avro of one field's value (with its union index when nullable), taken from the
/// JSON value that comes next. On an error `out` holds a part of it: cut it back.
pub fn encode_json(reader: &mut Reader<'_>, field: &Field, out: &mut Vec<u8>) -> Result<()> {
    if reader.peek()? == Token::Null {
        if !field.nullable {
            return Err(
                Error::new(Kind::NullNotAllowed, "the field is not nullable").at(reader.offset())
            );
        }
        reader.null()?;
        out.push(0);
        return Ok(());
    }
    if field.nullable {
        out.push(2);
    }
    match field.field_type {
        FieldType::Scalar(scalar) => encode_scalar(reader, scalar, out),
        FieldType::List(item) => encode_list(reader, item, out),
        FieldType::Vector(size) => encode_vector(reader, size, out),
    }
}

/// The field's default as the Avro bytes of the field, union index included.
///
/// Fails with [`Kind::Schema`] when the default is no value of the field's type.
pub fn encode_default(field: &Field) -> Result<Vec<u8>> {
    let text = field.default.to_string();
    let mut out = Vec::new();
    let mut reader = Reader::new(text.as_bytes())?;
    encode_json(&mut reader, field, &mut out).and_then(|()| reader.finish()).map_err(|error| {
        let name = field.field_type.name();
        let message = format!("the default is no `{name}`: {}", error.message);
        Error::new(Kind::Schema, message).under(&field.name)
    })?;
    Ok(out)
}

#[inline]
fn encode_scalar(reader: &mut Reader<'_>, scalar: Scalar, out: &mut Vec<u8>) -> Result<()> {
    match scalar {
        Scalar::Boolean => {
            expect(reader, Token::Boolean, scalar)?;
            out.push(u8::from(reader.boolean()?));
        }
        Scalar::Integer => {
            expect(reader, Token::Number, scalar)?;
            let offset = reader.offset();
            let value = i32::try_from(reader.integer()?).map_err(|_| {
                Error::new(Kind::OutOfRange, "the number does not fit an Integer").at(offset)
            })?;
            write_varint(out, i64::from(value));
        }
        Scalar::Long => {
            expect(reader, Token::Number, scalar)?;
            write_varint(out, reader.integer()?);
        }
        Scalar::Float => {
            expect(reader, Token::Number, scalar)?;
            out.extend_from_slice(&reader.number_32()?.to_le_bytes());
        }
        Scalar::Double => {
            expect(reader, Token::Number, scalar)?;
            out.extend_from_slice(&reader.number()?.to_le_bytes());
        }
        Scalar::Text => encode_text(reader, out)?,
        Scalar::Bytes => encode_base64(reader, out)?,
        Scalar::Date => write_varint(out, dated(reader, scalar, parse_date)?),
        Scalar::Timestamp => write_varint(out, dated(reader, scalar, parse_timestamp)?),
    }
    Ok(())
}

/// Fails unless a value of that kind comes next.
#[inline]
fn expect(reader: &mut Reader<'_>, wanted: Token, scalar: Scalar) -> Result<()> {
    let found = reader.peek()?;
    if found == wanted {
        return Ok(());
    }
    Err(wrong_type(scalar.name(), found, reader.offset()))
}

#[cold]
fn wrong_type(name: &str, found: Token, offset: usize) -> Error {
    let message = format!("a {name} was expected, got {}", found.name());
    Error::new(Kind::WrongType, message).at(offset)
}

fn encode_text(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
    expect(reader, Token::String, Scalar::Text)?;
    let offset = reader.offset();
    let start = out.len();
    let length = if let Some(plain) = reader.plain_string()? {
        write_varint(out, i64::try_from(plain.len()).unwrap_or(i64::MAX));
        out.extend_from_slice(plain.as_bytes());
        plain.len()
    } else {
        reader.string_into(out)?;
        let length = out.len().saturating_sub(start);
        prefix(out, start, i64::try_from(length).unwrap_or(i64::MAX));
        length
    };
    check_length(length, offset)
}

fn encode_base64(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
    expect(reader, Token::String, Scalar::Bytes)?;
    let offset = reader.offset();
    let start = out.len();
    let text = reader.string()?;
    STANDARD.decode_vec(text.as_bytes(), out).map_err(|error| {
        let message = format!("a Bytes is base64 with padding: {error}");
        Error::new(Kind::WrongType, message).at(offset)
    })?;
    let length = out.len().saturating_sub(start);
    prefix(out, start, i64::try_from(length).unwrap_or(i64::MAX));
    check_length(length, offset)
}

fn check_length(length: usize, offset: usize) -> Result<()> {
    if length <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the value takes more than {TEXT_BYTES_MAX} bytes");
    Err(Error::new(Kind::TooLarge, message).at(offset))
}

/// Puts a varint in front of what was appended since `start`, whose size was not known before.
fn prefix(out: &mut Vec<u8>, start: usize, value: i64) {
    let end = out.len();
    write_varint(out, value);
    let width = out.len().saturating_sub(end);
    if let Some(written) = out.get_mut(start..) {
        written.rotate_right(width);
    }
}

fn encode_list(reader: &mut Reader<'_>, item: Scalar, out: &mut Vec<u8>) -> Result<()> {
    expect_array(reader, || format!("List<{}>", item.name()))?;
    let start = out.len();
    let count = each_item(reader, LIST_ITEMS_MAX, |reader| encode_scalar(reader, item, out))?;
    if count > 0 {
        prefix(out, start, i64::try_from(count).unwrap_or(i64::MAX));
    }
    out.push(0);
    Ok(())
}

fn encode_vector(reader: &mut Reader<'_>, size: u32, out: &mut Vec<u8>) -> Result<()> {
    expect_array(reader, || format!("Vector<{size}>"))?;
    let offset = reader.offset();
    write_varint(out, i64::from(size));
    let wanted = usize::try_from(size).unwrap_or(usize::MAX);
    let count = each_item(reader, wanted, |reader| encode_scalar(reader, Scalar::Float, out))?;
    if count != wanted {
        let message = format!("a Vector<{size}> has exactly {size} items, got {count}");
        return Err(Error::new(Kind::WrongType, message).at(offset));
    }
    out.push(0);
    Ok(())
}

fn expect_array(reader: &mut Reader<'_>, name: impl Fn() -> String) -> Result<()> {
    let found = reader.peek()?;
    if found == Token::Array {
        return Ok(());
    }
    Err(wrong_type(&name(), found, reader.offset()))
}

/// Takes an array, item by item, and counts; an error's path has the item's position.
fn each_item(
    reader: &mut Reader<'_>,
    most: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Result<()>,
) -> Result<usize> {
    let mut count = 0_usize;
    reader.begin_array()?;
    while reader.next_item()? {
        if count == most {
            let message = format!("the array has more than {most} items");
            return Err(Error::new(Kind::TooLarge, message).at(reader.offset()));
        }
        take(reader).map_err(|error| error.under(&count.to_string()))?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

fn dated(
    reader: &mut Reader<'_>,
    scalar: Scalar,
    parse: impl Fn(&str) -> Option<i64>,
) -> Result<i64> {
    expect(reader, Token::String, scalar)?;
    let offset = reader.offset();
    let text = reader.string()?;
    parse(&text).ok_or_else(|| {
        let form = match scalar {
            Scalar::Date => "2026-11-24",
            _ => "2026-11-24T23:00:00.000000Z",
        };
        let message = format!("a {} looks like `{form}`, years 0001 to 9999", scalar.name());
        Error::new(Kind::WrongType, message).at(offset)
    })
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, None for any other form and for days that do not exist.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let year = digits(&[*y1, *y2, *y3, *y4])?;
    let (month, day) = (digits(&[*m1, *m2])?, digits(&[*d1, *d2])?);
    if day < 1 || day > days_of_month(year, month)? {
        return None;
    }
    days_from_civil(year, month, day).filter(|days| (DATE_MIN_DAYS..=DATE_MAX_DAYS).contains(days))
}

/// Microseconds since 1970-01-01T00:00:00Z of `YYYY-MM-DDThh:mm:ss[.ffffff]Z`.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked(10)?;
    let (clock, rest) = time.split_at_checked(9)?;
    let [b'T', h1, h2, b':', m1, m2, b':', s1, s2] = clock.as_bytes() else { return None };
    let (hour, minute) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
    let second = digits(&[*s1, *s2])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match rest.strip_suffix('Z')? {
        "" => 0,
        fraction => fraction_micros(fraction.strip_prefix('.')?)?,
    };
    let seconds = hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?;
    let of_day = seconds.checked_add(second)?.checked_mul(1_000_000)?.checked_add(micros)?;
    parse_date(date)?.checked_mul(DAY_MICROS)?.checked_add(of_day)
}

/// Microseconds of one to six digits of fraction.
fn fraction_micros(text: &str) -> Option<i64> {
    let missing = 6_usize.checked_sub(text.len()).filter(|missing| *missing < 6)?;
    let scale = 10_i64.checked_pow(u32::try_from(missing).ok()?)?;
    digits(text.as_bytes())?.checked_mul(scale)
}

/// The number that only digits spell.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit.wrapping_sub(b'0')))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn days_of_month(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => Some(if leap { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// H. Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let from_march = if month > 2 { month.checked_sub(3)? } else { month.checked_add(9)? };
    let of_year = from_march.checked_mul(153)?.checked_add(2)?.div_euclid(5).checked_add(day)?;
    let days = of_era
        .checked_mul(365)?
        .checked_add(of_era.div_euclid(4))?
        .checked_sub(of_era.div_euclid(100))?
        .checked_add(of_year)?;
    era.checked_mul(146_097)?.checked_add(days)?.checked_sub(719_469)
}

#[cfg(test)]
mod tests;
