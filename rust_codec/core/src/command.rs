//! Commands → writes: a batch in, one arena of keys and cells out.
//!
//! A command is JSON text (`command/text.rs`) or a bulk Avro command (`command/bulk.rs`). Every
//! command of a batch is either accepted as a whole or rejected as a whole; nothing here fails.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Catalog, FeatureType, Group};
use crate::cell::seal;
use crate::cursor::Cursor;
use crate::digest::{Digester, digest_record};
use crate::error::{Error, Kind, Result};
use crate::format::{
    COMMAND_BYTES_MAX, DELETE_TIE, EVENT_TIME_MAX_MS, FUTURE_EVENT_TIME_MAX_MS, RECORD_BYTES_MAX,
    SINGLE_OBJECT_MARKER, WRITE_TIMESTAMP_PER_MS,
};
use crate::mutation::{Mutation, MutationKind};
use crate::nearest::unknown;
use crate::schema::RecordSchema;

mod bulk;
mod text;

pub use bulk::{BulkCommand, write_bulk};
use text::Fields;

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Sets fields of an Object.
    Update,
    /// Adds an event to a History.
    Append,
    /// Removes what is not newer than its event time.
    Delete,
}

impl Method {
    /// All methods, in the order of their Avro symbols.
    pub const ALL: [Self; 3] = [Self::Update, Self::Append, Self::Delete];

    /// The method of that name; when there is none, the error names the nearest one.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| {
            let names = Self::ALL.into_iter().map(Self::name);
            Error::new(Kind::Method, unknown("method", name, names))
        })
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Update => "UPDATE",
            Self::Append => "APPEND",
            Self::Delete => "DELETE",
        }
    }
}

/// Why one command cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Position of the command in the batch.
    pub index: usize,
    /// What was wrong, where.
    pub error: Error,
}

/// One accepted command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordinate<'a> {
    /// Position of the command in the batch.
    pub index: usize,
    /// What it does.
    pub method: Method,
    /// Key bytes, group id included.
    pub key: &'a [u8],
    /// Its event time.
    pub event_time_ms: i64,
}

/// A batch of commands as writes. Keys and cells lie in one arena.
#[derive(Debug, Default)]
pub struct CommandBatch {
    arena: Vec<u8>,
    writes: Vec<Write>,
    commands: Vec<Command>,
    rejections: Vec<Rejection>,
    expired: usize,
}

#[derive(Debug)]
struct Write {
    /// Position in `CommandBatch::commands`.
    command: usize,
    kind: MutationKind,
    stamp: Stamp,
    cell: Range<usize>,
}

#[derive(Debug)]
struct Command {
    index: usize,
    method: Method,
    key: Range<usize>,
    event_time_ms: i64,
}

impl CommandBatch {
    /// The writes, in command order; the patches of one command ascend by field id.
    pub fn mutations(&self) -> impl Iterator<Item = Mutation<'_>> {
        self.writes.iter().filter_map(|write| {
            let command = self.commands.get(write.command)?;
            Some(Mutation {
                index: command.index,
                kind: write.kind,
                key: self.arena.get(command.key.clone())?,
                write_timestamp: write.stamp.write_timestamp,
                digest: write.stamp.digest,
                expires_at_ms: write.stamp.expires_at_ms,
                cell: self.arena.get(write.cell.clone())?,
            })
        })
    }

    /// Count of [`Self::mutations`].
    #[must_use]
    pub const fn mutation_count(&self) -> usize {
        self.writes.len()
    }

    /// Commands that cannot be applied, in batch order.
    #[must_use]
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// Commands that became at least one write or arrived expired.
    #[must_use]
    pub const fn accepted(&self) -> usize {
        self.commands.len()
    }

    /// Commands that had expired on arrival: counted, and no write is made (semantics 3).
    #[must_use]
    pub const fn expired(&self) -> usize {
        self.expired
    }

    /// Every accepted command, expired ones included.
    pub fn coordinates(&self) -> impl Iterator<Item = Coordinate<'_>> {
        self.commands.iter().filter_map(|command| {
            Some(Coordinate {
                index: command.index,
                method: command.method,
                key: self.arena.get(command.key.clone())?,
                event_time_ms: command.event_time_ms,
            })
        })
    }

    /// The newest event time of the accepted commands, for measuring how late they became readable.
    #[must_use]
    pub fn newest_event_time_ms(&self) -> Option<i64> {
        self.commands.iter().map(|command| command.event_time_ms).max()
    }

    /// Distinct keys that the batch writes, in order of their first write.
    #[must_use]
    pub fn touched_keys(&self) -> Vec<&[u8]> {
        let mut seen = HashSet::with_capacity(self.writes.len());
        self.mutations().map(|mutation| mutation.key).filter(|key| seen.insert(*key)).collect()
    }
}

/// Checks a batch of commands and encodes them to cells. `now_ms` decides what is expired and
/// what lies too far ahead.
pub fn encode_commands<'a>(
    catalog: &Catalog,
    payloads: impl Iterator<Item = &'a [u8]>,
    now_ms: i64,
) -> CommandBatch {
    let mut encoder =
        Encoder { catalog, now_ms, batch: CommandBatch::default(), scratch: Scratch::default() };
    for (index, payload) in payloads.enumerate() {
        encoder.push(index, payload);
    }
    encoder.batch
}

/// Key bytes by which a command is spread over partitions, appended to `out`.
///
/// Only the group and the keys are looked at; the rest is checked when the command is encoded.
pub fn partition_key(catalog: &Catalog, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
    check_size(payload)?;
    if payload.starts_with(&SINGLE_OBJECT_MARKER) {
        let command = BulkCommand::read(payload)?;
        command.check_key(catalog)?;
        out.extend_from_slice(command.key);
        return Ok(());
    }
    let mut fields = Fields::default();
    let group = text::read_key(catalog, payload, &mut fields)?;
    fields.write_key(group, out)
}

/// Fails when the group's type does not take the method.
pub(crate) fn check_method(group: &Group, method: Method) -> Result<()> {
    let (name, takes, refused) = match group.feature_type {
        FeatureType::Object => ("an Object", "UPDATE and DELETE", Method::Append),
        FeatureType::History => ("a History", "APPEND and DELETE", Method::Update),
    };
    if method == refused {
        let message = format!("`{}` is {name}: it takes {takes}", group.name);
        return Err(Error::new(Kind::Method, message));
    }
    Ok(())
}

/// A checked command that is not yet a write.
struct Intent<'g> {
    group: &'g Arc<Group>,
    method: Method,
    event_time_ms: i64,
}

#[derive(Default)]
struct Scratch {
    fields: Fields,
    digester: Digester,
    starts: Vec<usize>,
    body: Vec<u8>,
}

struct Encoder<'c> {
    catalog: &'c Catalog,
    now_ms: i64,
    batch: CommandBatch,
    scratch: Scratch,
}

impl Encoder<'_> {
    fn push(&mut self, index: usize, payload: &[u8]) {
        let mark = (self.batch.arena.len(), self.batch.writes.len(), self.batch.commands.len());
        let outcome = check_size(payload).and_then(|()| {
            if payload.starts_with(&SINGLE_OBJECT_MARKER) {
                self.push_bulk(index, payload)
            } else {
                self.push_text(index, payload)
            }
        });
        if let Err(error) = outcome {
            self.batch.arena.truncate(mark.0);
            self.batch.writes.truncate(mark.1);
            self.batch.commands.truncate(mark.2);
            self.batch.rejections.push(Rejection { index, error });
        }
    }

    fn push_text(&mut self, index: usize, payload: &[u8]) -> Result<()> {
        let fields = &mut self.scratch.fields;
        let intent = text::read(self.catalog, payload, fields)?;
        self.check_event_time(intent.event_time_ms).map_err(|error| {
            let offset = self.scratch.fields.event_time_offset;
            error.at(offset).under(text::EVENT_TIME_MEMBER).under("values")
        })?;
        let key_start = self.batch.arena.len();
        self.scratch.fields.write_key(intent.group, &mut self.batch.arena)?;
        self.begin(index, &intent, key_start);
        if intent.method == Method::Delete {
            self.delete(&intent);
            return Ok(());
        }
        let schema = intent.group.current();
        if self.scratch.fields.named() == 0 {
            let message = format!("{} names no value field", intent.method.name());
            return Err(Error::new(Kind::NoValues, message).under("values"));
        }
        let digest = self.digest_named(schema)?;
        let complete = self.scratch.fields.named() == schema.fields.len();
        if intent.method == Method::Update && !complete {
            self.patch(&intent, schema, digest);
            return Ok(());
        }
        self.scratch.body.clear();
        self.scratch.fields.write_body(schema, &mut self.scratch.body)?;
        self.put(&intent, schema, digest, None)
    }

    fn push_bulk(&mut self, index: usize, payload: &[u8]) -> Result<()> {
        let command = BulkCommand::read(payload)?;
        let intent = command.check(self.catalog)?;
        self.check_event_time(intent.event_time_ms)
            .map_err(|error| error.under("event_time_ms"))?;
        let key_start = self.batch.arena.len();
        self.batch.arena.extend_from_slice(command.key);
        self.begin(index, &intent, key_start);
        let Some(record) = command.record else {
            self.delete(&intent);
            return Ok(());
        };
        let (schema, body) = bulk::open_record(intent.group, record)?;
        let digester = &mut self.scratch.digester;
        let digest = digest_record(schema, body, digester, &mut self.scratch.starts)
            .map_err(|error| error.under("record"))?;
        self.put(&intent, schema, digest, Some(body))
    }

    fn check_event_time(&self, event_time_ms: i64) -> Result<()> {
        if !(0..=EVENT_TIME_MAX_MS).contains(&event_time_ms) {
            let message = "the event time is no time between 1970 and 9999 in milliseconds";
            return Err(Error::new(Kind::OutOfRange, message));
        }
        let ahead_ms = event_time_ms.saturating_sub(self.now_ms);
        if ahead_ms > FUTURE_EVENT_TIME_MAX_MS {
            let message = format!(
                "the event time lies {ahead_ms} ms ahead, at most {FUTURE_EVENT_TIME_MAX_MS} are \
                 allowed; is it in milliseconds?"
            );
            return Err(Error::new(Kind::FutureEventTime, message));
        }
        Ok(())
    }

    /// Notes the command, whose key was just appended to the arena.
    fn begin(&mut self, index: usize, intent: &Intent<'_>, key_start: usize) {
        self.batch.commands.push(Command {
            index,
            method: intent.method,
            key: key_start..self.batch.arena.len(),
            event_time_ms: intent.event_time_ms,
        });
    }

    /// The digest of the named fields.
    fn digest_named(&mut self, schema: &RecordSchema) -> Result<u64> {
        let Scratch { fields, digester, .. } = &mut self.scratch;
        digester.reset();
        for position in &schema.by_id {
            let Some(value) = fields.value(*position) else { continue };
            let Some(field) = schema.fields.get(*position) else { continue };
            digester.push(field, &mut Cursor::new(value))?;
        }
        Ok(digester.digest())
    }

    /// Writes a whole record: the given body, or the one in the scratch room.
    fn put(
        &mut self,
        intent: &Intent<'_>,
        schema: &RecordSchema,
        digest: u64,
        body: Option<&[u8]>,
    ) -> Result<()> {
        let body = body.unwrap_or(&self.scratch.body);
        if body.len() > RECORD_BYTES_MAX {
            let message = format!("the record takes more than {RECORD_BYTES_MAX} bytes");
            return Err(Error::new(Kind::TooLarge, message));
        }
        let kind = match intent.group.feature_type {
            FeatureType::Object => MutationKind::Record,
            FeatureType::History => MutationKind::Event,
        };
        if let Some(stamp) = self.batch.stamp(intent, digest, self.now_ms) {
            self.batch.write(stamp, kind, schema.fingerprint, body);
        }
        Ok(())
    }

    /// Writes one patch per named field, ascending by field id.
    fn patch(&mut self, intent: &Intent<'_>, schema: &RecordSchema, digest: u64) {
        let Some(stamp) = self.batch.stamp(intent, digest, self.now_ms) else { return };
        for position in &schema.by_id {
            let Some(body) = self.scratch.fields.value(*position) else { continue };
            let Some(field) = schema.fields.get(*position) else { continue };
            let Some(fingerprint) = schema.patch_fingerprints.get(*position) else { continue };
            self.batch.write(stamp, MutationKind::Patch(field.id), *fingerprint, body);
        }
    }

    fn delete(&mut self, intent: &Intent<'_>) {
        let kind = match intent.group.feature_type {
            FeatureType::Object => MutationKind::DeleteRow,
            FeatureType::History => MutationKind::DeleteHistory,
        };
        let write_timestamp = write_timestamp(intent.event_time_ms, DELETE_TIE);
        let stamp = Stamp { write_timestamp, digest: 0, expires_at_ms: None };
        let end = self.batch.arena.len();
        let command = self.batch.commands.len().saturating_sub(1);
        self.batch.writes.push(Write { command, kind, stamp, cell: end..end });
    }
}

/// What all writes of one command share.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    write_timestamp: i64,
    digest: u64,
    expires_at_ms: Option<i64>,
}

impl CommandBatch {
    /// The stamp of the newest command; None, and the command counted, when it arrived expired.
    fn stamp(&mut self, intent: &Intent<'_>, digest: u64, now_ms: i64) -> Option<Stamp> {
        let expires_at_ms =
            intent.group.ttl_ms.map(|ttl_ms| intent.event_time_ms.saturating_add(ttl_ms));
        if expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms) {
            self.expired = self.expired.saturating_add(1);
            return None;
        }
        let tie = i64::try_from(digest.checked_rem(DELETE_TIE.unsigned_abs()).unwrap_or_default())
            .unwrap_or_default();
        let write_timestamp = write_timestamp(intent.event_time_ms, tie);
        Some(Stamp { write_timestamp, digest, expires_at_ms })
    }

    /// Adds a write of the newest command.
    fn write(&mut self, stamp: Stamp, kind: MutationKind, fingerprint: u64, body: &[u8]) {
        let start = self.arena.len();
        seal(&mut self.arena, stamp.write_timestamp, fingerprint, body);
        let cell = start..self.arena.len();
        let command = self.commands.len().saturating_sub(1);
        self.writes.push(Write { command, kind, stamp, cell });
    }
}

/// Semantics 1. The event time was checked, so nothing saturates.
const fn write_timestamp(event_time_ms: i64, tie: i64) -> i64 {
    event_time_ms.saturating_mul(WRITE_TIMESTAMP_PER_MS).saturating_add(tie)
}

fn check_size(payload: &[u8]) -> Result<()> {
    if payload.len() <= COMMAND_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("the command takes {} bytes, at most {COMMAND_BYTES_MAX} are read", payload.len());
    Err(Error::new(Kind::TooLarge, message))
}

#[cfg(test)]
mod tests;
