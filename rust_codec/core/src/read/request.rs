//! The body of a read, checked member by member: its shape, its names and where its keys stand.
//!
//! Names are resolved by [`super::plan`]; key columns are only found here and read when their
//! types are known.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Limits;
use super::problem::{Code, Problem, echo, quoted};
use crate::json::{Reader, Token};
use crate::nearest::nearest;

/// Longest deadline that a request may ask for.
pub const DEADLINE_MAX_MS: i64 = 60_000;

/// Result of everything that may end in a problem.
pub type Result<T> = std::result::Result<T, Problem>;

/// What a request asks for beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "these are the options of the wire, one to one")]
pub struct Options {
    /// UNAVAILABLE and CORRUPT become a 503.
    pub strict: bool,
    /// One event time a row is added.
    pub event_times: bool,
    /// One array a field instead of one a row. JSON only.
    pub columns: bool,
    /// Null instead of a default for what was never written. JSON only.
    pub missing_null: bool,
    /// Long as a JSON string. JSON only.
    pub int64_as_text: bool,
}

/// A name with the byte at which it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name<'a> {
    /// The text without quotes.
    pub text: Cow<'a, str>,
    /// Of its quote.
    pub offset: usize,
}

/// One key column, not read yet.
#[derive(Debug, Clone)]
pub struct KeyColumn<'a> {
    /// Name of the key field or, for a service, of the request key.
    pub name: Name<'a>,
    /// Stands before the list.
    pub values: Reader<'a>,
    /// Bytes of the list in the body.
    pub start: usize,
    /// The byte after the list.
    pub end: usize,
}

/// The `keys` object.
#[derive(Debug, Clone, Default)]
pub struct KeyColumns<'a> {
    /// In the order of the body.
    pub columns: Vec<KeyColumn<'a>>,
    /// At which byte the object starts.
    pub offset: usize,
}

/// One read of the `reads` list.
#[derive(Debug, Clone)]
pub struct ReadRequest<'a> {
    /// The group.
    pub group: Name<'a>,
    /// None is all.
    pub fields: Option<Vec<Name<'a>>>,
    /// Its key columns.
    pub keys: KeyColumns<'a>,
    /// Most events and where that is said.
    pub limit: Option<(i64, usize)>,
}

/// What is read.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// Reads that stand in the request.
    Reads(Vec<ReadRequest<'a>>),
    /// Reads that a feature service declares.
    Service(Name<'a>, KeyColumns<'a>),
}

/// A checked request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What is read.
    pub target: Target<'a>,
    /// How it is answered.
    pub options: Options,
    /// The deadline and the bytes where it stands.
    pub deadline: Option<Deadline>,
}

/// A deadline and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// 1 to [`DEADLINE_MAX_MS`].
    pub milliseconds: i64,
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
}

const MEMBERS: [&str; 9] = [
    "reads",
    "service",
    "keys",
    "deadline_ms",
    "strict",
    "event_times",
    "layout",
    "missing",
    "int64_as_text",
];
const READ_MEMBERS: [&str; 4] = ["feature_group", "fields", "keys", "limit"];

#[derive(Default)]
struct Draft<'a> {
    reads: Option<Vec<ReadRequest<'a>>>,
    service: Option<Name<'a>>,
    keys: Option<KeyColumns<'a>>,
    options: Options,
    deadline: Option<Deadline>,
}

impl<'a> Request<'a> {
    /// Checks a body.
    pub fn parse(body: &'a [u8], limits: &Limits) -> Result<Self> {
        let mut reader = Reader::new(body)?;
        if reader.peek()? != Token::Object {
            let token = reader.peek()?.name();
            let detail =
                format!("the body must be an object with `reads` or `service`, got {token}");
            return Err(Problem::new(Code::WrongType, detail).at(reader.offset()));
        }
        let mut draft = Draft::default();
        let mut seen = Members::new(&MEMBERS, "a read request");
        reader.begin_object()?;
        while let Some(name) = member(&mut reader)? {
            let known = seen.mark(&name)?;
            draft.take(&mut reader, known, limits).map_err(|problem| problem.under(known))?;
        }
        reader.finish()?;
        draft.finish()
    }
}

impl<'a> Draft<'a> {
    fn take(&mut self, reader: &mut Reader<'a>, member: &str, limits: &Limits) -> Result<()> {
        match member {
            "reads" => self.reads = Some(reads(reader, limits)?),
            "service" => self.service = Some(name(reader)?),
            "keys" => self.keys = Some(key_columns(reader)?),
            "deadline_ms" => self.deadline = Some(deadline(reader)?),
            "strict" => self.options.strict = reader.boolean()?,
            "event_times" => self.options.event_times = reader.boolean()?,
            "layout" => self.options.columns = word(reader, ["rows", "columns"])?,
            "missing" => self.options.missing_null = word(reader, ["default", "null"])?,
            _ => self.options.int64_as_text = reader.boolean()?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Request<'a>> {
        let missing = |detail: &str| Err(Problem::new(Code::MissingMember, detail.to_owned()));
        let target = match (self.reads, self.service, self.keys) {
            (Some(_), Some(_), _) => {
                return missing("give either `reads` or `service` with `keys`, not both");
            }
            (Some(_), None, Some(keys)) => {
                let detail = "`keys` stands inside each read, not beside `reads`";
                return Err(Problem::new(Code::UnknownMember, detail)
                    .at(keys.offset)
                    .under("keys"));
            }
            (None, None, _) => return missing("`reads`, or `service` with `keys`, must be given"),
            (None, Some(_), None) => return missing("`service` needs `keys` beside it"),
            (Some(reads), None, None) => Target::Reads(reads),
            (None, Some(service), Some(keys)) => Target::Service(service, keys),
        };
        Ok(Request { target, options: self.options, deadline: self.deadline })
    }
}

/// The known members of one object and which of them were seen.
struct Members {
    known: &'static [&'static str],
    what: &'static str,
    seen: u32,
}

impl Members {
    const fn new(known: &'static [&'static str], what: &'static str) -> Self {
        Self { known, what, seen: 0 }
    }

    fn mark(&mut self, name: &Name<'_>) -> Result<&'static str> {
        let position = self.known.iter().position(|known| *known == name.text);
        let Some((position, known)) = position.and_then(|at| Some((at, *self.known.get(at)?)))
        else {
            let detail = format!(
                "{} has no member `{}`; it has {}",
                self.what,
                echo(&name.text),
                listed(self.known)
            );
            return Err(Problem::new(Code::UnknownMember, detail)
                .at(name.offset)
                .under(&name.text)
                .nearest(nearest(&name.text, self.known.iter().copied())));
        };
        let bit = 1_u32.wrapping_shl(u32::try_from(position).unwrap_or_default());
        if self.seen & bit != 0 {
            return Err(duplicate(name));
        }
        self.seen |= bit;
        Ok(known)
    }
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

pub(super) fn duplicate(name: &Name<'_>) -> Problem {
    let detail = format!("member `{}` stands twice", echo(&name.text));
    Problem::new(Code::DuplicateMember, detail).at(name.offset).under(&name.text)
}

/// The next member's name and where its quote is.
pub(super) fn member<'a>(reader: &mut Reader<'a>) -> Result<Option<Name<'a>>> {
    let start = reader.offset();
    let Some(text) = reader.next_member()? else { return Ok(None) };
    let quote = reader.text_since(start).find('"').unwrap_or_default();
    Ok(Some(Name { text, offset: start.saturating_add(quote) }))
}

pub(super) fn name<'a>(reader: &mut Reader<'a>) -> Result<Name<'a>> {
    reader.peek()?;
    let offset = reader.offset();
    Ok(Name { text: reader.string()?, offset })
}

/// One of two words: false for the first, true for the second.
fn word(reader: &mut Reader<'_>, words: [&str; 2]) -> Result<bool> {
    let given = name(reader)?;
    words.iter().position(|word| *word == given.text).map(|position| position == 1).ok_or_else(
        || {
            let [first, second] = words;
            let given_text = quoted(&echo(&given.text));
            let detail = format!("`{first}` or `{second}` was expected, got {given_text}");
            Problem::new(Code::BadOption, detail)
                .at(given.offset)
                .nearest(nearest(&given.text, words.into_iter()))
        },
    )
}

fn deadline(reader: &mut Reader<'_>) -> Result<Deadline> {
    reader.peek()?;
    let start = reader.offset();
    let milliseconds = reader.integer()?;
    if !(1..=DEADLINE_MAX_MS).contains(&milliseconds) {
        let detail =
            format!("1 to {DEADLINE_MAX_MS} milliseconds were expected, got {milliseconds}");
        return Err(Problem::new(Code::OutOfRange, detail).at(start));
    }
    Ok(Deadline { milliseconds, start, end: reader.offset() })
}

fn reads<'a>(reader: &mut Reader<'a>, limits: &Limits) -> Result<Vec<ReadRequest<'a>>> {
    reader.peek()?;
    let start = reader.offset();
    reader.begin_array()?;
    let mut reads = Vec::new();
    while reader.next_item()? {
        if reads.len() == limits.reads_max {
            let detail = format!("a request has at most {} reads", limits.reads_max);
            return Err(Problem::new(Code::TooManyReads, detail).at(reader.offset()));
        }
        reads.push(read(reader).map_err(|problem| problem.item(reads.len()))?);
    }
    if reads.is_empty() {
        let detail = "at least one read was expected, got an empty list";
        return Err(Problem::new(Code::MissingMember, detail).at(start));
    }
    Ok(reads)
}

fn read<'a>(reader: &mut Reader<'a>) -> Result<ReadRequest<'a>> {
    reader.peek()?;
    let start = reader.offset();
    let mut seen = Members::new(&READ_MEMBERS, "a read");
    let (mut group, mut fields, mut keys, mut limit) = (None, None, None, None);
    reader.begin_object()?;
    while let Some(member) = member(reader)? {
        let known = seen.mark(&member)?;
        let mut take = || -> Result<()> {
            match known {
                "feature_group" => group = Some(name(reader)?),
                "fields" => fields = field_names(reader)?,
                "keys" => keys = Some(key_columns(reader)?),
                _ => {
                    reader.peek()?;
                    let offset = reader.offset();
                    limit = Some((reader.integer()?, offset));
                }
            }
            Ok(())
        };
        take().map_err(|problem| problem.under(known))?;
    }
    let missing =
        |name: &str| Problem::new(Code::MissingMember, format!("a read needs `{name}`")).at(start);
    let group = group.ok_or_else(|| missing("feature_group"))?;
    let keys = keys.ok_or_else(|| missing("keys"))?;
    Ok(ReadRequest { group, fields, keys, limit })
}

/// A list of names, or `"*"` for all, which is None.
fn field_names<'a>(reader: &mut Reader<'a>) -> Result<Option<Vec<Name<'a>>>> {
    let token = reader.peek()?;
    let start = reader.offset();
    if token == Token::String {
        let given = reader.string()?;
        if given == "*" {
            return Ok(None);
        }
        let given = quoted(&echo(&given));
        let detail = format!("a list of fields or `\"*\"` was expected, got {given}");
        return Err(Problem::new(Code::WrongType, detail).at(start));
    }
    reader.begin_array()?;
    let mut fields = Vec::new();
    while reader.next_item()? {
        fields.push(name(reader).map_err(|problem| problem.item(fields.len()))?);
    }
    if fields.is_empty() {
        let detail = "at least one field was expected; leave `fields` out for all of them";
        return Err(Problem::new(Code::MissingMember, detail).at(start));
    }
    Ok(Some(fields))
}

pub(super) fn key_columns<'a>(reader: &mut Reader<'a>) -> Result<KeyColumns<'a>> {
    reader.peek()?;
    let offset = reader.offset();
    reader.begin_object()?;
    let mut columns = Vec::new();
    let mut seen = HashSet::new();
    while let Some(name) = member(reader)? {
        if !seen.insert(name.text.clone()) {
            return Err(duplicate(&name));
        }
        let token = reader.peek()?;
        let start = reader.offset();
        if token != Token::Array {
            let detail = format!("a list of keys was expected, got {}", token.name());
            return Err(Problem::new(Code::WrongType, detail).at(start).under(&name.text));
        }
        let values = reader.clone();
        reader.skip().map_err(|error| Problem::from(error).under(&name.text))?;
        columns.push(KeyColumn { name, values, start, end: reader.offset() });
    }
    Ok(KeyColumns { columns, offset })
}
