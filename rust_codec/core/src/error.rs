//! One error type for the whole crate: a kind, a byte offset and the path of the field.

use std::borrow::Cow;
use std::fmt;

/// What went wrong, as a stable word that callers and tests may match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A catalog document, a declared type or an Avro schema is not well formed.
    Schema,
    /// JSON text is not well formed, nests too deep or is not UTF-8.
    Json,
    /// An object names one member twice.
    DuplicateMember,
    /// An object has a member that nothing here knows.
    UnknownMember,
    /// No feature group of that name.
    UnknownGroup,
    /// No field of that name in the group.
    UnknownField,
    /// A value is not of the field's type.
    WrongType,
    /// A number does not fit the field's type.
    OutOfRange,
    /// Null for a field that is not nullable.
    NullNotAllowed,
    /// A key field is missing, empty, too long or not a key field at all.
    Key,
    /// A method that the group's feature type does not take, or no known method.
    Method,
    /// No `_last_updated_at_ms`, or one that is no integer.
    NoEventTime,
    /// An UPDATE or APPEND that names no value field.
    NoValues,
    /// The event time lies too far ahead.
    FutureEventTime,
    /// A named limit of `format` is exceeded.
    TooLarge,
    /// Bytes end early, go on too long or are no layout of ours.
    Corrupt,
    /// The checksum does not match.
    Checksum,
    /// A schema fingerprint that the catalog does not know.
    UnknownSchema,
    /// A read plan cannot be made for this request.
    Request,
}

impl Kind {
    /// The stable upper-case word of this kind.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Schema => "SCHEMA",
            Self::Json => "MALFORMED_JSON",
            Self::DuplicateMember => "DUPLICATE_MEMBER",
            Self::UnknownMember => "UNKNOWN_MEMBER",
            Self::UnknownGroup => "UNKNOWN_GROUP",
            Self::UnknownField => "UNKNOWN_FIELD",
            Self::WrongType => "WRONG_TYPE",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::NullNotAllowed => "NULL_NOT_ALLOWED",
            Self::Key => "BAD_KEY",
            Self::Method => "BAD_METHOD",
            Self::NoEventTime => "NO_EVENT_TIME",
            Self::NoValues => "NO_VALUES",
            Self::FutureEventTime => "FUTURE_EVENT_TIME",
            Self::TooLarge => "TOO_LARGE",
            Self::Corrupt => "CORRUPT",
            Self::Checksum => "CHECKSUM",
            Self::UnknownSchema => "UNKNOWN_SCHEMA",
            Self::Request => "BAD_REQUEST",
        }
    }
}

/// An error with its place. Rendered late: making one costs no formatting unless it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// The sentence for a person, without place.
    pub message: Cow<'static, str>,
    /// Byte offset in the input at which reading stopped.
    pub offset: Option<usize>,
    /// Field path, innermost first, so that unwinding pushes instead of shifting.
    reversed_path: Vec<String>,
}

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a place.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), offset: None, reversed_path: Vec::new() }
    }

    /// The same error at a byte offset; an offset already there stands.
    #[must_use]
    pub fn at(mut self, offset: usize) -> Self {
        self.offset.get_or_insert(offset);
        self
    }

    /// The same error, one step further out.
    #[must_use]
    pub fn under(mut self, step: &str) -> Self {
        self.reversed_path.push(step.to_owned());
        self
    }

    /// The field path from the outside in, such as `values.level`; empty at the top.
    #[must_use]
    pub fn path(&self) -> String {
        let steps: Vec<&str> = self.reversed_path.iter().rev().map(String::as_str).collect();
        steps.join(".")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        if !self.reversed_path.is_empty() {
            write!(out, " in `{}`", self.path())?;
        }
        if let Some(offset) = self.offset {
            write!(out, " at byte {offset}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
