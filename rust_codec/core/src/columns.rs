//! Columns → bulk commands: an Arrow IPC stream in, one bulk Avro command a row out.
//!
//! Columns are found by name: every key field, every value field of the current schema, and the
//! event time unless it is fixed. A column more or less is an error that names it, so that a typing
//! mistake in SQL never becomes a default. Which Arrow types a field takes stands in
//! `columns/source.rs`; the values are held to the same rules as those of JSON commands.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::{RecordBatch, new_empty_array};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, Schema, SchemaRef};

use crate::catalog::Group;
use crate::command::{BulkCommand, Method, check_method, write_bulk};
use crate::error::{Error, Kind, Result};
use crate::format::{COMMAND_BYTES_MAX, EVENT_TIME_MAX_MS, RECORD_BYTES_MAX, SINGLE_OBJECT_MARKER};
use crate::key::KeyWriter;
use crate::nearest::unknown;
use crate::schema::{Field, FieldType, RecordSchema, Scalar};

mod source;

use source::Column;

/// Where a row's event time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTime<'a> {
    /// A column of that name: an Arrow timestamp of any unit, or integers of milliseconds.
    Column(&'a str),
    /// The same for every row.
    FixedMs(i64),
}

/// Bulk commands in row order, all in one arena.
#[derive(Debug, Default)]
pub struct BulkCommands {
    arena: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    key: Range<usize>,
    command: Range<usize>,
}

impl BulkCommands {
    /// Per row the key bytes, by which it is spread over partitions, and the command.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().filter_map(|row| {
            Some((self.arena.get(row.key.clone())?, self.arena.get(row.command.clone())?))
        })
    }

    /// Count of rows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Encodes every row of an Arrow IPC stream as a command on the group, under its current schema.
///
/// An error's path is the column, then the row (counted over the whole stream); nothing is given
/// for the rows before it.
pub fn encode_columns(
    group: &Group,
    stream: &[u8],
    method: Method,
    event_time: EventTime<'_>,
) -> Result<BulkCommands> {
    check_method(group, method)?;
    let mut stream = Stream { decoder: StreamDecoder::new(), rest: Buffer::from(stream) };
    let mut encoder = Encoder::default();
    let mut plan = None;
    while let Some(batch) = stream.next_batch()? {
        let plan = match &mut plan {
            Some(plan) => plan,
            None => plan.insert(Plan::new(group, batch.schema_ref(), method, event_time)?),
        };
        encoder.push(plan, &batch)?;
    }
    if plan.is_none() {
        let schema = stream.schema()?;
        Plan::new(group, &schema, method, event_time)?;
    }
    Ok(encoder.commands)
}

struct Stream {
    decoder: StreamDecoder,
    rest: Buffer,
}

impl Stream {
    /// The next batch. Arrow's decoder is fed from memory, so that a length in a damaged stream is
    /// never allocated; it still panics over some of them, which is caught here.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let step = || -> std::result::Result<Option<RecordBatch>, ArrowError> {
            let batch = self.decoder.decode(&mut self.rest)?;
            if batch.is_none() {
                self.decoder.finish()?;
            }
            Ok(batch)
        };
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(outcome) => outcome.map_err(arrow_error),
            Err(_) => Err(Error::new(Kind::Corrupt, "the Arrow IPC stream is damaged")),
        }
    }

    fn schema(&self) -> Result<SchemaRef> {
        let missing = || Error::new(Kind::Corrupt, "the Arrow IPC stream has no schema");
        self.decoder.schema().ok_or_else(missing)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it is a function for map_err")]
fn arrow_error(error: ArrowError) -> Error {
    Error::new(Kind::Corrupt, format!("not an Arrow IPC stream: {error}"))
}

/// Which column feeds what, found once a stream.
struct Plan<'g> {
    group: &'g Group,
    schema: &'g RecordSchema,
    method: Method,
    keys: Vec<usize>,
    values: Vec<usize>,
    event_time: PlannedTime<'g>,
}

enum PlannedTime<'g> {
    Column(usize, &'g str),
    FixedMs(i64),
}

impl<'g> Plan<'g> {
    fn new(
        group: &'g Group,
        columns: &Schema,
        method: Method,
        event_time: EventTime<'g>,
    ) -> Result<Self> {
        let schema: &RecordSchema = group.current();
        let fields: &[Field] = if method == Method::Delete { &[] } else { &schema.fields };
        let event_time_name = match event_time {
            EventTime::Column(name) => Some(name),
            EventTime::FixedMs(_) => None,
        };
        let names = || {
            let keys = group.keys.iter().map(|key| key.name.as_str());
            keys.chain(fields.iter().map(|field| field.name.as_str())).chain(event_time_name)
        };
        for column in columns.fields() {
            if !names().any(|name| name == column.name()) {
                let message = unknown("column", column.name(), names());
                return Err(Error::new(Kind::UnknownField, message));
            }
        }
        let keys = group.keys.iter().map(|key| find(columns, &key.name)).collect::<Result<_>>()?;
        let values =
            fields.iter().map(|field| find(columns, &field.name)).collect::<Result<_>>()?;
        let event_time = match event_time {
            EventTime::Column(name) => PlannedTime::Column(find(columns, name)?, name),
            EventTime::FixedMs(time) => PlannedTime::FixedMs(time),
        };
        let plan = Self { group, schema, method, keys, values, event_time };
        // Types are looked at before any row, and for a stream without rows too.
        let arrays = columns.fields().iter().map(|column| new_empty_array(column.data_type()));
        let arrays: Vec<_> = arrays.collect();
        plan.open(&|position| arrays.get(position).ok_or_else(no_column))?;
        Ok(plan)
    }

    /// The columns of one batch, typed.
    fn open<'b>(
        &self,
        array: &dyn Fn(usize) -> Result<&'b arrow_array::ArrayRef>,
    ) -> Result<Columns<'b>> {
        let open = |position: usize, name: &str, field_type: FieldType| {
            Column::new(array(position)?, field_type).map_err(|error| error.under(name))
        };
        let keys = self.group.keys.iter().zip(&self.keys);
        let keys = keys
            .map(|(key, position)| open(*position, &key.name, FieldType::Scalar(key.scalar)))
            .collect::<Result<_>>()?;
        let values = self.schema.fields.iter().zip(&self.values);
        let values = values
            .map(|(field, position)| open(*position, &field.name, field.field_type))
            .collect::<Result<_>>()?;
        let event_time = match self.event_time {
            PlannedTime::FixedMs(_) => None,
            PlannedTime::Column(position, name) => {
                let column = Column::event_time(array(position)?);
                Some(column.map_err(|error| error.under(name))?)
            }
        };
        Ok(Columns { keys, values, event_time })
    }
}

struct Columns<'b> {
    keys: Vec<Column<'b>>,
    values: Vec<Column<'b>>,
    event_time: Option<Column<'b>>,
}

fn find(columns: &Schema, name: &str) -> Result<usize> {
    let mut found = columns.fields().iter().enumerate().filter(|(_, column)| column.name() == name);
    let missing = || Error::new(Kind::UnknownField, format!("column `{name}` is missing"));
    let (position, _) = found.next().ok_or_else(missing)?;
    if found.next().is_some() {
        let message = format!("column `{name}` stands twice");
        return Err(Error::new(Kind::DuplicateMember, message));
    }
    Ok(position)
}

fn no_column() -> Error {
    Error::new(Kind::Corrupt, "a batch has fewer columns than its stream's schema")
}

#[derive(Default)]
struct Encoder {
    commands: BulkCommands,
    key: Vec<u8>,
    record: Vec<u8>,
}

impl Encoder {
    fn push(&mut self, plan: &Plan<'_>, batch: &RecordBatch) -> Result<()> {
        let array = |position: usize| batch.columns().get(position).ok_or_else(no_column);
        let columns = plan.open(&array)?;
        for row in 0..batch.num_rows() {
            self.push_row(plan, &columns, row)?;
        }
        Ok(())
    }

    fn push_row(&mut self, plan: &Plan<'_>, columns: &Columns<'_>, row: usize) -> Result<()> {
        let place = self.commands.len().to_string();
        let at = |error: Error, name: &str| error.under(&place).under(name);
        self.key.clear();
        write_key(plan.group, &columns.keys, row, &mut self.key, &at)?;
        let event_time_ms = match (&plan.event_time, &columns.event_time) {
            (PlannedTime::Column(_, name), Some(column)) => {
                event_time(column, row).map_err(|error| at(error, name))?
            }
            (PlannedTime::FixedMs(time), _) => check_time(*time)?,
            (PlannedTime::Column(..), None) => return Err(no_column()),
        };
        let record = if plan.method == Method::Delete {
            None
        } else {
            self.record.clear();
            write_record(plan.schema, &columns.values, row, &mut self.record, &at)?;
            Some(self.record.as_slice())
        };
        let arena = &mut self.commands.arena;
        let key_start = arena.len();
        arena.extend_from_slice(&self.key);
        let command_start = arena.len();
        let feature_name = &plan.group.name;
        let command = BulkCommand {
            feature_name,
            method: plan.method,
            key: &self.key,
            event_time_ms,
            record,
        };
        write_bulk(&command, arena);
        if arena.len().saturating_sub(command_start) > COMMAND_BYTES_MAX {
            let message = format!("row {place} takes more than {COMMAND_BYTES_MAX} bytes");
            return Err(Error::new(Kind::TooLarge, message));
        }
        let row = Row { key: key_start..command_start, command: command_start..arena.len() };
        self.commands.rows.push(row);
        Ok(())
    }
}

fn write_key(
    group: &Group,
    columns: &[Column<'_>],
    row: usize,
    out: &mut Vec<u8>,
    at: &dyn Fn(Error, &str) -> Error,
) -> Result<()> {
    let mut writer = KeyWriter::new(group, out);
    for (field, column) in group.keys.iter().zip(columns) {
        let failed = |error| at(error, &field.name);
        if column.is_null(row) {
            return Err(failed(Error::new(Kind::Key, "a key is never null")));
        }
        // The key writer's path is the field, which stands further out here.
        let plain = |error: Error| failed(Error::new(error.kind, error.message));
        if field.scalar == Scalar::Text {
            writer.push_text(column.text(row).map_err(failed)?).map_err(plain)?;
        } else {
            writer.push_integer(column.integer(row).map_err(failed)?).map_err(plain)?;
        }
    }
    writer.finish().map_err(|error| at(error, "key"))
}

fn write_record(
    schema: &RecordSchema,
    columns: &[Column<'_>],
    row: usize,
    out: &mut Vec<u8>,
    at: &dyn Fn(Error, &str) -> Error,
) -> Result<()> {
    out.extend_from_slice(&SINGLE_OBJECT_MARKER);
    out.extend_from_slice(&schema.fingerprint.to_le_bytes());
    for (field, column) in schema.fields.iter().zip(columns) {
        column.write(row, field, out).map_err(|error| at(error, &field.name))?;
    }
    if out.len() > RECORD_BYTES_MAX {
        let message = format!("the record takes more than {RECORD_BYTES_MAX} bytes");
        return Err(at(Error::new(Kind::TooLarge, message), "record"));
    }
    Ok(())
}

fn event_time(column: &Column<'_>, row: usize) -> Result<i64> {
    if column.is_null(row) {
        return Err(Error::new(Kind::NoEventTime, "the event time is null"));
    }
    check_time(column.integer(row)?)
}

fn check_time(event_time_ms: i64) -> Result<i64> {
    if (0..=EVENT_TIME_MAX_MS).contains(&event_time_ms) {
        return Ok(event_time_ms);
    }
    let message = "the event time is no time between 1970 and 9999 in milliseconds";
    Err(Error::new(Kind::OutOfRange, message))
}

#[cfg(test)]
mod tests;
