//! Feast's answer: one result a column, in request order, join keys first.

use super::layout::Output;
use crate::error::Result;
use crate::read::answer::{Writer, freshness, newest};
use crate::read::columns::Column;
use crate::read::plan::{Plan, PlannedRead};
use crate::read::row::{Event, Record, Row};
use crate::read::statuses::Status;
use crate::status::RowStatus;
use crate::text::{push_integer, push_text, push_timestamp};

/// What stands where there is no event time, and on join keys.
const NO_TIME: &[u8] = br#""1970-01-01T00:00:00Z""#;

/// Feast's word for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Present,
    NullValue,
    NotFound,
    OutsideMaxAge,
    /// NaN or infinite, which JSON cannot say.
    Invalid,
}

impl Word {
    const fn quoted(self) -> &'static [u8] {
        match self {
            Self::Present => br#""PRESENT""#,
            Self::NullValue => br#""NULL_VALUE""#,
            Self::NotFound => br#""NOT_FOUND""#,
            Self::OutsideMaxAge => br#""OUTSIDE_MAX_AGE""#,
            Self::Invalid => br#""INVALID""#,
        }
    }
}

/// Texts one after another, with the end of each.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Buffers of a writer, kept between requests.
#[derive(Debug, Default)]
pub struct Room {
    /// Row by row of each read, read by read.
    values: Texts,
    words: Vec<Word>,
    /// One a row, with its quotes.
    times: Texts,
    blocks: Vec<Block>,
    fields: RowStatus,
    /// Event by event of one History row.
    events: Texts,
}

/// Where the rows of one read stand.
#[derive(Debug, Clone, Copy)]
struct Block {
    first_value: usize,
    first_row: usize,
    rows: usize,
    width: usize,
}

/// Keeps all rows, and prints them by column at the end.
#[derive(Debug)]
pub struct Feast<'a> {
    out: &'a mut Vec<u8>,
    room: &'a mut Room,
    columns: &'a [Column],
    plan: &'a Plan,
    now_ms: i64,
}

impl<'a> Feast<'a> {
    /// Appends to `out`; `columns` are the request's join keys.
    pub const fn new(
        out: &'a mut Vec<u8>,
        room: &'a mut Room,
        columns: &'a [Column],
        plan: &'a Plan,
        now_ms: i64,
    ) -> Self {
        Self { out, room, columns, plan, now_ms }
    }

    fn print_keys(&mut self) {
        for (_, column) in self.plan.columns.iter().zip(self.columns) {
            let rows = column.len();
            self.out.extend_from_slice(br#"{"values":["#);
            for row in 0..rows {
                self.separate(row);
                // A column holds one of the two, and what it holds was read as its type.
                if let Some(value) = column.integer(row) {
                    push_integer(self.out, value);
                } else if let Some(Ok(text)) = column.text(row).map(str::from_utf8) {
                    push_text(self.out, text);
                } else {
                    self.out.extend_from_slice(b"null");
                }
            }
            self.out.extend_from_slice(br#"],"statuses":["#);
            self.repeat(Word::Present.quoted(), rows);
            self.out.extend_from_slice(br#"],"event_timestamps":["#);
            self.repeat(NO_TIME, rows);
            self.out.extend_from_slice(b"]},");
        }
    }

    fn print_output(&mut self, block: Block, field: usize) {
        let value = |row: usize| {
            let before = row.saturating_mul(block.width);
            block.first_value.saturating_add(before).saturating_add(field)
        };
        self.out.extend_from_slice(br#"{"values":["#);
        for row in 0..block.rows {
            self.separate(row);
            // Feast's client fails on a null within a list: such a list is null as a whole.
            let invalid = self.word(value(row)) == Word::Invalid;
            let text = if invalid { b"null".as_slice() } else { self.room.values.get(value(row)) };
            self.out.extend_from_slice(text);
        }
        self.out.extend_from_slice(br#"],"statuses":["#);
        for row in 0..block.rows {
            self.separate(row);
            self.out.extend_from_slice(self.word(value(row)).quoted());
        }
        self.out.extend_from_slice(br#"],"event_timestamps":["#);
        for row in 0..block.rows {
            self.separate(row);
            let time = self.room.times.get(block.first_row.saturating_add(row));
            self.out.extend_from_slice(time);
        }
        self.out.extend_from_slice(b"]}");
    }

    fn word(&self, value: usize) -> Word {
        self.room.words.get(value).copied().unwrap_or(Word::Invalid)
    }

    fn separate(&mut self, position: usize) {
        if position > 0 {
            self.out.push(b',');
        }
    }

    fn repeat(&mut self, text: &[u8], times: usize) {
        for position in 0..times {
            self.separate(position);
            self.out.extend_from_slice(text);
        }
    }
}

impl Room {
    fn take(&mut self, read: &PlannedRead, row: &Row<'_>, now_ms: i64) -> Status {
        let kept = match row {
            Row::Record(record) => self.take_record(read, record),
            Row::Events(events) => self.take_events(read, events),
            Row::Missing => return self.fill(read, Word::NotFound, Status::Missing),
            Row::Unavailable => return self.fill(read, Word::NotFound, Status::Unavailable),
            Row::Corrupt => return self.fill(read, Word::NotFound, Status::Corrupt),
        };
        // A row that does not decode fails the whole answer, so its word does not matter.
        if !matches!(kept, Some(Ok(()))) {
            return self.fill(read, Word::NotFound, Status::Corrupt);
        }
        let newest_ms = newest(row).unwrap_or_default();
        if freshness(read, newest_ms, now_ms) == Status::Stale {
            let first = self.words.len();
            self.values.cut(first);
            return self.fill(read, Word::OutsideMaxAge, Status::Stale);
        }
        self.note_words(read.width())
    }

    fn take_record(&mut self, read: &PlannedRead, record: &Record<'_>) -> Option<Result<()>> {
        let transcoder = read.transcoder(record.schema)?;
        let Texts { bytes, ends } = &mut self.values;
        Some(transcoder.values(record.body, record.written, bytes, ends, &mut self.fields))
    }

    /// A History's value is the list of its events' values, newest first.
    fn take_events(&mut self, read: &PlannedRead, events: &[Event<'_>]) -> Option<Result<()>> {
        self.events.clear();
        for event in events {
            let transcoder = read.transcoder(event.schema)?;
            let Texts { bytes, ends } = &mut self.events;
            let printed = transcoder.values(event.body, None, bytes, ends, &mut self.fields);
            if printed.is_err() {
                return Some(printed);
            }
        }
        for field in 0..read.width() {
            for event in 0..events.len() {
                self.values.bytes.push(if event > 0 { b',' } else { b'[' });
                let index = event.saturating_mul(read.width()).saturating_add(field);
                self.values.bytes.extend_from_slice(self.events.get(index));
            }
            self.values.bytes.push(b']');
            self.values.end();
        }
        Some(Ok(()))
    }

    fn fill(&mut self, read: &PlannedRead, word: Word, status: Status) -> Status {
        for _ in 0..read.width() {
            self.values.bytes.extend_from_slice(b"null");
            self.values.end();
            self.words.push(word);
        }
        status
    }

    fn note_words(&mut self, width: usize) -> Status {
        let first = self.words.len();
        for field in 0..width {
            let word = if self.fields.not_finite.contains(field) {
                Word::Invalid
            } else if self.values.get(first.saturating_add(field)) == b"null" {
                Word::NullValue
            } else {
                Word::Present
            };
            self.words.push(word);
        }
        match (self.fields.not_finite.is_empty(), self.fields.defaulted.is_empty()) {
            (false, _) => Status::NotFinite,
            (true, false) => Status::Defaulted,
            (true, true) => Status::Ok,
        }
    }

    fn note_time(&mut self, event_time_ms: Option<i64>) {
        let out = &mut self.times.bytes;
        match event_time_ms {
            None => out.extend_from_slice(NO_TIME),
            Some(time_ms) => {
                push_timestamp(out, time_ms.saturating_mul(1000));
                if time_ms.rem_euclid(1000) != 0 {
                    // Milliseconds take three digits of the six.
                    out.truncate(out.len().saturating_sub(br#"000Z""#.len()));
                    out.extend_from_slice(br#"Z""#);
                }
            }
        }
        self.times.end();
    }
}

impl Writer for Feast<'_> {
    fn begin(&mut self, _plan: &Plan) {
        self.room.values.clear();
        self.room.words.clear();
        self.room.times.clear();
        self.room.blocks.clear();
        self.out.extend_from_slice(br#"{"results":["#);
    }

    fn begin_read(&mut self, read: &PlannedRead, rows: usize) {
        self.room.blocks.push(Block {
            first_value: self.room.words.len(),
            first_row: self.room.times.ends.len(),
            rows,
            width: read.width(),
        });
    }

    fn row(&mut self, read: &PlannedRead, _number: usize, row: &Row<'_>) -> Status {
        self.room.fields.clear();
        let status = self.room.take(read, row, self.now_ms);
        self.room.note_time(newest(row));
        status
    }

    fn end_read(&mut self, _read: &PlannedRead) {}

    fn end(&mut self) {
        let plan = self.plan;
        let Some(layout) = &plan.feast else { return };
        self.print_keys();
        for (position, Output { read, field }) in layout.outputs.iter().enumerate() {
            self.separate(position);
            if let Some(block) = self.room.blocks.get(*read).copied() {
                self.print_output(block, *field);
            }
        }
        self.out.extend_from_slice(&layout.tail);
    }
}

impl Texts {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Ends the text that was appended last.
    fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Forgets the texts from one on.
    fn cut(&mut self, index: usize) {
        self.ends.truncate(index);
        self.bytes.truncate(self.ends.last().copied().unwrap_or_default());
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(index).copied().unwrap_or_default();
        self.bytes.get(start.unwrap_or_default()..end).unwrap_or_default()
    }
}
