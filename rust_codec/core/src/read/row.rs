//! From what a store holds under a key to one row of an answer.

use super::plan::PlannedRead;
use crate::cell::Cell;
use crate::error::{Error, Kind};
use crate::fold::{Folded, fold, is_expired};

/// One event of a History row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// When it became true.
    pub event_time_ms: i64,
    /// Position of its schema in the group's schemas.
    pub schema: usize,
    /// Avro body.
    pub body: &'a [u8],
}

/// One Object record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Newest event time of its live cells.
    pub newest_event_time_ms: i64,
    /// Position of its schema in the group's schemas.
    pub schema: usize,
    /// Avro body.
    pub body: &'a [u8],
    /// One bit a field of that schema; None when all were written.
    pub written: Option<&'a [u8]>,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row<'a> {
    /// An Object's record.
    Record(Record<'a>),
    /// A History's events, newest first, never empty.
    Events(&'a [Event<'a>]),
    /// Nothing live.
    Missing,
    /// The store was not reached.
    Unavailable,
    /// The stored bytes are damaged.
    Corrupt,
}

/// Why a store could not give a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowError {
    /// The store was not reached or failed.
    Unavailable,
    /// What it holds is damaged.
    Corrupt,
}

/// A stored row was written under a schema that the catalog lacks: load the newest generation once
/// and read again (semantics 20).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleCatalog;

/// What holds rows: one snapshot of a store. Bytes are borrowed for as long as it lives.
pub trait RowSource {
    /// Puts the cells of an Object row into `cells` as (field id, cell bytes), id 0 being a whole
    /// record, and returns the write timestamp of the newest DELETE.
    fn object<'s>(
        &'s self,
        key: &[u8],
        cells: &mut Vec<(u16, &'s [u8])>,
    ) -> Result<Option<i64>, RowError>;

    /// Puts at most `limit` events of a History into `events`, newest first, as (event time in ms,
    /// cell bytes); those that a DELETE removed are left out.
    fn events<'s>(
        &'s self,
        key: &[u8],
        limit: usize,
        events: &mut Vec<(i64, &'s [u8])>,
    ) -> Result<(), RowError>;
}

/// Rows by key, in request order.
pub trait Rows {
    /// Gives the row of a key to `visit`.
    fn visit<V: FnOnce(Row<'_>)>(
        &mut self,
        read: &PlannedRead,
        slot: usize,
        key: &[u8],
        visit: V,
    ) -> Result<(), StaleCatalog>;
}

/// Rows read from a source and folded one at a time.
#[derive(Debug)]
pub struct SourceRows<'s, S> {
    source: &'s S,
    now_ms: i64,
    /// Whether rows of an unknown schema are UNAVAILABLE instead of a reason to load the catalog.
    reloaded: bool,
    cells: Vec<(u16, &'s [u8])>,
    found: Vec<(i64, &'s [u8])>,
    events: Vec<Event<'s>>,
}

impl<'s, S: RowSource> SourceRows<'s, S> {
    /// Rows of a source as of a time.
    #[must_use]
    pub const fn new(source: &'s S, now_ms: i64, reloaded: bool) -> Self {
        Self { source, now_ms, reloaded, cells: Vec::new(), found: Vec::new(), events: Vec::new() }
    }

    fn object<V: FnOnce(Row<'_>)>(
        &mut self,
        read: &PlannedRead,
        key: &[u8],
        visit: V,
    ) -> Result<(), Error> {
        self.cells.clear();
        let deleted = match self.source.object(key, &mut self.cells) {
            Ok(deleted) => deleted,
            Err(error) => {
                visit(error.into());
                return Ok(());
            }
        };
        match self.cells.as_slice() {
            [] => visit(Row::Missing),
            [(0, cell)] => visit(whole_record(read, cell, deleted, self.now_ms)?),
            cells => {
                let cells = cells.iter().copied();
                let folded = fold(&read.group, cells, deleted, self.now_ms)?;
                visit(folded.as_ref().map_or(Row::Missing, |folded| folded_row(read, folded)));
            }
        }
        Ok(())
    }

    fn history<V: FnOnce(Row<'_>)>(
        &mut self,
        read: &PlannedRead,
        key: &[u8],
        visit: V,
    ) -> Result<(), Error> {
        self.found.clear();
        if let Err(error) = self.source.events(key, read.limit, &mut self.found) {
            visit(error.into());
            return Ok(());
        }
        self.events.clear();
        for (event_time_ms, cell) in &self.found {
            // Newest first: what follows an expired event has expired too.
            if is_expired(&read.group, *event_time_ms, self.now_ms) {
                break;
            }
            let cell = Cell::open(cell)?;
            let schema = schema_of(read, &cell)?;
            self.events.push(Event { event_time_ms: *event_time_ms, schema, body: cell.body });
        }
        let events = self.events.as_slice();
        visit(if events.is_empty() { Row::Missing } else { Row::Events(events) });
        Ok(())
    }
}

impl<S: RowSource> Rows for SourceRows<'_, S> {
    fn visit<V: FnOnce(Row<'_>)>(
        &mut self,
        read: &PlannedRead,
        _slot: usize,
        key: &[u8],
        visit: V,
    ) -> Result<(), StaleCatalog> {
        // The visitor runs at most once: on an error it was not run yet.
        let mut visit = Some(visit);
        let mut once = |row: Row<'_>| {
            if let Some(visit) = visit.take() {
                visit(row);
            }
        };
        let result = if read.is_history() {
            self.history(read, key, &mut once)
        } else {
            self.object(read, key, &mut once)
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind == Kind::UnknownSchema && !self.reloaded => Err(StaleCatalog),
            Err(error) => {
                once(unreadable(&error));
                Ok(())
            }
        }
    }
}

/// A row that cannot be read: UNAVAILABLE under a schema that no catalog has, else CORRUPT.
fn unreadable(error: &Error) -> Row<'static> {
    if error.kind == Kind::UnknownSchema { Row::Unavailable } else { Row::Corrupt }
}

impl From<RowError> for Row<'_> {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Unavailable => Row::Unavailable,
            RowError::Corrupt => Row::Corrupt,
        }
    }
}

/// The row of a lone whole-record cell: what [`fold`] would give, without making a body.
fn whole_record<'a>(
    read: &PlannedRead,
    cell: &'a [u8],
    deleted: Option<i64>,
    now_ms: i64,
) -> Result<Row<'a>, Error> {
    let cell = Cell::open(cell)?;
    let event_time_ms = cell.event_time_ms();
    let dead = deleted.is_some_and(|deleted| cell.write_timestamp <= deleted);
    if dead || is_expired(&read.group, event_time_ms, now_ms) {
        return Ok(Row::Missing);
    }
    let schema = schema_of(read, &cell)?;
    let (newest_event_time_ms, body) = (event_time_ms, cell.body);
    Ok(Row::Record(Record { newest_event_time_ms, schema, body, written: None }))
}

fn schema_of(read: &PlannedRead, cell: &Cell<'_>) -> Result<usize, Error> {
    read.schema_position(cell.fingerprint)
        .ok_or_else(|| Error::new(Kind::UnknownSchema, "the catalog lacks the writer's schema"))
}

fn folded_row<'a>(read: &PlannedRead, folded: &'a Folded<'_>) -> Row<'a> {
    Row::Record(Record {
        newest_event_time_ms: folded.newest_event_time_ms,
        schema: read.current(),
        body: &folded.body,
        written: folded.written.as_deref(),
    })
}
