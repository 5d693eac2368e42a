//! The Arrow answer: an IPC stream of one record batch, filled column by column from stored Avro
//! bodies (product 4).
//!
//! | column | type | |
//! | --- | --- | --- |
//! | each key field | Int32, Int64, Utf8 | as asked for |
//! | each field asked for | of the field | null where the row cannot be told |
//! | `_events` (of a History, in place of the fields) | list of records | newest first, `_event_time` and the fields |
//! | `_event_time` | timestamp, ms, UTC | of the row's newest event; null where there is none |
//! | `_status` | dictionary of words | the worst of the row |
//! | `_field_status` | vector of numbers, one a field | positions in the metadata's `headrace.statuses` |
//!
//! The answer is one table: reads of one key stand in every row beside reads of many, and the columns
//! of a service, or of several reads, are named `read.column`, after the read's alias or its group. The
//! schema's metadata tells which columns are whose. Every buffer starts at a multiple of 64 bytes of
//! the stream, so that it is used where it lies.

mod lane;
mod layout;
mod record;

use arrow_ipc::{FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use flatbuffers::FlatBufferBuilder;

pub use layout::Layout;

use super::answer::{Writer, freshness, newest};
use super::columns::Column;
use super::head::is_request_id;
use super::plan::{Plan, PlannedRead};
use super::problem::{Code, Problem};
use super::row::Row;
use super::statuses::Status;
use crate::schema::Scalar;
use crate::status::FieldSet;
use lane::{Batch, Lane};
use layout::ReadLayout;
use record::Columns;

/// Event time of a row, and of an event in its record.
const EVENT_TIME: &str = "_event_time";
/// A History's events.
const EVENTS: &str = "_events";
/// Worst status of a row.
const STATUS: &str = "_status";
/// Status of each field of a row.
const FIELD_STATUS: &str = "_field_status";

/// What every buffer, and every message, starts at a multiple of.
const BYTES_ALIGNED: usize = 64;
/// Longest request id (semantics 15).
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest answer; it also keeps the offsets of lists and texts within 31 bits.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The problem that stands in place of an answer that would be too long.
#[must_use]
pub fn too_large() -> Problem {
    let detail = format!(
        "the Arrow answer would be longer than {} MiB; ask for fewer keys, fields or events",
        ANSWER_BYTES_MAX >> 20
    );
    Problem::new(Code::AnswerTooLarge, detail)
}

/// Room of a record batch's message beside its nodes and buffers.
const DESCRIBED_BYTES: usize = 192;

/// Opens a message.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// Buffers of a writer, kept between requests.
#[derive(Debug, Default)]
pub struct Room {
    lanes: Vec<Lane>,
    /// Rows of each read.
    rows: Vec<usize>,
    defaulted: FieldSet,
    request_id: Vec<u8>,
    batch: Batch,
    /// The answer would be longer than [`ANSWER_BYTES_MAX`], and was not written.
    pub(super) too_large: bool,
}

impl Room {
    /// Gives back what an answer that was not written has taken; others are bounded by their bytes.
    #[cold]
    pub(super) fn forget(&mut self) {
        self.lanes = Vec::new();
    }

    /// The id that the answer repeats; one that a head would leave out is left out here too.
    pub fn name_request(&mut self, request_id: &[u8]) {
        self.request_id.clear();
        if is_request_id(request_id) {
            self.request_id.extend_from_slice(request_id);
        }
    }
}

/// Keeps all rows by column, and prints them at the end.
#[derive(Debug)]
pub struct Arrow<'a> {
    out: &'a mut Vec<u8>,
    room: &'a mut Room,
    columns: &'a [Column],
    plan: &'a Plan,
    now_ms: i64,
}

impl<'a> Arrow<'a> {
    /// Appends to `out`; `columns` are the request's keys.
    pub const fn new(
        out: &'a mut Vec<u8>,
        room: &'a mut Room,
        columns: &'a [Column],
        plan: &'a Plan,
        now_ms: i64,
    ) -> Self {
        Self { out, room, columns, plan, now_ms }
    }

    /// The layout of the read that is being written.
    fn layout(&self) -> Option<(&'a Layout, &'a ReadLayout)> {
        let layout = self.plan.arrow.as_ref()?;
        Some((layout, layout.reads.get(self.room.rows.len().checked_sub(1)?)?))
    }

    fn push_keys(&mut self, read: &PlannedRead, layout: &ReadLayout, rows: usize) {
        let lanes = self.room.lanes.get_mut(layout.lanes.clone()).unwrap_or_default();
        let keys = read.group.keys.iter().zip(&read.columns);
        for (lane, (key, position)) in lanes.iter_mut().zip(keys) {
            let Some(column) = self.columns.get(*position) else { continue };
            for row in 0..rows {
                let row = if column.len() == 1 { 0 } else { row };
                // The store keys were made of the same rows, so each has a key of its type.
                let integer = column.integer(row).unwrap_or_default();
                match key.scalar {
                    Scalar::Text => lane.push_variable(column.text(row).unwrap_or_default()),
                    // It was held to 32 bits when it was read.
                    Scalar::Integer => {
                        lane.push(i32::try_from(integer).unwrap_or_default().to_le_bytes());
                    }
                    _ => lane.push(integer.to_le_bytes()),
                }
            }
        }
    }

    fn push_row(&mut self, read: &PlannedRead, row: &Row<'_>) -> Status {
        let Some((layout, place)) = self.layout() else { return Status::Corrupt };
        let kinds = layout.kinds.get(place.lanes.clone()).unwrap_or_default();
        let lanes = self.room.lanes.get_mut(place.lanes.clone()).unwrap_or_default();
        let length = lanes.get(place.status).map_or(0, Lane::length);
        let mut columns = Columns { lanes, kinds };
        let defaulted = &mut self.room.defaulted;
        let pushed = match row {
            Row::Record(record) => {
                let (schema, body, written) = (record.schema, record.body, record.written);
                columns.push_record(place, schema, body, written, defaulted)
            }
            Row::Events(events) => columns.push_events(place, events, defaulted),
            Row::Missing => columns.push_missing(place),
            Row::Unavailable => {
                columns.push_nulls(place);
                return Status::Unavailable;
            }
            Row::Corrupt => {
                columns.push_nulls(place);
                return Status::Corrupt;
            }
        };
        if pushed.is_err() {
            columns.cut(place, length);
            columns.push_nulls(place);
            return Status::Corrupt;
        }
        newest(row).map_or(Status::Missing, |newest| freshness(read, newest, self.now_ms))
    }

    /// Appends event time and statuses of a row; gives the worst of them.
    fn push_statuses(&mut self, read: &PlannedRead, row: &Row<'_>, whole: Status) -> Status {
        let Some((layout, place)) = self.layout() else { return whole };
        let kinds = layout.kinds.get(place.lanes.clone()).unwrap_or_default();
        let lanes = self.room.lanes.get_mut(place.lanes.clone()).unwrap_or_default();
        let mut columns = Columns { lanes, kinds };
        // What does not decode has no event time that could be trusted.
        match newest(row).filter(|_| whole != Status::Corrupt) {
            Some(event_time_ms) => {
                columns.with(place.event_time, |lane| lane.push(event_time_ms.to_le_bytes()));
            }
            None => columns.push_null(place.event_time),
        }
        let some = whole == Status::Ok && !self.room.defaulted.is_empty();
        let worst = if some { Status::Defaulted } else { whole };
        columns.with(place.status, |lane| lane.push([number(worst)]));
        columns.with(place.field_status, Lane::push_parent);
        columns.with(place.field_status.saturating_add(1), |lane| {
            lane.fill(number(whole), read.width());
            if some {
                for position in self.room.defaulted.positions() {
                    lane.set_in_last(read.width(), position, number(Status::Defaulted));
                }
            }
        });
        worst
    }

    fn print(&mut self, layout: &Layout) {
        let Room { lanes, rows, batch, request_id, too_large, .. } = &mut *self.room;
        let length = rows.iter().copied().find(|rows| *rows != 1).unwrap_or(1);
        let all = || {
            let reads = layout.reads.iter().zip(&*rows);
            let lanes = reads.flat_map(|(read, rows)| {
                let times = if *rows == 1 { length } else { 1 };
                let lanes = lanes.get(read.lanes.clone()).unwrap_or_default();
                lanes.iter().map(move |lane| (lane, times))
            });
            lanes.zip(&layout.kinds)
        };
        batch.clear();
        for ((lane, times), kind) in all() {
            lane.measure(*kind, times, batch);
        }
        *too_large = batch.bytes > ANSWER_BYTES_MAX;
        if *too_large {
            self.room.forget();
            return;
        }
        layout.open(request_id, self.out);
        describe(batch, length, self.out);
        for ((lane, times), kind) in all() {
            lane.print(*kind, times, self.out);
        }
        self.out.extend_from_slice(&CONTINUATION);
        self.out.extend_from_slice(&0_u32.to_le_bytes());
    }
}

impl Writer for Arrow<'_> {
    fn begin(&mut self, plan: &Plan) {
        let lanes = plan.arrow.as_ref().map_or(0, |layout| layout.kinds.len());
        if self.room.lanes.len() < lanes {
            self.room.lanes.resize_with(lanes, Lane::default);
        }
        self.room.lanes.iter_mut().take(lanes).for_each(Lane::clear);
        self.room.rows.clear();
        self.room.too_large = false;
    }

    fn begin_read(&mut self, read: &PlannedRead, rows: usize) {
        self.room.rows.push(rows);
        if let Some((_, layout)) = self.layout() {
            self.push_keys(read, layout, rows);
        }
    }

    #[inline]
    fn row(&mut self, read: &PlannedRead, _number: usize, row: &Row<'_>) -> Status {
        self.room.defaulted.clear();
        let whole = self.push_row(read, row);
        self.push_statuses(read, row, whole)
    }

    fn end_read(&mut self, _read: &PlannedRead) {}

    fn end(&mut self) {
        if let Some(layout) = &self.plan.arrow {
            self.print(layout);
        }
    }
}

fn number(status: Status) -> u8 {
    u8::try_from(status.number()).unwrap_or(u8::MAX)
}

/// Appends the message that describes the record batch.
fn describe(batch: &Batch, rows: usize, out: &mut Vec<u8>) {
    let structs = batch.nodes.len().saturating_add(batch.buffers.len());
    let bytes = structs.saturating_mul(size_of::<FieldNode>()).saturating_add(DESCRIBED_BYTES);
    let mut message = FlatBufferBuilder::with_capacity(bytes);
    let nodes = message.create_vector(&batch.nodes);
    let buffers = message.create_vector(&batch.buffers);
    let mut header = RecordBatchBuilder::new(&mut message);
    header.add_length(i64::try_from(rows).unwrap_or(i64::MAX));
    header.add_nodes(nodes);
    header.add_buffers(buffers);
    let header = header.finish().as_union_value();
    let mut root = MessageBuilder::new(&mut message);
    root.add_version(MetadataVersion::V5);
    root.add_header_type(MessageHeader::RecordBatch);
    root.add_bodyLength(i64::try_from(batch.bytes).unwrap_or(i64::MAX));
    root.add_header(header);
    let root = root.finish();
    message.finish(root, None);
    let described = message.finished_data();
    let prefix = CONTINUATION.len().saturating_add(size_of::<u32>());
    let length = prefix.saturating_add(described.len()).next_multiple_of(BYTES_ALIGNED);
    let padding = length.saturating_sub(prefix).saturating_sub(described.len());
    out.extend_from_slice(&CONTINUATION);
    let length = u32::try_from(length.saturating_sub(prefix)).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(described);
    out.resize(out.len().saturating_add(padding), 0);
}
