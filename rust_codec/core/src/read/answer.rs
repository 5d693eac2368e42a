//! The JSON answer: rows printed straight from stored bytes (product 4).

use super::plan::{Plan, PlannedRead};
use super::row::{Event, Record, Row};
use super::statuses::{Status, Statuses};
use crate::error::Result;
use crate::status::RowStatus;
use crate::text::push_integer;

/// Prints the results of one request, row by row.
pub trait Writer {
    /// Opens the answer.
    fn begin(&mut self, plan: &Plan);
    /// Opens the result of a read of so many rows.
    fn begin_read(&mut self, read: &PlannedRead, rows: usize);
    /// Prints a row and returns the worst status in it.
    fn row(&mut self, read: &PlannedRead, number: usize, row: &Row<'_>) -> Status;
    /// Closes the result.
    fn end_read(&mut self, read: &PlannedRead);
    /// Closes the answer.
    fn end(&mut self);
}

/// Buffers of a writer, kept between requests.
#[derive(Debug, Default)]
pub struct Room {
    statuses: Statuses,
    fields: RowStatus,
    event_times: Vec<u8>,
    grid: Grid,
}

/// The JSON writer, for both layouts.
#[derive(Debug)]
pub struct Json<'a> {
    out: &'a mut Vec<u8>,
    room: &'a mut Room,
    now_ms: i64,
    columns: bool,
    event_times: bool,
    results: usize,
}

impl<'a> Json<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>, room: &'a mut Room, plan: &Plan, now_ms: i64) -> Self {
        let (columns, event_times) = (plan.options.columns, plan.options.event_times);
        Self { out, room, now_ms, columns, event_times, results: 0 }
    }

    fn print(&mut self, read: &PlannedRead, row: &Row<'_>) -> Status {
        match row {
            Row::Record(record) => self.or_corrupt(read, record.newest_event_time_ms, |json| {
                json.print_record(read, record)
            }),
            Row::Events(events) => {
                let newest = events.first().map_or(i64::MIN, |event| event.event_time_ms);
                self.or_corrupt(read, newest, |json| json.print_events(read, events))
            }
            Row::Missing => {
                self.print_missing(read);
                Status::Missing
            }
            Row::Unavailable => {
                self.print_null(read);
                Status::Unavailable
            }
            Row::Corrupt => {
                self.print_null(read);
                Status::Corrupt
            }
        }
    }

    /// OK or STALE by the newest event time, or nulls and CORRUPT when the bytes do not decode.
    #[inline]
    fn or_corrupt(
        &mut self,
        read: &PlannedRead,
        newest_event_time_ms: i64,
        print: impl FnOnce(&mut Self) -> Option<Result<()>>,
    ) -> Status {
        if let Some(Ok(())) = print(self) {
            return freshness(read, newest_event_time_ms, self.now_ms);
        }
        self.print_null(read);
        Status::Corrupt
    }

    #[inline]
    fn print_record(&mut self, read: &PlannedRead, record: &Record<'_>) -> Option<Result<()>> {
        let transcoder = read.transcoder(record.schema)?;
        let fields = &mut self.room.fields;
        Some(if self.columns {
            self.room.grid.row(|values, ends| {
                transcoder.values(record.body, record.written, values, ends, fields)
            })
        } else {
            transcoder.folded_row(record.body, record.written, self.out, fields)
        })
    }

    fn print_events(&mut self, read: &PlannedRead, events: &[Event<'_>]) -> Option<Result<()>> {
        let before = self.out.len();
        let mark = self.room.grid.mark();
        if self.columns {
            self.room.grid.begin_list(events.len());
        } else {
            self.out.push(b'[');
        }
        for (position, event) in events.iter().enumerate() {
            if position > 0 && !self.columns {
                self.out.push(b',');
            }
            let printed = self.print_event(read, event);
            if !matches!(printed, Some(Ok(()))) {
                self.out.truncate(before);
                self.room.grid.back_to(mark);
                return printed;
            }
        }
        if !self.columns {
            self.out.push(b']');
        }
        Some(Ok(()))
    }

    #[inline]
    fn print_event(&mut self, read: &PlannedRead, event: &Event<'_>) -> Option<Result<()>> {
        let transcoder = read.transcoder(event.schema)?;
        let fields = &mut self.room.fields;
        Some(if self.columns {
            self.room.grid.event(event.event_time_ms, |values, ends| {
                transcoder.values(event.body, None, values, ends, fields)
            })
        } else {
            transcoder.event(event.event_time_ms, event.body, self.out, fields)
        })
    }

    fn print_missing(&mut self, read: &PlannedRead) {
        if !self.columns {
            self.out.extend_from_slice(&read.missing_row);
            return;
        }
        if read.is_history() {
            self.room.grid.begin_list(0);
            return;
        }
        let unwritten = read.transcoder(read.current());
        self.room.grid.fill(read.width(), |field| {
            unwritten.and_then(|transcoder| transcoder.unwritten_text(field)).unwrap_or(b"null")
        });
    }

    fn print_null(&mut self, read: &PlannedRead) {
        self.room.fields.clear();
        if !self.columns {
            self.out.extend_from_slice(&read.null_row);
        } else if read.is_history() {
            self.room.grid.null();
        } else {
            self.room.grid.fill(read.width(), |_| b"null");
        }
    }

    fn note_event_time(&mut self, number: usize, row: &Row<'_>) {
        if !self.event_times {
            return;
        }
        let times = &mut self.room.event_times;
        if number > 0 {
            times.push(b',');
        }
        match newest(row) {
            Some(event_time_ms) => push_integer(times, event_time_ms),
            None => times.extend_from_slice(b"null"),
        }
    }

    fn print_statuses(&mut self, read: &PlannedRead) {
        self.out.extend_from_slice(br#"],"statuses":["#);
        let mut number = itoa::Buffer::new();
        for (position, entry) in self.room.statuses.entries().iter().enumerate() {
            self.out.extend_from_slice(if position > 0 { b",{\"row\":" } else { b"{\"row\":" });
            self.out.extend_from_slice(number.format(entry.row).as_bytes());
            self.out.extend_from_slice(b",\"status\":\"");
            self.out.extend_from_slice(entry.status.word().as_bytes());
            self.out.push(b'"');
            if let Some(fields) = &entry.fields {
                self.out.extend_from_slice(b",\"fields\":");
                let names = fields.positions().filter_map(|position| read.labels.get(position));
                for (position, name) in names.enumerate() {
                    self.out.push(if position > 0 { b',' } else { b'[' });
                    self.out.extend_from_slice(name.as_bytes());
                }
                self.out.push(b']');
            }
            self.out.push(b'}');
        }
        self.out.push(b']');
    }
}

impl Writer for Json<'_> {
    fn begin(&mut self, plan: &Plan) {
        self.out.extend_from_slice(br#"{"generation":"#);
        self.out.extend_from_slice(itoa::Buffer::new().format(plan.generation).as_bytes());
        self.out.extend_from_slice(br#","results":["#);
    }

    fn begin_read(&mut self, read: &PlannedRead, _rows: usize) {
        if self.results > 0 {
            self.out.push(b',');
        }
        self.results = self.results.saturating_add(1);
        self.room.statuses.clear();
        self.room.event_times.clear();
        self.room.grid.clear();
        self.out.extend_from_slice(&read.opening);
    }

    #[inline]
    fn row(&mut self, read: &PlannedRead, number: usize, row: &Row<'_>) -> Status {
        if number > 0 && !self.columns {
            self.out.push(b',');
        }
        self.room.fields.clear();
        let whole = self.print(read, row);
        // What does not decode has no event time that could be trusted.
        let shown = if whole == Status::Corrupt { &Row::Corrupt } else { row };
        self.note_event_time(number, shown);
        let fields = &self.room.fields;
        self.room.statuses.note(number, whole, fields, read.width())
    }

    fn end_read(&mut self, read: &PlannedRead) {
        if self.columns {
            let width = read.width();
            self.room.grid.print(self.out, width, read.is_history());
        }
        self.print_statuses(read);
        if self.event_times {
            self.out.extend_from_slice(br#","event_times":["#);
            self.out.extend_from_slice(&self.room.event_times);
            self.out.push(b']');
        }
        self.out.push(b'}');
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"]}");
    }
}

/// STALE when the newest event is older than the group's `max_age` (semantics 11).
#[must_use]
pub fn freshness(read: &PlannedRead, newest_event_time_ms: i64, now_ms: i64) -> Status {
    let age_ms = now_ms.saturating_sub(newest_event_time_ms);
    match read.group.max_age_ms {
        Some(max_age_ms) if age_ms > max_age_ms => Status::Stale,
        _ => Status::Ok,
    }
}

/// The newest event time of a row.
#[must_use]
pub fn newest(row: &Row<'_>) -> Option<i64> {
    match row {
        Row::Record(record) => Some(record.newest_event_time_ms),
        Row::Events(events) => events.first().map(|event| event.event_time_ms),
        Row::Missing | Row::Unavailable | Row::Corrupt => None,
    }
}

/// Values of one result, kept row by row to be printed column by column.
#[derive(Debug, Default)]
struct Grid {
    values: Vec<u8>,
    /// Where each value ends in `values`.
    ends: Vec<usize>,
    rows: Vec<GridRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GridRow {
    /// One value a column.
    Single,
    /// A list a column, of so many events.
    List(usize),
    /// Null in every column.
    Null,
}

impl Grid {
    fn clear(&mut self) {
        self.values.clear();
        self.ends.clear();
        self.rows.clear();
    }

    const fn mark(&self) -> (usize, usize, usize) {
        (self.values.len(), self.ends.len(), self.rows.len())
    }

    fn back_to(&mut self, (values, ends, rows): (usize, usize, usize)) {
        self.values.truncate(values);
        self.ends.truncate(ends);
        self.rows.truncate(rows);
    }

    fn row(
        &mut self,
        print: impl FnOnce(&mut Vec<u8>, &mut Vec<usize>) -> Result<()>,
    ) -> Result<()> {
        print(&mut self.values, &mut self.ends)?;
        self.rows.push(GridRow::Single);
        Ok(())
    }

    fn begin_list(&mut self, events: usize) {
        self.rows.push(GridRow::List(events));
    }

    fn event(
        &mut self,
        event_time_ms: i64,
        print: impl FnOnce(&mut Vec<u8>, &mut Vec<usize>) -> Result<()>,
    ) -> Result<()> {
        push_integer(&mut self.values, event_time_ms);
        self.ends.push(self.values.len());
        print(&mut self.values, &mut self.ends)
    }

    fn null(&mut self) {
        self.rows.push(GridRow::Null);
    }

    fn fill<'t>(&mut self, width: usize, text: impl Fn(usize) -> &'t [u8]) {
        for field in 0..width {
            self.values.extend_from_slice(text(field));
            self.ends.push(self.values.len());
        }
        self.rows.push(GridRow::Single);
    }

    /// Appends `[…],[…]`, one array a column; a History's first column is the event time.
    fn print(&self, out: &mut Vec<u8>, width: usize, history: bool) {
        let width = width.saturating_add(usize::from(history));
        for column in 0..width {
            out.extend_from_slice(if column > 0 { b",[" } else { b"[" });
            let mut first = column;
            for (position, row) in self.rows.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                let events = match row {
                    GridRow::Null => {
                        out.extend_from_slice(b"null");
                        continue;
                    }
                    GridRow::Single => {
                        out.extend_from_slice(self.value(first));
                        1
                    }
                    GridRow::List(events) => {
                        self.print_list(out, first, *events, width);
                        *events
                    }
                };
                first = first.saturating_add(events.saturating_mul(width));
            }
            out.push(b']');
        }
    }

    fn print_list(&self, out: &mut Vec<u8>, first: usize, events: usize, width: usize) {
        out.push(b'[');
        for event in 0..events {
            if event > 0 {
                out.push(b',');
            }
            out.extend_from_slice(self.value(first.saturating_add(event.saturating_mul(width))));
        }
        out.push(b']');
    }

    fn value(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(index).copied().unwrap_or_default();
        self.values.get(start.unwrap_or_default()..end).unwrap_or_default()
    }
}
