//! The Avro answer: stored record bodies passed through unchanged (semantics 13).

use super::answer::{Writer, freshness};
use super::plan::{Plan, PlannedRead};
use super::row::{Event, Row};
use super::statuses::{Entry, Status, Statuses};
use crate::cursor::write_varint;
use crate::status::{FieldSet, RowStatus};
use crate::transcode::is_written;

/// The Avro schema of the answer. A record's `schema` is a position in the result's `schemas`, which
/// holds fingerprints as sixteen hexadecimal digits: `GET /v1/schemas/{fingerprint}` gives the Avro
/// schema by which `body` is decoded. A History row is an array of records, newest first; a row that
/// is MISSING, UNAVAILABLE or CORRUPT is null. An entry of `statuses` without `fields` is for the
/// whole row.
pub const SCHEMA: &str = concat!(
    r#"{"type":"record","name":"ReadResponse","namespace":"headrace.read","fields":["#,
    r#"{"name":"generation","type":"long"},"#,
    r#"{"name":"results","type":{"type":"array","items":"#,
    r#"{"type":"record","name":"Result","fields":["#,
    r#"{"name":"feature_group","type":"string"},"#,
    r#"{"name":"as","type":["null","string"]},"#,
    r#"{"name":"rows","type":{"type":"array","items":["null","#,
    r#"{"type":"record","name":"Record","fields":["#,
    r#"{"name":"event_time_ms","type":"long"},"#,
    r#"{"name":"schema","type":"int"},"#,
    r#"{"name":"body","type":"bytes"}]},"#,
    r#"{"type":"array","items":"Record"}]}},"#,
    r#"{"name":"schemas","type":{"type":"array","items":"string"}},"#,
    r#"{"name":"statuses","type":{"type":"array","items":"#,
    r#"{"type":"record","name":"RowStatus","fields":["#,
    r#"{"name":"row","type":"int"},"#,
    r#"{"name":"status","type":{"type":"enum","name":"Status","symbols":"#,
    r#"["OK","DEFAULTED","STALE","NOT_FINITE","MISSING","UNAVAILABLE","CORRUPT"]}},"#,
    r#"{"name":"fields","type":{"type":"array","items":"string"}}]}}}]}}}]}"#,
);

/// Branches of a row's union.
const NULL: i64 = 0;
const RECORD: i64 = 1;
const EVENTS: i64 = 2;

/// Buffers of the writer, kept between requests.
#[derive(Debug, Default)]
pub struct Room {
    statuses: Statuses,
    fields: RowStatus,
    /// Positions in the group's schemas, in the order of the result's `schemas`.
    schemas: Vec<usize>,
}

/// The Avro writer.
#[derive(Debug)]
pub struct Envelope<'a> {
    out: &'a mut Vec<u8>,
    room: &'a mut Room,
    now_ms: i64,
}

impl<'a> Envelope<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>, room: &'a mut Room, now_ms: i64) -> Self {
        Self { out, room, now_ms }
    }

    fn push_record(&mut self, event: &Event<'_>) {
        let known = self.room.schemas.iter().position(|schema| *schema == event.schema);
        let index = known.unwrap_or_else(|| {
            self.room.schemas.push(event.schema);
            self.room.schemas.len().saturating_sub(1)
        });
        write_varint(self.out, event.event_time_ms);
        push_length(self.out, index);
        push_bytes(self.out, event.body);
    }

    fn push_statuses(&mut self, read: &PlannedRead) {
        let entries = self.room.statuses.entries();
        push_block(self.out, entries.len());
        for Entry { row, status, fields } in entries {
            push_length(self.out, *row);
            push_length(self.out, status.number());
            let fields = fields.as_ref().map(FieldSet::positions).into_iter().flatten();
            let current = &read.group.current().fields;
            let names = fields.filter_map(|position| Some(current.get(position)?.name.as_str()));
            push_texts(self.out, &names.collect::<Vec<_>>());
        }
        push_end(self.out);
    }
}

impl Writer for Envelope<'_> {
    fn begin(&mut self, plan: &Plan) {
        write_varint(self.out, i64::try_from(plan.generation).unwrap_or(i64::MAX));
        push_block(self.out, plan.reads.len());
    }

    fn begin_read(&mut self, read: &PlannedRead, rows: usize) {
        self.room.statuses.clear();
        self.room.schemas.clear();
        push_bytes(self.out, read.group.name.as_bytes());
        match &read.alias {
            None => write_varint(self.out, 0),
            Some(alias) => {
                write_varint(self.out, 1);
                push_bytes(self.out, alias.as_bytes());
            }
        }
        push_block(self.out, rows);
    }

    #[inline]
    fn row(&mut self, read: &PlannedRead, number: usize, row: &Row<'_>) -> Status {
        self.room.fields.clear();
        let whole = match row {
            Row::Record(record) => {
                write_varint(self.out, RECORD);
                let (event_time_ms, schema) = (record.newest_event_time_ms, record.schema);
                self.push_record(&Event { event_time_ms, schema, body: record.body });
                mark_unwritten(read, schema, record.written, &mut self.room.fields);
                freshness(read, event_time_ms, self.now_ms)
            }
            Row::Events(events) => {
                write_varint(self.out, EVENTS);
                push_block(self.out, events.len());
                for event in *events {
                    self.push_record(event);
                    mark_unwritten(read, event.schema, None, &mut self.room.fields);
                }
                push_end(self.out);
                let newest = events.first().map_or(i64::MIN, |event| event.event_time_ms);
                freshness(read, newest, self.now_ms)
            }
            Row::Missing | Row::Unavailable | Row::Corrupt => {
                write_varint(self.out, NULL);
                match row {
                    Row::Missing => Status::Missing,
                    Row::Unavailable => Status::Unavailable,
                    _ => Status::Corrupt,
                }
            }
        };
        self.room.statuses.note(number, whole, &self.room.fields, read.width())
    }

    fn end_read(&mut self, read: &PlannedRead) {
        push_end(self.out);
        let schemas = self.room.schemas.iter();
        let found = schemas.filter_map(|position| read.group.schemas.get(*position));
        let texts = found.map(|schema| format!("{:016x}", schema.fingerprint));
        push_texts(self.out, &texts.collect::<Vec<_>>());
        self.push_statuses(read);
    }

    fn end(&mut self) {
        push_end(self.out);
    }
}

/// Marks the fields that were never written: those the writer's schema lacks and those whose bit
/// is 0.
fn mark_unwritten(
    read: &PlannedRead,
    schema: usize,
    written: Option<&[u8]>,
    status: &mut RowStatus,
) {
    if let Some(lacking) = read.lacking(schema) {
        lacking.positions().for_each(|position| status.defaulted.insert(position));
    }
    let Some(written) = written else { return };
    let Some(writer) = read.group.schemas.get(schema) else { return };
    for (position, field) in writer.fields.iter().enumerate() {
        if is_written(written, position) {
            continue;
        }
        if let Some(position) = read.group.current().position(field.id) {
            status.defaulted.insert(position);
        }
    }
}

/// Opens an array of so many items; one without any has no block.
fn push_block(out: &mut Vec<u8>, items: usize) {
    if items > 0 {
        push_length(out, items);
    }
}

fn push_end(out: &mut Vec<u8>) {
    out.push(0);
}

fn push_texts(out: &mut Vec<u8>, texts: &[impl AsRef<str>]) {
    push_block(out, texts.len());
    for text in texts {
        push_bytes(out, text.as_ref().as_bytes());
    }
    push_end(out);
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    write_varint(out, i64::try_from(length).unwrap_or(i64::MAX));
}
