//! A command as JSON text. Members come in any order; `values` before `feature_name` costs a
//! second look at them.

use std::ops::Range;
use std::sync::Arc;

use super::{Intent, Method, check_method};
use crate::catalog::{Catalog, Group};
use crate::encode::encode_json;
use crate::error::{Error, Kind, Result};
use crate::json::{Member, Reader, Seen, Token, duplicate_member};
use crate::key::{KeyWriter, write_json};
use crate::nearest::unknown;
use crate::schema::{Field, RecordSchema};

/// The member of `values` that holds the event time.
pub(super) const EVENT_TIME_MEMBER: &str = "_last_updated_at_ms";

const MEMBERS: [&str; 4] = ["feature_name", "method", "keys", "values"];

/// Encoded keys and values of one command, by position. Kept between commands.
#[derive(Debug, Default)]
pub(super) struct Fields {
    keys: Parts,
    values: Parts,
    event_time_ms: Option<i64>,
    /// Where the event time stands.
    pub(super) event_time_offset: usize,
}

/// Encoded parts of a whole, which arrive in any order.
#[derive(Debug, Default)]
struct Parts {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    seen: Seen,
    count: usize,
}

impl Parts {
    fn reset(&mut self, count: usize) {
        self.bytes.clear();
        self.spans.clear();
        self.spans.resize(count, 0..0);
        self.seen.reset(count);
        self.count = 0;
    }

    fn get(&self, position: usize) -> Option<&[u8]> {
        if !self.seen.has(position) {
            return None;
        }
        self.bytes.get(self.spans.get(position)?.clone())
    }

    /// Notes what was appended to the bytes since `start`.
    fn close(&mut self, position: usize, start: usize) {
        if let Some(span) = self.spans.get_mut(position) {
            *span = start..self.bytes.len();
        }
        self.count = self.count.saturating_add(1);
    }
}

impl Fields {
    fn reset(&mut self) {
        self.keys.reset(0);
        self.values.reset(0);
        self.event_time_ms = None;
        self.event_time_offset = 0;
    }

    /// Count of value fields that the command names.
    pub(super) const fn named(&self) -> usize {
        self.values.count
    }

    /// The Avro value of a field, None when the command does not name it.
    pub(super) fn value(&self, position: usize) -> Option<&[u8]> {
        self.values.get(position)
    }

    /// Appends the key bytes.
    pub(super) fn write_key(&self, group: &Group, out: &mut Vec<u8>) -> Result<()> {
        let mut writer = KeyWriter::new(group, out);
        for position in 0..group.keys.len() {
            let Some(part) = self.keys.get(position) else { break };
            writer.push_encoded(part)?;
        }
        writer.finish().map_err(|error| error.under("keys"))
    }

    /// Appends a whole record; a field that is not named takes its default.
    pub(super) fn write_body(&self, schema: &RecordSchema, out: &mut Vec<u8>) -> Result<()> {
        for (position, (field, default)) in schema.fields.iter().zip(&schema.defaults).enumerate() {
            let value = self.value(position).or(default.as_deref()).ok_or_else(|| {
                Error::new(Kind::Schema, "the field has no default").under(&field.name)
            })?;
            out.extend_from_slice(value);
        }
        Ok(())
    }

    fn read_keys(&mut self, group: &Group, reader: &mut Reader<'_>) -> Result<()> {
        self.keys.reset(group.keys.len());
        reader.begin_object()?;
        while let Some(name) = reader.next_member()? {
            let Some(position) = group.keys.iter().position(|field| field.name == name) else {
                return Err(unknown_key(group, &name, reader.offset()));
            };
            let Some(field) = group.keys.get(position) else { continue };
            if !self.keys.seen.mark(position) {
                return Err(duplicate_member(&name, reader.offset()).under(&name));
            }
            let start = self.keys.bytes.len();
            write_json(field, reader, &mut self.keys.bytes).map_err(|error| error.under(&name))?;
            self.keys.close(position, start);
        }
        Ok(())
    }

    fn read_values(&mut self, group: &Group, reader: &mut Reader<'_>) -> Result<()> {
        let fields = &group.current().fields;
        self.values.reset(fields.len());
        reader.begin_object()?;
        // Producers mostly name fields in schema order.
        let mut guess = 0_usize;
        loop {
            let expected = fields.get(guess);
            let expected_name = expected.map_or(EVENT_TIME_MEMBER, |field| &field.name);
            let (position, field) = match (reader.next_member_or(expected_name)?, expected) {
                (Member::Closed, _) => return Ok(()),
                (Member::Expected, Some(field)) => (guess, field),
                (Member::Expected, None) => {
                    self.read_event_time(reader)?;
                    continue;
                }
                (Member::Other(name), _) if name == EVENT_TIME_MEMBER => {
                    self.read_event_time(reader)?;
                    continue;
                }
                (Member::Other(name), _) => find_field(group, &name, reader.offset())?,
            };
            if !self.values.seen.mark(position) {
                return Err(duplicate_member(&field.name, reader.offset()).under(&field.name));
            }
            let start = self.values.bytes.len();
            encode_json(reader, field, &mut self.values.bytes)
                .map_err(|error| error.under(&field.name))?;
            self.values.close(position, start);
            guess = position.saturating_add(1);
        }
    }

    fn read_event_time(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        self.take_event_time(reader).map_err(|error| error.under(EVENT_TIME_MEMBER))
    }

    fn take_event_time(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let token = reader.peek()?;
        let offset = reader.offset();
        if self.event_time_ms.is_some() {
            return Err(duplicate_member(EVENT_TIME_MEMBER, offset));
        }
        let message = "the event time is an integer of milliseconds since 1970";
        let no_integer = || Error::new(Kind::NoEventTime, message).at(offset);
        if token != Token::Number {
            return Err(no_integer());
        }
        let value = reader.integer().map_err(|error| match error.kind {
            Kind::WrongType => no_integer(),
            _ => error,
        })?;
        self.event_time_ms = Some(value);
        self.event_time_offset = offset;
        Ok(())
    }
}

#[cold]
fn unknown_key(group: &Group, name: &str, offset: usize) -> Error {
    let names = group.keys.iter().map(|field| field.name.as_str());
    Error::new(Kind::Key, unknown("key field", name, names)).at(offset).under(name)
}

fn find_field<'g>(group: &'g Group, name: &str, offset: usize) -> Result<(usize, &'g Field)> {
    let mut fields = group.current().fields.iter().enumerate();
    fields.find(|(_, field)| field.name == name).ok_or_else(|| unknown_field(group, name, offset))
}

#[cold]
fn unknown_field(group: &Group, name: &str, offset: usize) -> Error {
    let message = if group.keys.iter().any(|field| field.name == name) {
        format!("`{name}` is a key field: it belongs in `keys`")
    } else {
        let names = group.current().fields.iter().map(|field| field.name.as_str());
        unknown("field", name, names)
    };
    Error::new(Kind::UnknownField, message).at(offset).under(name)
}

/// What was found so far of a command.
struct Members<'g, 'p> {
    group: Option<&'g Arc<Group>>,
    method: Option<Method>,
    keys: Place<'p>,
    values: Place<'p>,
}

/// Where a member stands.
enum Place<'p> {
    Absent,
    /// Before `feature_name`: to be read once the group is known.
    At(Reader<'p>),
    Read,
}

/// Reads a whole command and checks what can be checked without a clock.
pub(super) fn read<'g>(
    catalog: &'g Catalog,
    payload: &[u8],
    fields: &mut Fields,
) -> Result<Intent<'g>> {
    let (group, mut members) = read_members(catalog, payload, fields, true)?;
    let method = members.method.take().ok_or_else(|| {
        Error::new(Kind::Method, "the command has no `method`: UPDATE, APPEND or DELETE")
    })?;
    check_method(group, method).map_err(|error| error.under("method"))?;
    if let Place::At(mut reader) = members.values {
        fields.read_values(group, &mut reader).map_err(|error| error.under("values"))?;
    }
    let event_time_ms = fields.event_time_ms.ok_or_else(|| {
        Error::new(Kind::NoEventTime, format!("the command has no `values.{EVENT_TIME_MEMBER}`"))
    })?;
    if method == Method::Delete && fields.named() > 0 {
        let message = format!("a DELETE names no value but `{EVENT_TIME_MEMBER}`");
        return Err(Error::new(Kind::UnknownMember, message).under("values"));
    }
    Ok(Intent { group, method, event_time_ms })
}

/// Reads only as much as the key needs; the rest is checked as JSON, not as values.
pub(super) fn read_key<'g>(
    catalog: &'g Catalog,
    payload: &[u8],
    fields: &mut Fields,
) -> Result<&'g Arc<Group>> {
    read_members(catalog, payload, fields, false).map(|(group, _)| group)
}

fn read_members<'g, 'p>(
    catalog: &'g Catalog,
    payload: &'p [u8],
    fields: &mut Fields,
    with_values: bool,
) -> Result<(&'g Arc<Group>, Members<'g, 'p>)> {
    fields.reset();
    let mut members =
        Members { group: None, method: None, keys: Place::Absent, values: Place::Absent };
    let mut reader = Reader::new(payload)?;
    reader.begin_object()?;
    while let Some(name) = reader.next_member()? {
        members
            .read_member(catalog, &name, &mut reader, fields, with_values)
            .map_err(|error| error.under(&name))?;
    }
    reader.finish()?;
    let group = members.group.ok_or_else(|| {
        Error::new(Kind::UnknownGroup, "the command has no `feature_name`: domain::name")
    })?;
    match std::mem::replace(&mut members.keys, Place::Read) {
        Place::Absent => return Err(Error::new(Kind::Key, "the command has no `keys`")),
        Place::At(mut reader) => {
            fields.read_keys(group, &mut reader).map_err(|error| error.under("keys"))?;
        }
        Place::Read => {}
    }
    Ok((group, members))
}

impl<'g, 'p> Members<'g, 'p> {
    fn read_member(
        &mut self,
        catalog: &'g Catalog,
        name: &str,
        reader: &mut Reader<'p>,
        fields: &mut Fields,
        with_values: bool,
    ) -> Result<()> {
        reader.peek()?;
        let offset = reader.offset();
        match name {
            "feature_name" if self.group.is_none() => {
                let group = reader.string()?;
                let found = catalog.find_group(&group).map_err(|error| error.at(offset))?;
                self.group = Some(found);
            }
            "method" if self.method.is_none() => {
                self.method =
                    Some(Method::parse(&reader.string()?).map_err(|error| error.at(offset))?);
            }
            "keys" if matches!(self.keys, Place::Absent) => {
                self.keys = match self.group {
                    Some(group) => {
                        fields.read_keys(group, reader)?;
                        Place::Read
                    }
                    None => later(reader)?,
                };
            }
            "values" if matches!(self.values, Place::Absent) => {
                self.values = match self.group {
                    Some(group) if with_values => {
                        fields.read_values(group, reader)?;
                        Place::Read
                    }
                    _ => later(reader)?,
                };
            }
            name if MEMBERS.contains(&name) => return Err(duplicate_member(name, offset)),
            name => {
                let message = unknown("member", name, MEMBERS.into_iter());
                return Err(Error::new(Kind::UnknownMember, message).at(offset));
            }
        }
        Ok(())
    }
}

/// Keeps the place of a value and moves past it.
fn later<'p>(reader: &mut Reader<'p>) -> Result<Place<'p>> {
    let place = reader.clone();
    reader.skip()?;
    Ok(Place::At(place))
}
