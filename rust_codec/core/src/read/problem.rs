//! What a caller is told when a request cannot be answered: RFC 9457 `application/problem+json`.

use std::fmt::Write as _;

use crate::error::{Error, Kind};

/// Longest name of a caller that is repeated back, in characters.
const ECHO_CHARACTERS_MAX: usize = 80;

/// Seconds a caller is told to wait after a 503.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// The codes as one table: variant, HTTP status, upper-case word and when it is answered.
macro_rules! codes {
    ($($variant:ident = $status:literal $word:literal: $meaning:literal,)*) => {
        /// The stable word of a problem; each has one HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The upper-case word that stands in `code`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// When it is answered, as a sentence of the documents.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    MalformedJson = 400 "MALFORMED_JSON": "Not JSON by RFC 8259, not UTF-8, or nested too deep.",
    DuplicateMember = 400 "DUPLICATE_MEMBER": "A member stands twice in one object.",
    UnknownMember = 400 "UNKNOWN_MEMBER": "A member that this request does not have.",
    MissingMember = 400 "MISSING_MEMBER": "A member that must be there is not.",
    WrongType = 400 "WRONG_TYPE": "Another type of JSON than expected, or than the key field has.",
    OutOfRange = 400 "OUT_OF_RANGE": "A number that does not fit.",
    NullNotAllowed = 400 "NULL_NOT_ALLOWED": "A null key.",
    BadOption = 400 "BAD_OPTION": "A value that is none of the words allowed.",
    UnknownGroup = 404 "UNKNOWN_GROUP": "No such feature group.",
    UnknownService = 404 "UNKNOWN_SERVICE": "No such feature service.",
    UnknownField = 400 "UNKNOWN_FIELD": "No such value field in the group.",
    DuplicateField = 400 "DUPLICATE_FIELD": "A field named twice.",
    MissingKey = 400 "MISSING_KEY": "A key column that is needed is not there.",
    UnknownKey = 400 "UNKNOWN_KEY": "A key column that no read uses.",
    RaggedKeys = 400 "RAGGED_KEYS": "Key columns of different lengths.",
    BadKey = 400 "BAD_KEY": "An empty Text key, a key that is too long or no key at all.",
    TooManyKeys = 400 "TOO_MANY_KEYS": "More keys than one read may have.",
    TooManyReads = 400 "TOO_MANY_READS": "More reads than one request may have.",
    TooManyRows = 400 "TOO_MANY_ROWS": "More rows than one request may have.",
    BadLimit = 400 "BAD_LIMIT": "A limit on an Object, or one outside 1 to `max_events`.",
    AvroWholeRecords = 400 "AVRO_WHOLE_RECORDS": "A narrower field list, asked for as Avro.",
    ArrowOneTable = 400 "ARROW_ONE_TABLE": "Rows that do not make one table, asked for as Arrow.",
    AnswerTooLarge = 400 "ANSWER_TOO_LARGE": "An answer that would be too long.",
    NoCatalog = 503 "NO_CATALOG": "No catalog was loaded yet.",
    Unavailable = 503 "UNAVAILABLE": "No row could be served.",
    StrictPartial = 503 "STRICT_PARTIAL": "`strict` was asked for and a row could not be served.",
}

impl Code {
    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::DuplicateMember => Self::DuplicateMember,
            Kind::UnknownMember => Self::UnknownMember,
            Kind::WrongType => Self::WrongType,
            Kind::OutOfRange => Self::OutOfRange,
            Kind::NullNotAllowed => Self::NullNotAllowed,
            Kind::Key | Kind::TooLarge => Self::BadKey,
            _ => Self::MalformedJson,
        }
    }
}

/// One occurrence of a problem, with its place in the request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    code: Code,
    detail: String,
    path: String,
    offset: Option<usize>,
    nearest: Option<String>,
}

impl Problem {
    /// A problem with one sentence of what was wrong, expected and got.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Parts { code, detail, path: String::new(), offset: None, nearest: None }))
    }

    /// The same problem at a byte of the body; an offset already there stands.
    #[must_use]
    pub fn at(mut self, offset: usize) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// The same problem, one member further out.
    #[must_use]
    pub fn under(mut self, member: &str) -> Self {
        let inner = std::mem::take(&mut self.0.path);
        self.0.path = match inner.chars().next() {
            None => echo(member),
            Some('[') => format!("{}{inner}", echo(member)),
            Some(_) => format!("{}.{inner}", echo(member)),
        };
        self
    }

    /// The same problem inside the item of a list.
    #[must_use]
    pub fn item(self, position: usize) -> Self {
        self.under(&format!("[{position}]"))
    }

    /// The same problem with the valid name that is closest to the one given.
    #[must_use]
    pub fn nearest(mut self, name: Option<&str>) -> Self {
        self.0.nearest = name.map(str::to_owned);
        self
    }

    /// What kind of problem it is.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Where in the body, from the outside in, such as `reads[0].keys.user_id[3]`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The valid name that is closest to the one given.
    #[must_use]
    pub fn nearest_name(&self) -> Option<&str> {
        self.0.nearest.as_deref()
    }

    /// At which byte of the body.
    #[must_use]
    pub const fn offset(&self) -> Option<usize> {
        self.0.offset
    }

    /// Appends the `application/problem+json` body.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(256);
        let code = self.0.code;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"type":"urn:headrace:problem:{}","title":"{}","status":{},"code":"{}","detail":{}"#,
            code.word().to_ascii_lowercase().replace('_', "-"),
            title_of(code.word()),
            code.status(),
            code.word(),
            quoted(&self.0.detail),
        );
        if !self.0.path.is_empty() {
            let _ = write!(text, r#","path":{}"#, quoted(&self.0.path));
        }
        if let Some(offset) = self.0.offset {
            let _ = write!(text, r#","offset":{offset}"#);
        }
        if let Some(nearest) = &self.0.nearest {
            let _ = write!(text, r#","nearest":{}"#, quoted(nearest));
        }
        text.push('}');
        out.extend_from_slice(text.as_bytes());
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::new(Code::of(error.kind), error.message.clone());
        let problem = error.offset.into_iter().fold(problem, Self::at);
        let path = error.path();
        if path.is_empty() { problem } else { problem.under(&path) }
    }
}

/// A code in words: what RFC 9457 calls the title of a problem's type.
fn title_of(word: &str) -> String {
    let mut title = word.to_ascii_lowercase().replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// A name of the caller as it may be repeated: cut where it is too long to read.
#[must_use]
pub fn echo(name: &str) -> String {
    match name.char_indices().nth(ECHO_CHARACTERS_MAX) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
    }
}

/// JSON text of a string.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_of_rfc_9457_and_its_place() {
        let problem = Problem::new(Code::UnknownField, "no field `gendre`")
            .at(57)
            .item(1)
            .under("fields")
            .item(0)
            .under("reads")
            .nearest(Some("gender"));
        let mut out = Vec::new();
        problem.write_json(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["type"], "urn:headrace:problem:unknown-field");
        assert_eq!(value["title"], "Unknown field");
        assert_eq!(value["status"], 400);
        assert_eq!(value["code"], "UNKNOWN_FIELD");
        assert_eq!(value["detail"], "no field `gendre`");
        assert_eq!(value["path"], "reads[0].fields[1]");
        assert_eq!(value["offset"], 57);
        assert_eq!(value["nearest"], "gender");
    }

    #[test]
    fn what_a_caller_sent_is_escaped_and_cut() {
        let long = "\u{1}\"é".repeat(1000);
        let mut out = Vec::new();
        Problem::new(Code::UnknownMember, echo(&long)).under(&long).write_json(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["detail"].as_str().unwrap().chars().count(), ECHO_CHARACTERS_MAX + 1);
        assert!(out.len() < 2_000);
    }
}
