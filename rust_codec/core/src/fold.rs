//! Fold: the cells of one Object row → one record under the current schema (semantics 1-3).
//!
//! A pure function of the set of cells: neither order nor repetition nor an earlier merge of some
//! of them changes the outcome.

use std::borrow::Cow;
use std::sync::Arc;

use crate::catalog::Group;
use crate::cell::Cell;
use crate::cursor::{Cursor, write_varint};
use crate::decode::{Sink, decode_field, skip_field, starts_with_null};
use crate::error::{Error, Kind, Result};
use crate::resolve::{FieldReading, Promotion};
use crate::schema::{Field, RecordSchema};

/// One record as the store serves it.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<'a> {
    /// Event time of the newest live cell, ms.
    pub newest_event_time_ms: i64,
    /// Event time of the oldest live cell, ms.
    pub oldest_event_time_ms: i64,
    /// Bit i of byte i/8: whether value field i of `schema` was ever written; None when all were.
    pub written: Option<Vec<u8>>,
    /// The group's current schema, which `body` is in.
    pub schema: Arc<RecordSchema>,
    /// Avro body; unwritten fields hold their default.
    pub body: Cow<'a, [u8]>,
}

impl Folded<'_> {
    /// Whether value field `position` was ever written, and has not expired.
    #[must_use]
    pub fn is_written(&self, position: usize) -> bool {
        let all = || position < self.schema.fields.len();
        self.written
            .as_deref()
            .map_or_else(all, |bits| crate::transcode::is_written(bits, position))
    }
}

/// Whether the cell `candidate` replaces `standing` in the same place: the higher write timestamp,
/// at equal ones the larger bytes (semantics 1). Every store that resolves cells itself uses this.
///
/// The bytes are those of the whole cell, because a wide-column store compares its blobs so. After
/// an equal timestamp they differ first in the checksum, then in the fingerprint, both LE.
#[must_use]
pub fn supersedes(candidate: &Cell<'_>, standing: &Cell<'_>) -> bool {
    let rank = |cell: &Cell<'_>| {
        (cell.write_timestamp, cell.checksum.swap_bytes(), cell.fingerprint.swap_bytes())
    };
    (rank(candidate), candidate.body) > (rank(standing), standing.body)
}

/// Whether a cell of this event time has expired at `now_ms` under the group's current ttl.
#[must_use]
#[inline]
pub fn is_expired(group: &Group, event_time_ms: i64, now_ms: i64) -> bool {
    group.ttl_ms.is_some_and(|ttl| event_time_ms.saturating_add(ttl) <= now_ms)
}

/// Folds the cells of one row: (field id, cell bytes), field id 0 being a whole record.
///
/// None when no cell is live. `delete_timestamp` is the write timestamp of the row's newest DELETE,
/// for engines that do not apply it themselves. The body is borrowed when one record cell of the
/// current schema is all there is. Fails with [`Kind::UnknownSchema`] for a fingerprint or field id
/// that the group never had (semantics 20), and with [`Kind::Checksum`] or [`Kind::Corrupt`] for a
/// damaged cell.
pub fn fold<'a>(
    group: &Group,
    cells: impl IntoIterator<Item = (u16, &'a [u8])>,
    delete_timestamp: Option<i64>,
    now_ms: i64,
) -> Result<Option<Folded<'a>>> {
    let mut live = Live::default();
    for (field_id, bytes) in cells {
        let cell = Cell::open(bytes)?;
        let deleted = delete_timestamp.is_some_and(|deleted| cell.write_timestamp <= deleted);
        if !deleted && !is_expired(group, cell.event_time_ms(), now_ms) {
            live.take(field_id, cell);
        }
    }
    live.merge(group)
}

/// The winning cells so far, one a place.
#[derive(Default)]
struct Live<'a> {
    record: Option<Cell<'a>>,
    patches: Vec<(u16, Cell<'a>)>,
}

impl<'a> Live<'a> {
    fn take(&mut self, field_id: u16, cell: Cell<'a>) {
        let standing = if field_id == 0 {
            self.record.as_mut()
        } else {
            self.patches.iter_mut().find(|(id, _)| *id == field_id).map(|(_, cell)| cell)
        };
        match standing {
            Some(standing) if supersedes(&cell, standing) => *standing = cell,
            Some(_) => {}
            None if field_id == 0 => self.record = Some(cell),
            None => self.patches.push((field_id, cell)),
        }
    }

    fn merge(self, group: &Group) -> Result<Option<Folded<'a>>> {
        let times = || {
            let patches = self.patches.iter().map(|(_, cell)| cell);
            self.record.iter().chain(patches).map(Cell::event_time_ms)
        };
        let (Some(newest), Some(oldest)) = (times().max(), times().min()) else { return Ok(None) };
        let folded = |written, body| Folded {
            newest_event_time_ms: newest,
            oldest_event_time_ms: oldest,
            written,
            schema: Arc::clone(group.current()),
            body,
        };
        if let (Some(record), true) = (&self.record, self.patches.is_empty())
            && record.fingerprint == group.current().fingerprint
        {
            return Ok(Some(folded(None, Cow::Borrowed(record.body))));
        }
        let (written, body) = self.compose(group)?;
        Ok(Some(folded(written, Cow::Owned(body))))
    }

    /// The written bitmap and the body under the current schema.
    fn compose(&self, group: &Group) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
        let record =
            self.record.as_ref().map(|cell| StoredRecord::open(group, *cell)).transpose()?;
        let patches = self.open_patches(group)?;
        compose(group.current(), |field_id| {
            let patch = patches.iter().find(|patch| patch.field.id == field_id).copied();
            newest(record.as_ref().and_then(|it| it.field(field_id)), patch)
        })
    }

    fn open_patches<'g>(&self, group: &'g Group) -> Result<Vec<Source<'g, 'a>>> {
        self.patches
            .iter()
            .map(|(field_id, cell)| {
                let field = patched_field(group, *field_id, cell.fingerprint)?;
                let mut cursor = Cursor::new(cell.body);
                skip_field(&mut cursor, FieldReading::of(field))?;
                cursor.finish()?;
                Ok(Source { cell: *cell, field, bytes: cell.body })
            })
            .collect()
    }
}

/// A body under the group's current schema: its written bitmap (None: all fields were written) and
/// its bytes, borrowed when it is in that schema already.
pub type Upgraded<'a> = (Option<Vec<u8>>, Cow<'a, [u8]>);

/// Brings one body of any of the group's schemas under the current one, as a fold of it alone would;
/// `written` is the bitmap of a block, under the body's own schema.
pub fn upgrade<'a>(
    group: &Group,
    fingerprint: u64,
    body: &'a [u8],
    written: Option<&[u8]>,
) -> Result<Upgraded<'a>> {
    if fingerprint == group.current().fingerprint && written.is_none() {
        return Ok((None, Cow::Borrowed(body)));
    }
    let record =
        StoredRecord::open(group, Cell { write_timestamp: 0, checksum: 0, fingerprint, body })?;
    let (written, body) = compose(group.current(), |field_id| {
        let position = record.schema.position(field_id)?;
        let there = written.is_none_or(|bits| crate::transcode::is_written(bits, position));
        if there { record.field(field_id) } else { None }
    })?;
    Ok((written, Cow::Owned(body)))
}

/// The written bitmap (None: all) and the body that `source` gives under a schema.
fn compose<'g, 'a: 'g>(
    current: &RecordSchema,
    source: impl Fn(u16) -> Option<Source<'g, 'a>>,
) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
    let mut written = vec![0_u8; current.fields.len().div_ceil(8)];
    let mut body = Vec::with_capacity(256);
    let mut all = true;
    for (position, field) in current.fields.iter().enumerate() {
        let stands = match source(field.id) {
            Some(source) => source.append(field, &mut body)?,
            None => false,
        };
        if stands {
            if let Some(byte) = written.get_mut(position / 8) {
                *byte |= 1 << (position % 8);
            }
        } else {
            all = false;
            body.extend_from_slice(current.default_at(position)?);
        }
    }
    Ok(((!all).then_some(written), body))
}

/// The field, as some schema of the group had it, whose patches carry this fingerprint.
pub fn patched_field(group: &Group, field_id: u16, fingerprint: u64) -> Result<&Field> {
    let found = group.schemas.iter().rev().find_map(|schema| {
        let position = schema.position(field_id)?;
        let same = schema.patch_fingerprints.get(position) == Some(&fingerprint);
        if same { schema.fields.get(position) } else { None }
    });
    found.ok_or_else(|| {
        let message =
            format!("`{}` never had a field {field_id} of the type {fingerprint:016x}", group.name);
        Error::new(Kind::UnknownSchema, message)
    })
}

/// The group's schema of this fingerprint; [`Kind::UnknownSchema`] when it never had one.
pub fn schema_of(group: &Group, fingerprint: u64) -> Result<&Arc<RecordSchema>> {
    group.schema(fingerprint).ok_or_else(|| {
        let message = format!("`{}` never had a schema {fingerprint:016x}", group.name);
        Error::new(Kind::UnknownSchema, message)
    })
}

/// One field's bytes in one cell.
#[derive(Clone, Copy)]
struct Source<'g, 'a> {
    cell: Cell<'a>,
    field: &'g Field,
    bytes: &'a [u8],
}

fn newest<'g, 'a>(
    record: Option<Source<'g, 'a>>,
    patch: Option<Source<'g, 'a>>,
) -> Option<Source<'g, 'a>> {
    match (record, patch) {
        (Some(record), Some(patch)) => {
            // Compared as values of the field: the two cells have different layouts.
            let rank = |source: &Source<'_, '_>| source.cell.write_timestamp;
            let wins = (rank(&patch), patch.bytes) >= (rank(&record), record.bytes);
            Some(if wins { patch } else { record })
        }
        (record, patch) => record.or(patch),
    }
}

impl Source<'_, '_> {
    /// Appends the bytes as the current field's; false when a stored null is no value any more.
    fn append(&self, current: &Field, body: &mut Vec<u8>) -> Result<bool> {
        let reading = FieldReading::between(self.field, current, Promotion::Exact)?;
        if reading.is_verbatim() {
            body.extend_from_slice(self.bytes);
            return Ok(true);
        }
        if !reading.null_allowed && starts_with_null(self.bytes, reading) {
            return Ok(false);
        }
        let mut sink = AvroSink { body, nullable: current.nullable, list: Vec::new(), items: None };
        decode_field(&mut Cursor::new(self.bytes), reading, &mut sink)?;
        Ok(true)
    }
}

/// A whole record with the place of each field of its writer.
struct StoredRecord<'g, 'a> {
    cell: Cell<'a>,
    schema: &'g RecordSchema,
    body: &'a [u8],
    starts: Vec<usize>,
}

impl<'g, 'a> StoredRecord<'g, 'a> {
    fn open(group: &'g Group, cell: Cell<'a>) -> Result<Self> {
        let schema = schema_of(group, cell.fingerprint)?;
        let mut cursor = Cursor::new(cell.body);
        let mut starts = Vec::with_capacity(schema.fields.len().saturating_add(1));
        for field in &schema.fields {
            starts.push(cursor.offset());
            skip_field(&mut cursor, FieldReading::of(field))?;
        }
        cursor.finish()?;
        starts.push(cursor.offset());
        Ok(Self { cell, schema, body: cell.body, starts })
    }

    fn field(&self, id: u16) -> Option<Source<'g, 'a>> {
        let position = self.schema.position(id)?;
        let start = *self.starts.get(position)?;
        let end = *self.starts.get(position.saturating_add(1))?;
        let field = self.schema.fields.get(position)?;
        Some(Source { cell: self.cell, field, bytes: self.body.get(start..end)? })
    }
}

/// Writes values back as Avro, for fields whose type or nullability changed since.
struct AvroSink<'a> {
    body: &'a mut Vec<u8>,
    nullable: bool,
    list: Vec<u8>,
    items: Option<i64>,
}

impl AvroSink<'_> {
    fn value(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(items) = &mut self.items {
            *items = items.saturating_add(1);
            write(&mut self.list);
            return;
        }
        self.open_union();
        write(self.body);
    }

    fn open_union(&mut self) {
        if self.nullable {
            self.body.push(2);
        }
    }
}

impl Sink for AvroSink<'_> {
    type Error = Error;

    fn null(&mut self) -> Result<()> {
        self.body.push(0);
        Ok(())
    }
    fn boolean(&mut self, value: bool) -> Result<()> {
        self.value(|out| out.push(u8::from(value)));
        Ok(())
    }
    fn integer(&mut self, value: i32) -> Result<()> {
        self.long(i64::from(value))
    }
    fn long(&mut self, value: i64) -> Result<()> {
        self.value(|out| write_varint(out, value));
        Ok(())
    }
    fn float(&mut self, value: f32) -> Result<()> {
        self.value(|out| out.extend_from_slice(&value.to_le_bytes()));
        Ok(())
    }
    fn double(&mut self, value: f64) -> Result<()> {
        self.value(|out| out.extend_from_slice(&value.to_le_bytes()));
        Ok(())
    }
    fn text(&mut self, value: &str) -> Result<()> {
        self.bytes(value.as_bytes())
    }
    fn bytes(&mut self, value: &[u8]) -> Result<()> {
        let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
        self.value(|out| {
            write_varint(out, length);
            out.extend_from_slice(value);
        });
        Ok(())
    }
    fn date(&mut self, days: i32) -> Result<()> {
        self.long(i64::from(days))
    }
    fn timestamp(&mut self, micros: i64) -> Result<()> {
        self.long(micros)
    }
    fn begin_list(&mut self) -> Result<()> {
        self.open_union();
        self.items = Some(0);
        Ok(())
    }
    fn end_list(&mut self) -> Result<()> {
        let items = self.items.take().unwrap_or(0);
        if items > 0 {
            write_varint(self.body, items);
            self.body.extend_from_slice(&self.list);
        }
        self.body.push(0);
        self.list.clear();
        Ok(())
    }
}
