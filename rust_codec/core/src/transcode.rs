//! Stored Avro bodies → JSON text, for the fields asked for in the order asked for, with no value
//! built on the way.

use crate::catalog::Group;
use crate::cell::Cell;
use crate::cursor::Cursor;
use crate::decode::{Sink, decode_field, skip_field, starts_with_null};
use crate::error::{Error, Kind, Result};
use crate::fold::schema_of;
use crate::resolve::{FieldReading, Origin, Promotion, Resolution};
use crate::schema::{Field, RecordSchema};
use crate::status::{FieldSet, RowStatus};
use crate::text;
use quick::{BARE, OBJECT, Quick, ROW, Row};

mod decimal;
mod pen;
mod quick;
mod route;
mod sixteen;
mod step;
pub(crate) mod take;
mod walk;

const DAY_SECONDS: i64 = 86_400;
const SECOND_MICROS: i64 = 1_000_000;

/// What stands where nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unwritten {
    /// The current default.
    #[default]
    Default,
    /// Null.
    Null,
}

/// How values are read and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which changes of a number's type are followed.
    pub promotion: Promotion,
    /// Longs print as JSON strings.
    pub int64_as_text: bool,
    /// What stands where nothing was written.
    pub unwritten: Unwritten,
    /// Date and Timestamp print as whole seconds since the epoch, rounded down.
    pub epoch_seconds: bool,
}

/// One requested field.
#[derive(Debug, Clone)]
struct Column {
    /// Position in the writer's schema; None when the writer lacks the field.
    source: Option<(usize, FieldReading)>,
    /// `"name":`
    label: Vec<u8>,
    /// JSON text that stands where nothing was written.
    unwritten: Vec<u8>,
}

/// From one writer's schema to one list of requested fields. Made once, used for every row.
#[derive(Debug, Clone)]
pub struct Transcoder {
    walk: Vec<FieldReading>,
    columns: Vec<Column>,
    options: Options,
    quick: Option<Quick>,
}

/// How a row is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[1,"a"]`
    Row,
    /// `{"level":1,"name":"a"}`
    Object,
}

/// JSON array of the rows of whole-record cells of any of the group's schemas: no fold, no expiry,
/// no statuses. For tools and benchmarks; the read path keeps its transcoders.
pub fn cells<'a>(
    group: &Group,
    cells: impl IntoIterator<Item = &'a [u8]>,
    requested: &[usize],
    layout: Layout,
) -> Result<Vec<u8>> {
    let mut known: Option<(u64, Transcoder)> = None;
    let (mut out, mut status) = (vec![b'['], RowStatus::default());
    for (index, bytes) in cells.into_iter().enumerate() {
        let cell = Cell::open(bytes)?;
        if index > 0 {
            out.push(b',');
        }
        // Cells come in runs of one schema, nearly always a single one.
        if known.as_ref().is_none_or(|(print, _)| *print != cell.fingerprint) {
            let writer = schema_of(group, cell.fingerprint)?;
            let transcoder = Transcoder::new(writer, group.current(), requested)?;
            known = Some((cell.fingerprint, transcoder));
        }
        let Some((_, transcoder)) = &known else { continue };
        match layout {
            Layout::Row => transcoder.row(cell.body, &mut out, &mut status)?,
            Layout::Object => transcoder.object(cell.body, &mut out, &mut status)?,
        }
    }
    out.push(b']');
    Ok(out)
}

impl Transcoder {
    /// A transcoder from `writer`'s bodies to the fields of `current` at the positions `requested`,
    /// in that order, with default [`Options`].
    ///
    /// Fails with [`Kind::Schema`] when a field's stored type does not widen to its current one,
    /// and with [`Kind::Request`] for a position that `current` does not have.
    pub fn new(writer: &RecordSchema, current: &RecordSchema, requested: &[usize]) -> Result<Self> {
        Self::with_options(writer, current, requested, Options::default())
    }

    /// The same with options.
    pub fn with_options(
        writer: &RecordSchema,
        current: &RecordSchema,
        requested: &[usize],
        options: Options,
    ) -> Result<Self> {
        let resolution = Resolution::new(writer, current, options.promotion)?;
        let columns = requested.iter().map(|position| {
            let field = current.fields.get(*position);
            let origin = resolution.origins.get(*position);
            let (Some(field), Some(origin)) = (field, origin) else {
                let message = format!("the schema has no field at position {position}");
                return Err(Error::new(Kind::Request, message));
            };
            Column::new(field, *origin, current.default_at(*position), options)
        });
        let columns: Vec<Column> = columns.collect::<Result<_>>()?;
        let walk = resolution.written;
        let is_time = |position: &usize| current.fields.get(*position).is_some_and(Field::is_time);
        // The quick walk prints times one way only.
        let plainly = options.epoch_seconds && requested.iter().any(is_time);
        let quick = if plainly { None } else { Quick::new(&walk, &columns, options.int64_as_text) };
        Ok(Self { walk, columns, options, quick })
    }

    /// The same transcoder without its quick walk: equal answers from the plain one alone, which
    /// tests compare.
    #[must_use]
    pub fn plainly(self) -> Self {
        Self { quick: None, ..self }
    }

    /// Number of requested fields.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Appends `[value,…]` for a body whose fields were all written.
    ///
    /// Fails with [`Kind::Corrupt`] when the bytes are no body of the writer's schema; `out` is then
    /// as it was.
    pub fn row(&self, body: &[u8], out: &mut Vec<u8>, status: &mut RowStatus) -> Result<()> {
        self.print::<ROW>(Row { body, written: None, event_time_ms: None }, out, status)
    }

    /// Appends `[value,…]` for a folded body; bit i of byte i/8 of `written` says whether value
    /// field i of the writer's schema was ever written (semantics 7); None: all were.
    pub fn folded_row(
        &self,
        body: &[u8],
        written: Option<&[u8]>,
        out: &mut Vec<u8>,
        status: &mut RowStatus,
    ) -> Result<()> {
        self.print::<ROW>(Row { body, written, event_time_ms: None }, out, status)
    }

    /// Appends `[event time in ms,value,…]` for one event of a History.
    pub fn event(
        &self,
        event_time_ms: i64,
        body: &[u8],
        out: &mut Vec<u8>,
        status: &mut RowStatus,
    ) -> Result<()> {
        let event_time_ms = Some(event_time_ms);
        self.print::<ROW>(Row { body, written: None, event_time_ms }, out, status)
    }

    /// Appends `{"name":value,…}`.
    pub fn object(&self, body: &[u8], out: &mut Vec<u8>, status: &mut RowStatus) -> Result<()> {
        self.print::<OBJECT>(Row { body, written: None, event_time_ms: None }, out, status)
    }

    /// Appends the values one after another without anything between them, and to `ends` the length
    /// of `out` after each: for answers laid out in columns.
    pub fn values(
        &self,
        body: &[u8],
        written: Option<&[u8]>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<()> {
        let row = Row { body, written, event_time_ms: None };
        self.print_noting_ends::<BARE>(row, out, ends, status)
    }

    /// Appends `[value,…]` for a row that is not there; marks nothing, since the whole row is MISSING.
    pub fn missing_row(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.unwritten);
        }
        out.push(b']');
    }

    /// JSON text that stands where requested field `index` was never written.
    #[must_use]
    pub fn unwritten_text(&self, index: usize) -> Option<&[u8]> {
        self.columns.get(index).map(|column| column.unwritten.as_slice())
    }

    #[inline]
    fn print<const LAYOUT: u8>(
        &self,
        row: Row<'_>,
        out: &mut Vec<u8>,
        status: &mut RowStatus,
    ) -> Result<()> {
        self.print_noting_ends::<LAYOUT>(row, out, &mut Vec::new(), status)
    }

    #[inline]
    fn print_noting_ends<const LAYOUT: u8>(
        &self,
        row: Row<'_>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<()> {
        if let Some(quick) = &self.quick
            && quick.print::<LAYOUT>(row, out, ends, status)
        {
            return Ok(());
        }
        let (before, ends_before) = (out.len(), ends.len());
        let outcome = self.print_plainly::<LAYOUT>(row, out, ends, status);
        if outcome.is_err() {
            out.truncate(before);
            ends.truncate(ends_before);
        }
        outcome
    }

    /// The plain walk, which takes every body there is and says what is wrong with the others.
    #[inline(never)]
    fn print_plainly<const LAYOUT: u8>(
        &self,
        row: Row<'_>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<()> {
        let spans = self.spans(row.body)?;
        match LAYOUT {
            ROW => out.push(b'['),
            OBJECT => out.push(b'{'),
            _ => {}
        }
        if let Some(event_time_ms) = row.event_time_ms {
            text::push_integer(out, event_time_ms);
        }
        for (index, column) in self.columns.iter().enumerate() {
            if LAYOUT != BARE && (index > 0 || row.event_time_ms.is_some()) {
                out.push(b',');
            }
            if LAYOUT == OBJECT {
                out.extend_from_slice(&column.label);
            }
            self.print_value(index, column, row, &spans, out, status)?;
            ends.push(out.len());
        }
        match LAYOUT {
            ROW => out.push(b']'),
            OBJECT => out.push(b'}'),
            _ => {}
        }
        Ok(())
    }

    /// Where each field of the writer begins, after walking the whole body.
    fn spans(&self, body: &[u8]) -> Result<Vec<usize>> {
        let mut cursor = Cursor::new(body);
        let mut spans = Vec::with_capacity(self.walk.len());
        for reading in &self.walk {
            spans.push(cursor.offset());
            skip_field(&mut cursor, *reading)?;
        }
        cursor.finish()?;
        Ok(spans)
    }

    fn print_value(
        &self,
        index: usize,
        column: &Column,
        row: Row<'_>,
        spans: &[usize],
        out: &mut Vec<u8>,
        status: &mut RowStatus,
    ) -> Result<()> {
        let stored = column.source.and_then(|(position, reading)| {
            let bytes = row.body.get(*spans.get(position)?..)?;
            let there = row.written.is_none_or(|bits| is_written(bits, position));
            let refused = !reading.null_allowed && starts_with_null(bytes, reading);
            (there && !refused).then_some((bytes, reading))
        });
        let Some((bytes, reading)) = stored else {
            status.defaulted.insert(index);
            out.extend_from_slice(&column.unwritten);
            return Ok(());
        };
        let not_finite = &mut status.not_finite;
        let mut sink = JsonSink { out, options: self.options, index, not_finite, open: false };
        decode_field(&mut Cursor::new(bytes), reading, &mut sink)
    }
}

/// Bit i of byte i/8; a bit that is not there is 0.
#[must_use]
#[inline]
pub fn is_written(bits: &[u8], position: usize) -> bool {
    bits.get(position / 8).is_some_and(|byte| byte & (1 << (position % 8)) != 0)
}

impl Column {
    fn new(
        field: &Field,
        origin: Origin,
        default: Result<&[u8]>,
        options: Options,
    ) -> Result<Self> {
        let source = match origin {
            Origin::Stored { position, reading } => Some((position, reading)),
            Origin::Unwritten => None,
        };
        let mut label = Vec::new();
        text::push_text(&mut label, &field.name);
        label.push(b':');
        let unwritten = match options.unwritten {
            Unwritten::Null => b"null".to_vec(),
            Unwritten::Default => default_text(field, default?, options)?,
        };
        Ok(Self { source, label, unwritten })
    }
}

/// JSON text of a field's default, as a stored value of it would print.
fn default_text(field: &Field, default: &[u8], options: Options) -> Result<Vec<u8>> {
    let (mut out, mut not_finite) = (Vec::new(), FieldSet::default());
    let mut sink =
        JsonSink { out: &mut out, options, index: 0, not_finite: &mut not_finite, open: false };
    decode_field(&mut Cursor::new(default), FieldReading::of(field), &mut sink)?;
    Ok(out)
}

fn push_long(out: &mut Vec<u8>, value: i64, quoted: bool) {
    if quoted {
        out.push(b'"');
    }
    text::push_integer(out, value);
    if quoted {
        out.push(b'"');
    }
}

struct JsonSink<'a> {
    out: &'a mut Vec<u8>,
    options: Options,
    index: usize,
    not_finite: &'a mut FieldSet,
    /// Inside a list, after its first item.
    open: bool,
}

impl JsonSink<'_> {
    fn separate(&mut self) {
        if self.open {
            self.out.push(b',');
        }
        self.open = true;
    }

    fn mark(&mut self, finite: bool) {
        if !finite {
            self.out.extend_from_slice(b"null");
            self.not_finite.insert(self.index);
        }
    }
}

impl Sink for JsonSink<'_> {
    type Error = Error;

    fn null(&mut self) -> Result<()> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }
    fn boolean(&mut self, value: bool) -> Result<()> {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }
    fn integer(&mut self, value: i32) -> Result<()> {
        self.separate();
        text::push_integer(self.out, i64::from(value));
        Ok(())
    }
    fn long(&mut self, value: i64) -> Result<()> {
        self.separate();
        push_long(self.out, value, self.options.int64_as_text);
        Ok(())
    }
    fn float(&mut self, value: f32) -> Result<()> {
        self.separate();
        let finite = text::push_float(self.out, value);
        self.mark(finite);
        Ok(())
    }
    fn double(&mut self, value: f64) -> Result<()> {
        self.separate();
        let finite = text::push_double(self.out, value);
        self.mark(finite);
        Ok(())
    }
    fn text(&mut self, value: &str) -> Result<()> {
        self.separate();
        text::push_text(self.out, value);
        Ok(())
    }
    fn bytes(&mut self, value: &[u8]) -> Result<()> {
        self.separate();
        text::push_base64(self.out, value);
        Ok(())
    }
    fn date(&mut self, days: i32) -> Result<()> {
        self.separate();
        if self.options.epoch_seconds {
            text::push_integer(self.out, i64::from(days).saturating_mul(DAY_SECONDS));
        } else {
            text::push_date(self.out, days);
        }
        Ok(())
    }
    fn timestamp(&mut self, micros: i64) -> Result<()> {
        self.separate();
        if self.options.epoch_seconds {
            text::push_integer(self.out, micros.div_euclid(SECOND_MICROS));
        } else {
            text::push_timestamp(self.out, micros);
        }
        Ok(())
    }
    fn begin_list(&mut self) -> Result<()> {
        self.out.push(b'[');
        self.open = false;
        Ok(())
    }
    fn end_list(&mut self) -> Result<()> {
        self.out.push(b']');
        Ok(())
    }
}
