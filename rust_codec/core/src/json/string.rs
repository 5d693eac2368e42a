//! The inside of JSON strings: where they end, and what their escapes mean.

use crate::error::{Error, Kind, Result};

/// A string as it stands between its quotes.
pub(super) struct StringBody<'a> {
    pub(super) raw: &'a str,
    /// Of the first character inside the quotes.
    pub(super) offset: usize,
    pub(super) escaped: bool,
}

/// Where the first quote, backslash or control character stands. Eight bytes are looked at in one
/// word (S. E. Anderson, "Bit Twiddling Hacks", zero byte in a word): a byte below the first hit
/// is never marked, so the lowest mark is right.
#[inline]
pub(super) fn special_position(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(limit.wrapping_mul(ONES)) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ u64::from(byte).wrapping_mul(ONES), 1);
    let (chunks, tail) = bytes.as_chunks::<8>();
    let mut position = 0_usize;
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        let marks = equal(word, b'"') | equal(word, b'\\') | below(word, u64::from(b' '));
        if marks != 0 {
            let byte = usize::try_from(marks.trailing_zeros() >> 3).unwrap_or_default();
            return Some(position.wrapping_add(byte));
        }
        position = position.wrapping_add(8);
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\') || *byte < b' ';
    tail.iter().position(special).map(|byte| position.wrapping_add(byte))
}

/// Appends the UTF-8 of an escaped string.
#[cold]
pub(super) fn unescape(body: &StringBody<'_>, out: &mut Vec<u8>) -> Result<()> {
    let mut rest = body.raw;
    while let Some((plain, after)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let place = body.raw.len().saturating_sub(after.len()).saturating_sub(1);
        let offset = body.offset.saturating_add(place);
        let mut chars = after.chars();
        let character = match chars.next() {
            Some('"') => '"',
            Some('\\') => '\\',
            Some('/') => '/',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (character, after) = unicode_escape(chars.as_str())
                    .map_err(|message| Error::new(Kind::Json, message).at(offset))?;
                chars = after.chars();
                character
            }
            _ => return Err(Error::new(Kind::Json, "no such escape").at(offset)),
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(())
}

/// The character of `XXXX` or of a surrogate pair `XXXX\uXXXX`, and the text after it.
fn unicode_escape(text: &str) -> std::result::Result<(char, &str), &'static str> {
    let (first, rest) = hex(text)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, rest));
    }
    let lone = "a surrogate stands alone";
    let (second, rest) = hex(rest.strip_prefix("\\u").ok_or(lone)?)?;
    if !(0xD800..0xDC00).contains(&first) || !(0xDC00..0xE000).contains(&second) {
        return Err(lone);
    }
    let code = (first & 0x3FF).wrapping_shl(10) | (second & 0x3FF);
    let code = code.wrapping_add(0x1_0000);
    char::from_u32(code).map(|character| (character, rest)).ok_or(lone)
}

fn hex(text: &str) -> std::result::Result<(u32, &str), &'static str> {
    let message = "four hexadecimal digits were expected";
    let (digits, rest) = text.split_at_checked(4).ok_or(message)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(message);
    }
    u32::from_str_radix(digits, 16).map(|code| (code, rest)).map_err(|_| message)
}
