//! Random schemas and values, and an Avro encoder of their own for the tests to stand on.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    missing_docs,
    reason = "a panic is a failed test, and each test file uses its own part"
)]

use std::sync::Arc;

use headrace_codec::catalog::{Catalog, Group};
use headrace_codec::cell;
use headrace_codec::cursor::write_varint;
use headrace_codec::decode::{Sink, decode};
use headrace_codec::error::Error;
use headrace_codec::schema::{Field, FieldType, RecordSchema, Scalar};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// A value with floats as bits, so that equality is equality of bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    Integer(i32),
    Long(i64),
    Float(u32),
    Double(u64),
    Text(String),
    Bytes(Vec<u8>),
    Date(i32),
    Timestamp(i64),
    List(Vec<Value>),
}

pub(crate) const SCALARS: [Scalar; 9] = [
    Scalar::Boolean,
    Scalar::Integer,
    Scalar::Long,
    Scalar::Float,
    Scalar::Double,
    Scalar::Text,
    Scalar::Bytes,
    Scalar::Date,
    Scalar::Timestamp,
];

pub(crate) fn any_type() -> impl Strategy<Value = FieldType> {
    let scalar = || proptest::sample::select(&SCALARS[..]);
    prop_oneof![
        4 => scalar().prop_map(FieldType::Scalar),
        2 => scalar().prop_map(FieldType::List),
        1 => (1_u32..5).prop_map(FieldType::Vector),
    ]
}

fn any_scalar(scalar: Scalar) -> BoxedStrategy<Value> {
    match scalar {
        Scalar::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Scalar::Integer => integers().prop_map(Value::Integer).boxed(),
        Scalar::Long => longs().prop_map(Value::Long).boxed(),
        Scalar::Float => floats().prop_map(Value::Float).boxed(),
        Scalar::Double => doubles().prop_map(Value::Double).boxed(),
        Scalar::Text => texts().prop_map(Value::Text).boxed(),
        Scalar::Bytes => vec(any::<u8>(), 0..40).prop_map(Value::Bytes).boxed(),
        Scalar::Date => integers().prop_map(Value::Date).boxed(),
        Scalar::Timestamp => longs().prop_map(Value::Timestamp).boxed(),
    }
}

fn integers() -> BoxedStrategy<i32> {
    prop_oneof![any::<i32>(), -200_i32..200, Just(i32::MIN), Just(i32::MAX)].boxed()
}

fn longs() -> BoxedStrategy<i64> {
    let powers = (0_u32..63).prop_flat_map(|bit| {
        let power = 1_i64 << bit;
        prop_oneof![Just(power - 1), Just(power), Just(-power), Just(-power - 1)]
    });
    prop_oneof![any::<i64>(), -200_i64..200, powers, Just(i64::MIN), Just(i64::MAX)].boxed()
}

fn floats() -> BoxedStrategy<u32> {
    let plain = (-999_i16..999).prop_map(|it| (f32::from(it) / 8.0).to_bits());
    let special = [0, 0x8000_0000, 1, 0x7F7F_FFFF, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000];
    prop_oneof![any::<u32>(), plain, proptest::sample::select(special.to_vec())].boxed()
}

fn doubles() -> BoxedStrategy<u64> {
    let plain = (-9999_i32..9999).prop_map(|it| (f64::from(it) / 100.0).to_bits());
    let special = [0.0, -0.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NAN, 5e-324, 1e16];
    let special = special.map(f64::to_bits).to_vec();
    prop_oneof![any::<u64>(), plain, proptest::sample::select(special)].boxed()
}

fn texts() -> BoxedStrategy<String> {
    let mixed = vec(
        prop_oneof![
            8 => proptest::char::range(' ', '~'),
            1 => proptest::char::range('\u{0}', '\u{1F}'),
            1 => Just('"'),
            1 => Just('\\'),
            1 => proptest::char::range('\u{7F}', '\u{7FF}'),
            1 => proptest::char::range('\u{1_0000}', '\u{10_FFFF}'),
        ],
        0..60,
    );
    prop_oneof![3 => mixed.prop_map(String::from_iter), 2 => "[a-z]{0,40}", 1 => any::<String>()]
        .boxed()
}

pub(crate) fn any_value(field_type: FieldType, nullable: bool) -> BoxedStrategy<Value> {
    let value = match field_type {
        FieldType::Scalar(scalar) => any_scalar(scalar),
        FieldType::List(item) => vec(any_scalar(item), 0..6).prop_map(Value::List).boxed(),
        FieldType::Vector(size) => {
            vec(any_scalar(Scalar::Float), size as usize).prop_map(Value::List).boxed()
        }
    };
    if nullable { prop_oneof![1 => Just(Value::Null), 3 => value].boxed() } else { value }
}

/// A default of the type, in the form answers print.
pub(crate) fn default_of(field_type: FieldType) -> Json {
    match field_type {
        FieldType::Scalar(scalar) => match scalar {
            Scalar::Boolean => json!(true),
            Scalar::Integer | Scalar::Long => json!(-7),
            Scalar::Float | Scalar::Double => json!(0.5),
            Scalar::Text => json!("none \"at\" all"),
            Scalar::Bytes => json!("AP8="),
            Scalar::Date => json!("2024-02-29"),
            Scalar::Timestamp => json!("2024-02-29T23:59:59.000001Z"),
        },
        FieldType::List(item) => json!([default_of(FieldType::Scalar(item))]),
        FieldType::Vector(size) => json!(vec![0.5; size as usize]),
    }
}

/// The value of [`default_of`].
pub(crate) fn default_value(field_type: FieldType) -> Value {
    match field_type {
        FieldType::Scalar(scalar) => match scalar {
            Scalar::Boolean => Value::Boolean(true),
            Scalar::Integer => Value::Integer(-7),
            Scalar::Long => Value::Long(-7),
            Scalar::Float => Value::Float(0.5_f32.to_bits()),
            Scalar::Double => Value::Double(0.5_f64.to_bits()),
            Scalar::Text => Value::Text("none \"at\" all".to_owned()),
            Scalar::Bytes => Value::Bytes(vec![0, 255]),
            Scalar::Date => Value::Date(19_782),
            Scalar::Timestamp => Value::Timestamp(1_709_251_199_000_001),
        },
        FieldType::List(item) => Value::List(vec![default_value(FieldType::Scalar(item))]),
        FieldType::Vector(size) => {
            Value::List(vec![Value::Float(0.5_f32.to_bits()); size as usize])
        }
    }
}

pub(crate) fn field(id: u16, field_type: FieldType, nullable: bool) -> Field {
    let default = if nullable { Json::Null } else { default_of(field_type) };
    Field { id, name: format!("field_{id}"), field_type, nullable, default }
}

/// Fields with values, ids from 1.
pub(crate) fn any_record() -> impl Strategy<Value = (Vec<Field>, Vec<Value>)> {
    vec((any_type(), any::<bool>()), 1..9).prop_flat_map(|types| {
        let fields: Vec<Field> = (1_u16..)
            .zip(&types)
            .map(|(id, (field_type, nullable))| field(id, *field_type, *nullable))
            .collect();
        let values: Vec<_> =
            types.iter().map(|(field_type, nullable)| any_value(*field_type, *nullable)).collect();
        (Just(fields), values)
    })
}

pub(crate) fn schema(fields: Vec<Field>) -> RecordSchema {
    RecordSchema::new("live::host", 1, fields).unwrap()
}

/// The Avro bytes of one field.
pub(crate) fn encode(value: &Value, field: &Field, out: &mut Vec<u8>) {
    if field.nullable {
        out.push(if *value == Value::Null { 0 } else { 2 });
    }
    encode_bare(value, out);
}

fn encode_bare(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => {}
        Value::Boolean(value) => out.push(u8::from(*value)),
        Value::Integer(value) | Value::Date(value) => write_varint(out, i64::from(*value)),
        Value::Long(value) | Value::Timestamp(value) => write_varint(out, *value),
        Value::Float(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Double(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Text(value) => encode_bare(&Value::Bytes(value.as_bytes().to_vec()), out),
        Value::Bytes(value) => {
            write_varint(out, i64::try_from(value.len()).unwrap());
            out.extend_from_slice(value);
        }
        Value::List(items) => {
            if !items.is_empty() {
                write_varint(out, i64::try_from(items.len()).unwrap());
            }
            for item in items {
                encode_bare(item, out);
            }
            out.push(0);
        }
    }
}

pub(crate) fn body_of(fields: &[Field], values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in fields.iter().zip(values) {
        encode(value, field, &mut out);
    }
    out
}

pub(crate) fn sealed(write_timestamp: i64, fingerprint: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cell::seal(&mut out, write_timestamp, fingerprint, body);
    out
}

/// A group `live::host` of these schemas, oldest first.
pub(crate) fn group(schemas: &[Vec<Field>], ttl_ms: Option<i64>) -> Arc<Group> {
    let schemas: Vec<Json> = (1..)
        .zip(schemas)
        .map(|(ordinal, fields)| {
            let fields: Vec<Json> = fields
                .iter()
                .map(|field| {
                    json!({"id": field.id, "name": field.name, "type": field.field_type.name(),
                           "nullable": field.nullable, "default": field.default})
                })
                .collect();
            json!({"ordinal": ordinal, "fields": fields})
        })
        .collect();
    let document = json!({"format": 1, "generation": 1, "groups": [{
        "id": 7, "name": "live::host", "feature_type": "Object", "ttl_ms": ttl_ms,
        "max_age_ms": null, "max_events": 100, "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
        "keys": [{"name": "host", "type": "Long"}], "schemas": schemas}]});
    let catalog = Catalog::from_json(document.to_string().as_bytes()).unwrap();
    Arc::clone(catalog.group("live::host").unwrap())
}

/// Collects values.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) values: Vec<Value>,
    list: Option<Vec<Value>>,
}

impl Values {
    fn push(&mut self, value: Value) {
        self.list.as_mut().unwrap_or(&mut self.values).push(value);
    }

    /// What a body holds, as its writer's schema reads it.
    pub(crate) fn of(schema: &RecordSchema, body: &[u8]) -> Result<Vec<Value>, Error> {
        let mut sink = Self::default();
        decode(schema, body, &mut sink)?;
        Ok(sink.values)
    }
}

macro_rules! collect {
    ($($method:ident($type:ty) => $make:expr;)*) => {
        $(fn $method(&mut self, value: $type) -> Result<(), Error> {
            self.push($make(value));
            Ok(())
        })*
    };
}

impl Sink for Values {
    type Error = Error;
    collect! {
        boolean(bool) => Value::Boolean;
        integer(i32) => Value::Integer;
        long(i64) => Value::Long;
        float(f32) => |it: f32| Value::Float(it.to_bits());
        double(f64) => |it: f64| Value::Double(it.to_bits());
        text(&str) => |it: &str| Value::Text(it.to_owned());
        bytes(&[u8]) => |it: &[u8]| Value::Bytes(it.to_vec());
        date(i32) => Value::Date;
        timestamp(i64) => Value::Timestamp;
    }
    fn null(&mut self) -> Result<(), Error> {
        self.push(Value::Null);
        Ok(())
    }
    fn begin_list(&mut self) -> Result<(), Error> {
        self.list = Some(Vec::new());
        Ok(())
    }
    fn end_list(&mut self) -> Result<(), Error> {
        let items = self.list.take().unwrap();
        self.push(Value::List(items));
        Ok(())
    }
}
