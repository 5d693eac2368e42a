//! Key columns of a request: read once, by type, into vectors that are kept between requests.

use super::problem::{Code, Problem};
use super::request::Result;
use crate::json::{Reader, Token};
use crate::schema::Scalar;

/// The values of one key column.
#[derive(Debug, Default)]
pub struct Column {
    integers: Vec<i64>,
    text: Vec<u8>,
    /// Where each Text ends in `text`.
    ends: Vec<usize>,
}

impl Column {
    /// What the buffers take.
    #[must_use]
    pub const fn capacity_bytes(&self) -> usize {
        let numbers = self.integers.capacity().saturating_add(self.ends.capacity());
        numbers.saturating_mul(size_of::<usize>()).saturating_add(self.text.capacity())
    }

    /// How many keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        // Only one of the two is ever filled.
        if self.ends.is_empty() { self.integers.len() } else { self.ends.len() }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The integers of an Integer or Long column.
    #[must_use]
    pub fn integers(&self) -> &[i64] {
        &self.integers
    }

    /// One integer; None in a Text column or behind its end.
    #[must_use]
    #[inline]
    pub fn integer(&self, row: usize) -> Option<i64> {
        self.integers.get(row).copied()
    }

    /// One Text; None in a column of numbers or behind its end.
    #[must_use]
    pub fn text(&self, row: usize) -> Option<&[u8]> {
        let end = self.ends.get(row).copied()?;
        let start = match row.checked_sub(1) {
            None => 0,
            Some(before) => self.ends.get(before).copied()?,
        };
        self.text.get(start..end)
    }

    fn clear(&mut self) {
        self.integers.clear();
        self.text.clear();
        self.ends.clear();
    }

    /// Reads a list with every check; what is wrong is named to the byte.
    pub fn read(&mut self, reader: &mut Reader<'_>, scalar: Scalar, keys_max: usize) -> Result<()> {
        self.clear();
        reader.begin_array()?;
        while reader.next_item()? {
            let row = self.len();
            if row == keys_max {
                let detail = format!("a read has at most {keys_max} keys");
                return Err(Problem::new(Code::TooManyKeys, detail).at(reader.offset()));
            }
            self.read_key(reader, scalar).map_err(|problem| problem.item(row))?;
        }
        Ok(())
    }

    fn read_key(&mut self, reader: &mut Reader<'_>, scalar: Scalar) -> Result<()> {
        let token = reader.peek()?;
        let offset = reader.offset();
        let wrong = |code, got: &str| {
            let detail = format!("a key of type {} was expected, got {got}", scalar.name());
            Problem::new(code, detail).at(offset)
        };
        match (scalar, token) {
            (_, Token::Null) => Err(wrong(Code::NullNotAllowed, "null")),
            (Scalar::Text, Token::String) => {
                let start = self.text.len();
                reader.string_into(&mut self.text)?;
                if self.text.len() == start {
                    return Err(wrong(Code::BadKey, "an empty string"));
                }
                self.ends.push(self.text.len());
                Ok(())
            }
            (Scalar::Integer | Scalar::Long, Token::Number) => {
                let value = reader.integer()?;
                if scalar == Scalar::Integer && i32::try_from(value).is_err() {
                    return Err(wrong(Code::OutOfRange, &value.to_string()));
                }
                self.integers.push(value);
                Ok(())
            }
            (_, token) => Err(wrong(Code::WrongType, token.name())),
        }
    }

    /// Reads a plain list at the start of the bytes and says how long it is.
    ///
    /// None for whatever is not plainly right (escapes, 19 digits, too many keys, …): then [`Self::read`] decides, and says why.
    pub fn scan(&mut self, bytes: &[u8], scalar: Scalar, keys_max: usize) -> Option<usize> {
        self.clear();
        let mut rest = skip_space(bytes.strip_prefix(b"[")?);
        if let Some(rest) = rest.strip_prefix(b"]") {
            return bytes.len().checked_sub(rest.len());
        }
        loop {
            if self.len() >= keys_max {
                return None;
            }
            rest = match scalar {
                Scalar::Text => self.scan_text(rest)?,
                _ => self.scan_integer(rest, scalar)?,
            };
            rest = skip_space(rest);
            match rest {
                [b',', tail @ ..] => rest = skip_space(tail),
                [b']', tail @ ..] => return bytes.len().checked_sub(tail.len()),
                _ => return None,
            }
        }
    }

    #[inline]
    fn scan_integer<'b>(&mut self, bytes: &'b [u8], scalar: Scalar) -> Option<&'b [u8]> {
        let (negative, mut rest) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if let [b'0', tail @ ..] = rest {
            // A digit after it is refused by the caller, which expects a comma or a bracket.
            self.integers.push(0);
            return Some(tail);
        }
        let length = rest.len();
        let mut magnitude: i64 = 0;
        while let [byte @ b'0'..=b'9', tail @ ..] = rest {
            // Wrapping cannot be seen: more than 18 digits are refused below.
            let digit = i64::from(byte.wrapping_sub(b'0'));
            magnitude = magnitude.wrapping_mul(10).wrapping_add(digit);
            rest = tail;
        }
        let digits = length.wrapping_sub(rest.len());
        if digits == 0 || digits > 18 {
            return None;
        }
        let value = if negative { magnitude.wrapping_neg() } else { magnitude };
        if scalar == Scalar::Integer && i32::try_from(value).is_err() {
            return None;
        }
        self.integers.push(value);
        Some(rest)
    }

    fn scan_text<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let inside = bytes.strip_prefix(b"\"")?;
        let length = memchr::memchr2(b'"', b'\\', inside)?;
        let (text, rest) = inside.split_at_checked(length)?;
        let plain = !text.is_empty() && text.iter().all(|byte| *byte >= b' ');
        if !plain || std::str::from_utf8(text).is_err() {
            return None;
        }
        self.text.extend_from_slice(text);
        self.ends.push(self.text.len());
        // A backslash stands where the quote would: not plain.
        rest.strip_prefix(b"\"")
    }
}

/// The text behind any white space.
#[inline]
pub(super) fn skip_space(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}
