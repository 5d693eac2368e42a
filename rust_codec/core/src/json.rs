//! A strict pull reader of JSON (RFC 8259): the caller asks for what it expects, nothing is built.
//!
//! It refuses what other readers let through: text that is not UTF-8, lone surrogates, control
//! characters in strings, nesting beyond [`JSON_DEPTH_MAX`], numbers beyond
//! [`JSON_NUMBER_BYTES_MAX`] and anything after the value. Integers are exact or refused: `1.0`,
//! `1e3` and `"1"` are none. Members are not compared by the reader; a caller marks the ones it
//! knows in [`Seen`].
//!
//! Why not the `jiter` crate: its pull reader has no depth limit of its own, lends strings from a
//! tape inside the reader (so a member's name cannot outlive the next call), turns long digit runs
//! into big integers, and gives floats as `f64` only, while a Float must be rounded to 32 bits once.

use std::borrow::Cow;

use crate::error::{Error, Kind, Result};
use crate::format::{JSON_DEPTH_MAX, JSON_NUMBER_BYTES_MAX};

mod string;

use string::{StringBody, special_position, unescape};

/// What kind of value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or `-`
    Number,
    /// `true` or `false`
    Boolean,
    /// `null`
    Null,
}

impl Token {
    /// The kind with its article, for sentences.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }
}

/// What [`Reader::next_member_or`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member<'a> {
    /// The member whose name was expected.
    Expected,
    /// A member whose name may be any, the expected one too.
    Other(Cow<'a, str>),
    /// The object is closed.
    Closed,
}

/// A reading position in one JSON text.
///
/// Values are taken in order: after [`Self::begin_object`], [`Self::next_member`] gives a name and
/// the caller takes exactly one value before asking for the next; after [`Self::begin_array`] the
/// same with [`Self::next_item`]. When either says that there is no more, the container is closed.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
    /// A container was opened and no member of it was asked for yet: no comma is due.
    fresh: bool,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte; fails when the bytes are not UTF-8.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::new(Kind::Json, "the text is not UTF-8").at(error.valid_up_to())
        })?;
        Ok(Self { text, rest: text, depth: 0, fresh: false })
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.text.len().saturating_sub(self.rest.len())
    }

    /// The text between an earlier offset and here; empty when there is none.
    #[must_use]
    pub fn text_since(&self, start: usize) -> &'a str {
        self.text.get(start..self.offset()).unwrap_or_default()
    }

    /// The kind of the next value.
    #[inline]
    pub fn peek(&mut self) -> Result<Token> {
        self.skip_space();
        match self.rest.as_bytes().first() {
            Some(b'"') => Ok(Token::String),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number),
            Some(b't' | b'f') => Ok(Token::Boolean),
            Some(b'n') => Ok(Token::Null),
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(_) => Err(self.malformed("a value was expected")),
            None => Err(self.malformed("the text ends early")),
        }
    }

    /// Opens an object.
    #[inline]
    pub fn begin_object(&mut self) -> Result<()> {
        self.open(Token::Object)
    }

    /// Opens an array.
    #[inline]
    pub fn begin_array(&mut self) -> Result<()> {
        self.open(Token::Array)
    }

    /// The name of the object's next member, None once the object is closed.
    #[inline]
    pub fn next_member(&mut self) -> Result<Option<Cow<'a, str>>> {
        if !self.advance(b'}', "a comma or `}` was expected")? {
            return Ok(None);
        }
        self.member_name().map(Some)
    }

    /// The next member when the caller can guess its name, which spares looking for the name's end.
    #[inline]
    pub fn next_member_or(&mut self, expected: &str) -> Result<Member<'a>> {
        if !self.advance(b'}', "a comma or `}` was expected")? {
            return Ok(Member::Closed);
        }
        let bytes = self.rest.as_bytes();
        if let [b'"', after @ ..] = bytes
            && let Some([b'"', b':', after @ ..]) = after.strip_prefix(expected.as_bytes())
        {
            self.move_on(bytes.len().saturating_sub(after.len()));
            self.skip_space();
            return Ok(Member::Expected);
        }
        self.member_name().map(Member::Other)
    }

    /// Whether the array has a next item; false once it is closed.
    #[inline]
    pub fn next_item(&mut self) -> Result<bool> {
        self.advance(b']', "a comma or `]` was expected")
    }

    /// Takes a string; borrowed unless it holds escapes.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(Token::String)?;
        self.quoted()
    }

    /// Takes a string that holds no escapes; None, and nothing taken, when it holds some.
    #[inline]
    pub fn plain_string(&mut self) -> Result<Option<&'a str>> {
        self.expect(Token::String)?;
        let start = self.rest;
        let body = self.string_body()?;
        if body.escaped {
            self.rest = start;
            return Ok(None);
        }
        Ok(Some(body.raw))
    }

    /// Takes a string and appends its UTF-8, without allocating a string for escapes.
    pub fn string_into(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.expect(Token::String)?;
        let body = self.string_body()?;
        if body.escaped {
            unescape(&body, out)
        } else {
            out.extend_from_slice(body.raw.as_bytes());
            Ok(())
        }
    }

    /// Takes a number that is a plain integer of 64 bits: no fraction, no exponent, no string.
    #[inline]
    pub fn integer(&mut self) -> Result<i64> {
        self.expect(Token::Number)?;
        if let Some((value, rest)) = short_integer(self.rest) {
            self.rest = rest;
            return Ok(value);
        }
        let start = self.offset();
        let lexeme = self.lexeme()?;
        if !lexeme.plain {
            let message = "an integer was expected, got a fraction or an exponent";
            return Err(Error::new(Kind::WrongType, message).at(start));
        }
        lexeme
            .text
            .parse()
            .map_err(|_| Error::new(Kind::OutOfRange, "the integer does not fit 64 bits").at(start))
    }

    /// Takes any number, rounded to the nearest double; refused when it overflows to infinity.
    #[inline]
    pub fn number(&mut self) -> Result<f64> {
        self.expect(Token::Number)?;
        let start = self.offset();
        let value: f64 = self.lexeme()?.text.parse().unwrap_or(f64::INFINITY);
        if value.is_finite() { Ok(value) } else { Err(overflow("Double").at(start)) }
    }

    /// Takes any number, rounded once to the nearest 32-bit float; refused when it overflows.
    #[inline]
    pub fn number_32(&mut self) -> Result<f32> {
        self.expect(Token::Number)?;
        let start = self.offset();
        let value: f32 = self.lexeme()?.text.parse().unwrap_or(f32::INFINITY);
        if value.is_finite() { Ok(value) } else { Err(overflow("Float").at(start)) }
    }

    /// Takes `true` or `false`.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool> {
        self.expect(Token::Boolean)?;
        if self.take_word("true") {
            Ok(true)
        } else if self.take_word("false") {
            Ok(false)
        } else {
            Err(self.malformed("a value was expected"))
        }
    }

    /// Takes `null`.
    #[inline]
    pub fn null(&mut self) -> Result<()> {
        self.expect(Token::Null)?;
        if self.take_word("null") { Ok(()) } else { Err(self.malformed("a value was expected")) }
    }

    /// Takes any one value, checked as strictly as if it were read.
    pub fn skip(&mut self) -> Result<()> {
        match self.peek()? {
            Token::Object => {
                self.begin_object()?;
                while self.next_member()?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            Token::Array => {
                self.begin_array()?;
                while self.next_item()? {
                    self.skip()?;
                }
                Ok(())
            }
            Token::String => self.quoted().map(drop),
            Token::Number => self.lexeme().map(drop),
            Token::Boolean => self.boolean().map(drop),
            Token::Null => self.null(),
        }
    }

    /// Fails unless only white space is left.
    pub fn finish(&mut self) -> Result<()> {
        self.skip_space();
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.malformed("text is left after the value"))
    }

    /// Skips ahead and fails with the kind of value that stands there instead.
    #[inline]
    fn expect(&mut self, wanted: Token) -> Result<()> {
        let found = self.peek()?;
        if found == wanted { Ok(()) } else { Err(self.wrong_type(wanted, found)) }
    }

    #[cold]
    fn wrong_type(&self, wanted: Token, found: Token) -> Error {
        let message = format!("{} was expected, got {}", wanted.name(), found.name());
        Error::new(Kind::WrongType, message).at(self.offset())
    }

    #[cold]
    fn malformed(&self, message: &'static str) -> Error {
        let message = if self.rest.is_empty() { "the text ends early" } else { message };
        Error::new(Kind::Json, message).at(self.offset())
    }

    #[inline]
    fn skip_space(&mut self) {
        let bytes = self.rest.as_bytes();
        if bytes.first().is_some_and(|byte| *byte > b' ') {
            return;
        }
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let count = bytes.iter().position(|byte| !space(byte)).unwrap_or(bytes.len());
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// Moves past bytes that are known to be ASCII.
    #[inline]
    fn move_on(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// Takes one ASCII byte when it comes next. (A `char` pattern would cost a call of `memcmp`.)
    #[inline]
    fn take_byte(&mut self, byte: u8) -> bool {
        let found = self.rest.as_bytes().first() == Some(&byte);
        if found {
            self.move_on(1);
        }
        found
    }

    #[inline]
    fn take_word(&mut self, word: &str) -> bool {
        self.rest.strip_prefix(word).is_some_and(|rest| {
            self.rest = rest;
            true
        })
    }

    fn open(&mut self, container: Token) -> Result<()> {
        self.expect(container)?;
        if self.depth >= JSON_DEPTH_MAX {
            let message = format!("nested deeper than {JSON_DEPTH_MAX} levels");
            return Err(Error::new(Kind::Json, message).at(self.offset()));
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        self.depth = self.depth.saturating_add(1);
        self.fresh = true;
        Ok(())
    }

    /// Steps over the comma before a member or the bracket that closes the container.
    #[inline]
    fn advance(&mut self, close: u8, message: &'static str) -> Result<bool> {
        self.skip_space();
        let fresh = std::mem::replace(&mut self.fresh, false);
        if self.take_byte(close) {
            self.depth = self.depth.saturating_sub(1);
            return Ok(false);
        }
        if fresh || self.take_byte(b',') { Ok(true) } else { Err(self.malformed(message)) }
    }

    #[inline]
    fn member_name(&mut self) -> Result<Cow<'a, str>> {
        self.skip_space();
        if self.rest.as_bytes().first() != Some(&b'"') {
            return Err(self.malformed("a member name was expected"));
        }
        let name = self.quoted()?;
        self.expect_colon()?;
        Ok(name)
    }

    #[inline]
    fn expect_colon(&mut self) -> Result<()> {
        self.skip_space();
        if !self.take_byte(b':') {
            return Err(self.malformed("`:` was expected"));
        }
        // So that the offset after a name is the offset of its value.
        self.skip_space();
        Ok(())
    }

    /// Takes the string that starts here.
    #[inline]
    fn quoted(&mut self) -> Result<Cow<'a, str>> {
        let body = self.string_body()?;
        if !body.escaped {
            return Ok(Cow::Borrowed(body.raw));
        }
        let mut plain = Vec::with_capacity(body.raw.len());
        unescape(&body, &mut plain)?;
        let plain = String::from_utf8(plain)
            .map_err(|_| Error::new(Kind::Json, "the text is not UTF-8").at(body.offset))?;
        Ok(Cow::Owned(plain))
    }

    /// Finds the end of the string that starts here; escapes are not looked into yet.
    #[inline]
    fn string_body(&mut self) -> Result<StringBody<'a>> {
        let inside = self.rest.get(1..).unwrap_or_default();
        let offset = self.offset().saturating_add(1);
        let bytes = inside.as_bytes();
        let mut escaped = false;
        let mut from = 0_usize;
        loop {
            let ahead = bytes.get(from..).unwrap_or_default();
            let Some(distance) = special_position(ahead) else {
                return Err(Error::new(Kind::Json, "the text ends early").at(self.text.len()));
            };
            let stop = from.saturating_add(distance);
            match bytes.get(stop) {
                Some(b'"') => {
                    let raw = inside.get(..stop).unwrap_or_default();
                    self.rest = inside.get(stop.saturating_add(1)..).unwrap_or_default();
                    return Ok(StringBody { raw, offset, escaped });
                }
                // The character after a backslash is never the end, whatever it is.
                Some(b'\\') => from = stop.saturating_add(2),
                _ => {
                    return Err(Error::new(Kind::Json, "a control character must be escaped")
                        .at(offset.saturating_add(stop)));
                }
            }
            escaped = true;
        }
    }

    /// Takes the number that starts here, by the grammar of RFC 8259.
    #[inline]
    fn lexeme(&mut self) -> Result<Lexeme<'a>> {
        let bytes = self.rest.as_bytes();
        let mut rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
        rest = match rest {
            [b'0', rest @ ..] => rest,
            _ => self.digits(rest)?,
        };
        let integer_end = rest.len();
        if let [b'.', fraction @ ..] = rest {
            rest = self.digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            rest = match exponent {
                [b'+' | b'-', exponent @ ..] => self.digits(exponent)?,
                _ => self.digits(exponent)?,
            };
        }
        if rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.') {
            let offset = self.text.len().saturating_sub(rest.len());
            return Err(Error::new(Kind::Json, "the number is not well formed").at(offset));
        }
        let length = bytes.len().saturating_sub(rest.len());
        if length > JSON_NUMBER_BYTES_MAX {
            let message = format!("a number has more than {JSON_NUMBER_BYTES_MAX} characters");
            return Err(Error::new(Kind::OutOfRange, message).at(self.offset()));
        }
        let plain = integer_end == rest.len();
        let (text, after) = self.rest.split_at_checked(length).unwrap_or_default();
        self.rest = after;
        Ok(Lexeme { text, plain })
    }

    /// What follows a run of at least one digit.
    #[inline]
    fn digits<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8]> {
        let count = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
        if count == 0 {
            let offset = self.text.len().saturating_sub(bytes.len());
            let message =
                if bytes.is_empty() { "the text ends early" } else { "a digit was expected" };
            return Err(Error::new(Kind::Json, message).at(offset));
        }
        Ok(bytes.get(count..).unwrap_or_default())
    }
}

struct Lexeme<'a> {
    text: &'a str,
    plain: bool,
}

#[cold]
fn overflow(name: &str) -> Error {
    Error::new(Kind::OutOfRange, format!("the number does not fit a {name}"))
}

/// An integer of up to 18 digits, which cannot overflow, and the text after it; None for every
/// number that needs a closer look.
#[inline]
fn short_integer(text: &str) -> Option<(i64, &str)> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut magnitude = 0_i64;
    let mut count = 0_usize;
    for digit in digits.iter().take(19).take_while(|digit| digit.is_ascii_digit()) {
        magnitude = magnitude.wrapping_mul(10).wrapping_add(i64::from(digit.wrapping_sub(b'0')));
        count = count.wrapping_add(1);
    }
    let plain_end = matches!(digits.get(count), Some(b',' | b'}' | b']'));
    let leading_zero = count > 1 && digits.first() == Some(&b'0');
    if count == 0 || count > 18 || leading_zero || !plain_end {
        return None;
    }
    let rest = text.get(count.wrapping_add(usize::from(negative))..)?;
    Some((if negative { magnitude.wrapping_neg() } else { magnitude }, rest))
}

/// Marks positions, to find a member that stands twice. Kept between objects, so it allocates once.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    words: Vec<u64>,
}

impl Seen {
    /// Forgets all marks and makes room for positions below `count`.
    pub fn reset(&mut self, count: usize) {
        self.words.clear();
        self.words.resize(count.div_ceil(64), 0);
    }

    /// Marks a position; false when it was marked before or is out of room.
    #[inline]
    pub fn mark(&mut self, position: usize) -> bool {
        let bit = 1_u64.wrapping_shl(u32::try_from(position & 63).unwrap_or_default());
        let Some(word) = self.words.get_mut(position >> 6) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether a position is marked.
    #[must_use]
    pub fn has(&self, position: usize) -> bool {
        let bit = 1_u64.wrapping_shl(u32::try_from(position & 63).unwrap_or_default());
        self.words.get(position >> 6).is_some_and(|word| word & bit != 0)
    }
}

/// The error for a member that stands twice.
#[must_use]
pub fn duplicate_member(name: &str, offset: usize) -> Error {
    Error::new(Kind::DuplicateMember, format!("member `{name}` stands twice")).at(offset)
}

#[cfg(test)]
mod tests;
