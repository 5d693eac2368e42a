//! JSON text of values, in the one form that answers print and commands take (semantics 10).
//!
//! | type | form |
//! | --- | --- |
//! | Boolean | `true`, `false` |
//! | Integer, Long | decimal digits; as a string when int64 is asked for as text (Long only) |
//! | Float, Double | shortest digits that read back to the same bits, float as float: `1.0`, `1e30`, `-0.0` |
//! | Text | a JSON string; only `"`, `\` and control characters are escaped |
//! | Bytes | base64 with padding |
//! | Date | `YYYY-MM-DD`; years before 0000 or after 9999 have a sign and at least six digits |
//! | Timestamp | `YYYY-MM-DDThh:mm:ssZ`, with six digits of fraction when it is not zero |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Appends a decimal integer.
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a float; false, and nothing appended, when it is NaN or infinite.
#[must_use]
pub fn push_float(out: &mut Vec<u8>, value: f32) -> bool {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
    value.is_finite()
}

/// Appends a double; false, and nothing appended, when it is NaN or infinite.
#[must_use]
pub fn push_double(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
    value.is_finite()
}

/// Appends a JSON string.
pub fn push_text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let mut rest = value.as_bytes();
    while let Some(place) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (plain, from) = rest.split_at(place);
        out.extend_from_slice(plain);
        if let Some((byte, after)) = from.split_first() {
            push_escape(out, *byte);
            rest = after;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Whether a JSON string must escape this byte.
#[must_use]
#[inline]
pub const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let (escape, length) = escape(byte);
    out.extend_from_slice(escape.get(..length).unwrap_or_default());
}

/// The escape of a byte that needs one, and its length of 2 or 6.
#[must_use]
pub(crate) fn escape(byte: u8) -> ([u8; 6], usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        _ => {
            let high = HEX.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
            let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
            return ([b'\\', b'u', b'0', b'0', high, low], 6);
        }
    };
    ([b'\\', short, 0, 0, 0, 0], 2)
}

/// Appends a base64 string.
pub fn push_base64(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    let start = out.len();
    let room = value.len().div_ceil(3).saturating_mul(4);
    out.resize(start.saturating_add(room), b'=');
    if let Some(slot) = out.get_mut(start..) {
        let written = STANDARD.encode_slice(value, slot).unwrap_or(0);
        debug_assert_eq!(written, room);
    }
    out.push(b'"');
}

/// Appends a date string.
pub fn push_date(out: &mut Vec<u8>, days: i32) {
    out.push(b'"');
    push_calendar(out, i64::from(days));
    out.push(b'"');
}

/// Appends a timestamp string.
pub fn push_timestamp(out: &mut Vec<u8>, micros: i64) {
    out.push(b'"');
    push_calendar(out, day_of(micros));
    let (hour, minute, second, fraction) = clock(micros);
    for (mark, part) in [(b'T', hour), (b':', minute), (b':', second)] {
        out.push(mark);
        push_digits(out, part, 2);
    }
    if fraction > 0 {
        out.push(b'.');
        push_digits(out, fraction, 6);
    }
    out.extend_from_slice(b"Z\"");
}

/// Days since 1970-01-01 of microseconds since then.
#[must_use]
pub const fn day_of(micros: i64) -> i64 {
    micros.div_euclid(DAY_MICROS)
}

/// Hour, minute, second and microsecond of the day.
#[must_use]
pub const fn clock(micros: i64) -> (i64, i64, i64, i64) {
    let of_day = micros.rem_euclid(DAY_MICROS);
    let (seconds, fraction) = (of_day.div_euclid(1_000_000), of_day.rem_euclid(1_000_000));
    let (minutes, second) = (seconds.div_euclid(60), seconds.rem_euclid(60));
    (minutes.div_euclid(60), minutes.rem_euclid(60), second, fraction)
}

fn push_calendar(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = calendar(days);
    if (0..=9999).contains(&year) {
        push_digits(out, year, 4);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        push_digits(out, year.saturating_abs(), 6);
    }
    out.push(b'-');
    push_digits(out, month, 2);
    out.push(b'-');
    push_digits(out, day, 2);
}

/// Year, month and day of a day count, proleptic Gregorian. H. Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`. Any count of days of an i64 of microseconds fits.
#[must_use]
pub const fn calendar(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = of_era
        .saturating_sub(of_era.div_euclid(1460))
        .saturating_add(of_era.div_euclid(36_524))
        .saturating_sub(of_era.div_euclid(146_096))
        .div_euclid(365);
    let of_year = of_era
        .saturating_sub(year_of_era.saturating_mul(365))
        .saturating_sub(year_of_era.div_euclid(4))
        .saturating_add(year_of_era.div_euclid(100));
    let shifted_month = of_year.saturating_mul(5).saturating_add(2).div_euclid(153);
    let before = shifted_month.saturating_mul(153).saturating_add(2).div_euclid(5);
    let day = of_year.saturating_sub(before).saturating_add(1);
    let month = if shifted_month < 10 {
        shifted_month.saturating_add(3)
    } else {
        shifted_month.saturating_sub(9)
    };
    let year = era.saturating_mul(400).saturating_add(year_of_era);
    (if month <= 2 { year.saturating_add(1) } else { year }, month, day)
}

fn push_digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_print_as_iso_8601() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (19_782, "2024-02-29"),
            (11_016, "2000-02-29"),
            (-719_528, "0000-01-01"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+010000-01-01"),
            (-719_529, "-000001-12-31"),
            (i32::MAX, "+5881580-07-11"),
            (i32::MIN, "-5877641-06-23"),
        ] {
            assert_eq!(printed(|out| push_date(out, days)), format!("\"{text}\""));
        }
    }

    #[test]
    fn timestamps_print_a_fraction_only_when_there_is_one() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_700_000_000_000_000, "2023-11-14T22:13:20Z"),
            (1_700_000_000_000_010, "2023-11-14T22:13:20.000010Z"),
        ] {
            assert_eq!(printed(|out| push_timestamp(out, micros)), format!("\"{text}\""));
        }
        assert!(printed(|out| push_timestamp(out, i64::MIN)).starts_with("\"-290308-12-21T"));
        assert!(printed(|out| push_timestamp(out, i64::MAX)).starts_with("\"+294247-01-10T"));
    }

    #[test]
    fn strings_escape_quotes_backslashes_and_controls_only() {
        let text: String = (0..0x80).map(char::from).chain("é€😀".chars()).collect();
        let shown = printed(|out| push_text(out, &text));
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        assert_eq!(shown, serde_json::to_string(&text).unwrap());
    }

    #[test]
    fn numbers_print_their_shortest_form_and_keep_the_sign_of_zero() {
        assert_eq!(printed(|out| assert!(push_double(out, -0.0))), "-0.0");
        assert_eq!(printed(|out| assert!(push_double(out, 0.1))), "0.1");
        assert_eq!(printed(|out| assert!(push_float(out, 0.1))), "0.1");
        assert_eq!(printed(|out| assert!(!push_double(out, f64::NAN))), "");
        assert_eq!(printed(|out| push_integer(out, i64::MIN)), "-9223372036854775808");
    }

    #[test]
    fn bytes_print_as_padded_base64() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v")] {
            assert_eq!(printed(|out| push_base64(out, bytes)), format!("\"{text}\""));
        }
    }
}
