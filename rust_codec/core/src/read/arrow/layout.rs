//! The Arrow schema of a plan, the lanes behind it, and the bytes that open every answer: made once
//! for all requests of a shape.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{ArrayRef, DictionaryArray, Int8Array, RecordBatch, StringArray};
use arrow_ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message,
};
use arrow_schema::{ArrowError, DataType, Field as ArrowField, Fields, Schema, TimeUnit};

use super::lane::Kind;
use super::{EVENT_TIME, EVENTS, FIELD_STATUS, REQUEST_ID_BYTES_MAX, STATUS};
use crate::read::keys::Keys;
use crate::read::plan::PlannedRead;
use crate::read::problem::{Code, Problem, quoted};
use crate::read::request::{self, Options};
use crate::read::statuses::Status;
use crate::resolve::{FieldReading, Origin, Promotion, Resolution};
use crate::schema::{Field, FieldType, Scalar};

/// Text that stands for the request id until there is one; no name has such letters.
const PLACEHOLDER: [u8; REQUEST_ID_BYTES_MAX] = [b'~'; REQUEST_ID_BYTES_MAX];

/// How the rows of a plan become a record batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The stream up to the record batch: its schema and the words of statuses.
    pub(super) opening: Vec<u8>,
    /// Where the request id's length and text stand in `opening`, with room for the longest.
    pub(super) request_id: usize,
    /// Of all lanes, in the order of the schema's nodes.
    pub(super) kinds: Vec<Kind>,
    pub(super) reads: Vec<ReadLayout>,
}

/// The columns of one read. Lanes count from its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadLayout {
    /// All its lanes; the key columns are the first, one lane each.
    pub(super) lanes: Range<usize>,
    /// The list of events, in front of its record and that of the event time; None of an Object.
    pub(super) events: Option<usize>,
    /// In the order asked for.
    pub(super) fields: Vec<FieldLayout>,
    pub(super) event_time: usize,
    pub(super) status: usize,
    /// The vector of statuses of fields; its items are the lane after it.
    pub(super) field_status: usize,
    /// By position in the group's schemas; None where stored bytes do not resolve.
    pub(super) steps: Vec<Option<Steps>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldLayout {
    pub(super) lane: usize,
    /// Of the current schema, by which `default` is read.
    pub(super) reading: FieldReading,
    /// Avro of what stands where nothing was written; None is null.
    pub(super) default: Option<Vec<u8>>,
}

/// From bodies of one schema to the fields asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Steps {
    /// One step a field of the writer, in its order.
    pub(super) walk: Vec<Step>,
    /// Fields asked for that the writer lacks.
    pub(super) lacking: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) reading: FieldReading,
    /// Position among the fields asked for, and its lane; None is skipped.
    pub(super) place: Option<(usize, usize)>,
}

impl Layout {
    /// The layout of a plan's reads; columns of a service, and of several reads, are named after
    /// their read too.
    pub fn new(
        reads: &[PlannedRead],
        generation: u64,
        service: bool,
        options: Options,
    ) -> request::Result<Self> {
        let mut draft =
            Draft { kinds: Vec::new(), columns: Vec::new(), missing_null: options.missing_null };
        let mut results = Vec::new();
        let mut taken = HashMap::new();
        let layouts = reads.iter().map(|read| {
            let prefix =
                if service || reads.len() > 1 { prefix(read, &mut taken) } else { String::new() };
            results.push(result(read, &prefix));
            draft.read(read, &prefix)
        });
        let layouts = layouts.collect();
        let metadata = HashMap::from([
            ("headrace.generation".to_owned(), generation.to_string()),
            ("headrace.request_id".to_owned(), String::from_utf8_lossy(&PLACEHOLDER).into_owned()),
            ("headrace.results".to_owned(), format!("[{}]", results.join(","))),
            ("headrace.statuses".to_owned(), status_words()),
        ]);
        let schema = Schema::new_with_metadata(draft.columns, metadata);
        let made = opening(schema).ok().and_then(|opening| {
            let text = memchr::memmem::find(&opening, &PLACEHOLDER)?;
            Some((opening, text.checked_sub(size_of::<u32>())?))
        });
        let (opening, request_id) = made.ok_or_else(|| {
            Problem::new(Code::Unavailable, "the Arrow schema of this answer cannot be made")
        })?;
        Ok(Self { opening, request_id, kinds: draft.kinds, reads: layouts })
    }

    /// Refuses reads whose rows do not make one table: all have equally many, or one, which then
    /// stands in every row.
    pub fn check_rows(&self, keys: &Keys) -> request::Result<()> {
        let rows = || (0..self.reads.len()).map(|read| keys.slots(read).len());
        let many: HashSet<usize> = rows().filter(|rows| *rows != 1).collect();
        if many.len() < 2 {
            return Ok(());
        }
        let counts: Vec<String> = rows().map(|rows| rows.to_string()).collect();
        let detail = format!(
            "an Arrow answer is one table, so its reads need equally many keys, or one; they have \
             {}; send them apart or ask for JSON or Avro",
            counts.join(", ")
        );
        Err(Problem::new(Code::ArrowOneTable, detail).under("reads"))
    }

    /// Appends the opening of an answer to the request of that id.
    pub(super) fn open(&self, request_id: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        out.extend_from_slice(&self.opening);
        // A string of a flatbuffer is its length, its bytes and a zero; what is behind is not read.
        let mut text = [0; size_of::<u32>() + REQUEST_ID_BYTES_MAX];
        let (length, bytes) = text.split_at_mut(size_of::<u32>());
        if let Some(bytes) = bytes.get_mut(..request_id.len()) {
            bytes.copy_from_slice(request_id);
            let given = u32::try_from(request_id.len()).unwrap_or_default();
            length.copy_from_slice(&given.to_le_bytes());
        }
        let start = before.saturating_add(self.request_id);
        let place = out.get_mut(start..start.saturating_add(text.len()));
        place.unwrap_or_default().copy_from_slice(&text);
    }

    /// Bytes that it takes in memory, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let steps =
            |read: &ReadLayout| read.steps.iter().flatten().map(|steps| steps.walk.len()).sum();
        let steps: usize = self.reads.iter().map(steps).fold(0, usize::saturating_add);
        let lanes = self.kinds.len().saturating_mul(100);
        self.opening
            .len()
            .saturating_add(lanes)
            .saturating_add(steps.saturating_mul(size_of::<Step>()))
    }
}

/// The schema in the making.
struct Draft {
    kinds: Vec<Kind>,
    columns: Vec<ArrowField>,
    missing_null: bool,
}

impl Draft {
    fn read(&mut self, read: &PlannedRead, prefix: &str) -> ReadLayout {
        let first = self.kinds.len();
        let lane = |draft: &Self| draft.kinds.len().saturating_sub(first);
        for key in &read.group.keys {
            self.scalar(&format!("{prefix}{}", key.name), key.scalar, false);
        }
        let (events, fields) = if read.is_history() {
            let list = lane(self);
            (Some(list), self.events(read, prefix, first))
        } else {
            (None, self.fields(read, prefix, first))
        };
        let event_time = lane(self);
        self.column(&format!("{prefix}{EVENT_TIME}"), milliseconds(), Kind::Fixed(8), true);
        let status = lane(self);
        let words = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        self.column(&format!("{prefix}{STATUS}"), words, Kind::Fixed(1), false);
        let field_status = lane(self);
        let numbers = vector(DataType::UInt8, read.width());
        let kind = Kind::Vector(read.width());
        self.column(&format!("{prefix}{FIELD_STATUS}"), numbers, kind, false);
        self.kinds.push(Kind::Fixed(1));
        let steps = read.group.schemas.iter().map(|_| None).collect();
        let mut layout = ReadLayout {
            lanes: first..self.kinds.len(),
            events,
            fields,
            event_time,
            status,
            field_status,
            steps,
        };
        layout.steps = (0..read.group.schemas.len())
            .map(|schema| steps_of(read, &layout.fields, schema))
            .collect();
        layout
    }

    fn column(&mut self, name: &str, data_type: DataType, kind: Kind, nullable: bool) {
        self.kinds.push(kind);
        self.columns.push(ArrowField::new(name, data_type, nullable));
    }

    fn scalar(&mut self, name: &str, scalar: Scalar, nullable: bool) {
        let (data_type, kind) = scalar_type(scalar);
        self.column(name, data_type, kind, nullable);
    }

    /// One column a field.
    fn fields(&mut self, read: &PlannedRead, prefix: &str, first: usize) -> Vec<FieldLayout> {
        let mut layouts = Vec::with_capacity(read.width());
        for position in &read.positions {
            let Some(field) = read.group.current().fields.get(*position) else { continue };
            let (layout, data_type) = self.field(read, *position, field, first);
            // A row that cannot be told is null in every column.
            self.columns.push(ArrowField::new(format!("{prefix}{}", field.name), data_type, true));
            layouts.push(layout);
        }
        layouts
    }

    /// One column of lists, whose items hold the event time and the fields.
    fn events(&mut self, read: &PlannedRead, prefix: &str, first: usize) -> Vec<FieldLayout> {
        let width = read.width().saturating_add(1);
        self.kinds.extend([Kind::List, Kind::Record(width), Kind::Fixed(8)]);
        let mut members = vec![ArrowField::new(EVENT_TIME, milliseconds(), false)];
        let mut layouts = Vec::with_capacity(read.width());
        for position in &read.positions {
            let Some(field) = read.group.current().fields.get(*position) else { continue };
            let (layout, data_type) = self.field(read, *position, field, first);
            let nullable = field.nullable || self.missing_null;
            members.push(ArrowField::new(&field.name, data_type, nullable));
            layouts.push(layout);
        }
        let item = ArrowField::new("item", DataType::Struct(Fields::from(members)), false);
        let list = DataType::List(Arc::new(item));
        self.columns.push(ArrowField::new(format!("{prefix}{EVENTS}"), list, true));
        layouts
    }

    fn field(
        &mut self,
        read: &PlannedRead,
        position: usize,
        field: &Field,
        first: usize,
    ) -> (FieldLayout, DataType) {
        let lane = self.kinds.len().saturating_sub(first);
        let data_type = match field.field_type {
            FieldType::Scalar(scalar) => {
                let (data_type, kind) = scalar_type(scalar);
                self.kinds.push(kind);
                data_type
            }
            FieldType::List(item) => {
                let (data_type, kind) = scalar_type(item);
                self.kinds.extend([Kind::List, kind]);
                DataType::List(Arc::new(ArrowField::new("item", data_type, false)))
            }
            FieldType::Vector(size) => {
                let size = usize::try_from(size).unwrap_or_default();
                self.kinds.extend([Kind::Vector(size), Kind::Fixed(size_of::<f32>())]);
                vector(DataType::Float32, size)
            }
        };
        let default = read.group.current().default_at(position).ok().map(<[u8]>::to_vec);
        let default = default.filter(|_| !self.missing_null);
        (FieldLayout { lane, reading: FieldReading::of(field), default }, data_type)
    }
}

/// How bodies of one of the group's schemas are walked; None where they do not resolve.
fn steps_of(read: &PlannedRead, fields: &[FieldLayout], schema: usize) -> Option<Steps> {
    let (writer, current) = (read.group.schemas.get(schema)?, read.group.current());
    let resolution = Resolution::new(writer, current, Promotion::default()).ok()?;
    let step = |reading: &FieldReading| Step { reading: *reading, place: None };
    let mut walk: Vec<Step> = resolution.written.iter().map(step).collect();
    let mut lacking = Vec::new();
    for (field, position) in read.positions.iter().enumerate() {
        match resolution.origins.get(*position)? {
            Origin::Stored { position, reading } => {
                let place = Some((field, fields.get(field)?.lane));
                *walk.get_mut(*position)? = Step { reading: *reading, place };
            }
            Origin::Unwritten => lacking.push(field),
        }
    }
    Some(Steps { walk, lacking })
}

/// `name.`, where the name is the read's alias or its group; one met before is numbered.
fn prefix(read: &PlannedRead, taken: &mut HashMap<String, usize>) -> String {
    let name = read.alias.as_ref().unwrap_or(&read.group.name);
    let count = taken.entry(name.clone()).or_default();
    *count = count.saturating_add(1);
    if *count == 1 { format!("{name}.") } else { format!("{name}#{count}.") }
}

/// What a read's columns are, for programs that find them by meaning.
fn result(read: &PlannedRead, prefix: &str) -> String {
    let keys: Vec<String> = read.group.keys.iter().map(|key| quoted(&key.name)).collect();
    let alias =
        read.alias.as_ref().map_or_else(String::new, |alias| format!(r#""as":{},"#, quoted(alias)));
    format!(
        r#"{{"feature_group":{},{alias}"prefix":{},"keys":[{}],"fields":[{}]}}"#,
        quoted(&read.group.name),
        quoted(prefix),
        keys.join(","),
        read.labels.join(",")
    )
}

fn status_words() -> String {
    let words: Vec<String> = Status::ALL.iter().map(|status| quoted(status.word())).collect();
    format!("[{}]", words.join(","))
}

fn milliseconds() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn vector(item: DataType, size: usize) -> DataType {
    let item = Arc::new(ArrowField::new("item", item, false));
    DataType::FixedSizeList(item, i32::try_from(size).unwrap_or(i32::MAX))
}

fn scalar_type(scalar: Scalar) -> (DataType, Kind) {
    match scalar {
        Scalar::Boolean => (DataType::Boolean, Kind::Bits),
        Scalar::Integer => (DataType::Int32, Kind::Fixed(4)),
        Scalar::Long => (DataType::Int64, Kind::Fixed(8)),
        Scalar::Float => (DataType::Float32, Kind::Fixed(4)),
        Scalar::Double => (DataType::Float64, Kind::Fixed(8)),
        Scalar::Text => (DataType::Utf8, Kind::Variable),
        Scalar::Bytes => (DataType::Binary, Kind::Variable),
        Scalar::Date => (DataType::Date32, Kind::Fixed(4)),
        Scalar::Timestamp => {
            (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), Kind::Fixed(8))
        }
    }
}

/// The schema message and one dictionary message a status column.
fn opening(schema: Schema) -> Result<Vec<u8>, ArrowError> {
    let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
    let (mut tracker, mut context) = (DictionaryTracker::new(true), IpcWriteContext::default());
    let mut out = Vec::new();
    let message =
        generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut tracker, &options);
    write_message(&mut out, message, &options)?;
    let words = StringArray::from_iter_values(Status::ALL.iter().map(|status| status.word()));
    let words: ArrayRef = Arc::new(words);
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
        Ok(match field.data_type() {
            DataType::Dictionary(..) => {
                let numbers = Int8Array::from(Vec::<i8>::new());
                Arc::new(DictionaryArray::<Int8Type>::try_new(numbers, Arc::clone(&words))?)
            }
            data_type => arrow_array::new_empty_array(data_type),
        })
    });
    let columns = columns.collect::<Result<_, _>>()?;
    let batch = RecordBatch::try_new(Arc::new(schema), columns)?;
    let (dictionaries, _) = generator.encode(&batch, &mut tracker, &options, &mut context)?;
    for dictionary in dictionaries {
        write_message(&mut out, dictionary, &options)?;
    }
    Ok(out)
}
