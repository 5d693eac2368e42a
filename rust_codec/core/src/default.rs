//! Defaults as Avro, from the form that answers print (semantics 10).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cursor::write_varint;
use crate::error::{Error, Kind, Result};
use crate::schema::{Field, FieldType, Scalar};

/// The field's default as the Avro bytes of the field, union index included.
///
/// Fails with [`Kind::Schema`] when the default is no value of the field's type.
pub fn encode_default(field: &Field) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if field.default.is_null() && field.nullable {
        out.push(0);
        return Ok(out);
    }
    if field.nullable {
        out.push(2);
    }
    let outcome = match field.field_type {
        FieldType::Scalar(scalar) => push(&mut out, scalar, &field.default),
        FieldType::List(item) => push_items(&mut out, item, &field.default),
        FieldType::Vector(_) => push_items(&mut out, Scalar::Float, &field.default),
    };
    outcome.map(|()| out).ok_or_else(|| {
        let message = format!("the default is no `{}`", field.field_type.name());
        Error::new(Kind::Schema, message).under(&field.name)
    })
}

fn push_items(out: &mut Vec<u8>, item: Scalar, value: &Value) -> Option<()> {
    let items = value.as_array()?;
    if !items.is_empty() {
        write_varint(out, i64::try_from(items.len()).ok()?);
        items.iter().try_for_each(|value| push(out, item, value))?;
    }
    out.push(0);
    Some(())
}

fn push(out: &mut Vec<u8>, scalar: Scalar, value: &Value) -> Option<()> {
    match scalar {
        Scalar::Boolean => out.push(u8::from(value.as_bool()?)),
        Scalar::Integer => write_varint(out, i64::from(i32::try_from(value.as_i64()?).ok()?)),
        Scalar::Long => write_varint(out, value.as_i64()?),
        Scalar::Float => {
            #[expect(clippy::cast_possible_truncation, reason = "a Float's default is a float")]
            let narrow = value.as_f64()? as f32;
            out.extend_from_slice(&narrow.to_le_bytes());
        }
        Scalar::Double => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
        Scalar::Text => push_bytes(out, value.as_str()?.as_bytes())?,
        Scalar::Bytes => push_bytes(out, &STANDARD.decode(value.as_str()?).ok()?)?,
        Scalar::Date => {
            write_varint(out, i64::from(i32::try_from(days(value.as_str()?)?).ok()?));
        }
        Scalar::Timestamp => write_varint(out, micros(value.as_str()?)?),
    }
    Some(())
}

fn push_bytes(out: &mut Vec<u8>, value: &[u8]) -> Option<()> {
    write_varint(out, i64::try_from(value.len()).ok()?);
    out.extend_from_slice(value);
    Some(())
}

/// Days since 1970-01-01 of `YYYY-MM-DD`. H. Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`.
fn days(text: &str) -> Option<i64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year: i64 = year.parse().ok()?;
    let (month, day): (i64, i64) = (month.parse().ok()?, day.parse().ok()?);
    let shifted = if month <= 2 { year.checked_sub(1)? } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_from_march = if month > 2 { month.checked_sub(3)? } else { month.checked_add(9)? };
    let of_year =
        month_from_march.checked_mul(153)?.checked_add(2)?.div_euclid(5).checked_add(day)?;
    let of_era = year_of_era
        .checked_mul(365)?
        .checked_add(year_of_era.div_euclid(4))?
        .checked_sub(year_of_era.div_euclid(100))?
        .checked_add(of_year)?;
    era.checked_mul(146_097)?.checked_add(of_era)?.checked_sub(719_469)
}

/// Microseconds since 1970-01-01 of `YYYY-MM-DDThh:mm:ss[.ffffff]Z`.
fn micros(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut seconds = days(date)?.checked_mul(86_400)?;
    let mut unit = 3600;
    for part in clock.splitn(3, ':') {
        seconds = seconds.checked_add(part.parse::<i64>().ok()?.checked_mul(unit)?)?;
        unit /= 60;
    }
    let fraction = fraction.get(..6).unwrap_or(fraction);
    let scale = 10_i64.checked_pow(6_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?)?;
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<i64>().ok()? };
    seconds.checked_mul(1_000_000)?.checked_add(fraction.checked_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    #[test]
    fn times_read_back_from_what_answers_print() {
        for micros_wanted in [0, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let mut out = Vec::new();
            text::push_timestamp(&mut out, micros_wanted);
            let shown: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(micros(&shown), Some(micros_wanted), "{shown}");
        }
    }
}
