//! Declared types and record schemas: checked once, then frozen.

use std::fmt::Write as _;

use crate::cursor::Cursor;
use crate::encode::encode_default;
use crate::error::{Error, Kind, Result};
use crate::format::VECTOR_ITEMS_MAX;
use crate::nearest::unknown;

/// A type that stands alone: every value field, list item and key field has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// `boolean`
    Boolean,
    /// `int`, 32 bit
    Integer,
    /// `long`, 64 bit
    Long,
    /// `float`
    Float,
    /// `double`
    Double,
    /// `string`
    Text,
    /// `bytes`
    Bytes,
    /// `int` with logical type `date`: days since 1970-01-01
    Date,
    /// `long` with logical type `timestamp-micros`, UTC
    Timestamp,
}

/// The type of a value field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// One value.
    Scalar(Scalar),
    /// `List<T>`: an Avro array of a scalar.
    List(Scalar),
    /// `Vector<N>`: an Avro array of exactly N floats.
    Vector(u32),
}

impl Scalar {
    /// The name in YAML.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::Long => "Long",
            Self::Float => "Float",
            Self::Double => "Double",
            Self::Text => "Text",
            Self::Bytes => "Bytes",
            Self::Date => "Date",
            Self::Timestamp => "Timestamp",
        }
    }

    /// The type of that YAML name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        const ALL: [Scalar; 9] = [
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
        ALL.into_iter().find(|scalar| scalar.name() == name)
    }

    /// The Avro primitive, as the canonical form writes it.
    #[must_use]
    pub const fn avro(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer | Self::Date => "int",
            Self::Long | Self::Timestamp => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
        }
    }

    fn write_avro(self, out: &mut String, canonical: bool) {
        let logical = match self {
            Self::Date if !canonical => "date",
            Self::Timestamp if !canonical => "timestamp-micros",
            _ => {
                push_quoted(out, self.avro());
                return;
            }
        };
        // Writing to a String cannot fail.
        let _ = write!(out, r#"{{"type":"{}","logicalType":"{logical}"}}"#, self.avro());
    }
}

impl FieldType {
    /// Reads `Long`, `List<Text>` or `Vector<64>`.
    pub fn parse(text: &str) -> Result<Self> {
        let unknown = || Error::new(Kind::Schema, format!("`{text}` is not a type"));
        if let Some(scalar) = Scalar::parse(text) {
            return Ok(Self::Scalar(scalar));
        }
        let (outer, rest) = text.split_once('<').ok_or_else(unknown)?;
        let inner = rest.strip_suffix('>').ok_or_else(unknown)?;
        match outer {
            "List" => Scalar::parse(inner).map(Self::List).ok_or_else(unknown),
            "Vector" => {
                let plain = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit());
                let size: usize = inner.parse().map_err(|_| unknown())?;
                if !plain || inner.starts_with('0') || size > VECTOR_ITEMS_MAX {
                    return Err(unknown());
                }
                u32::try_from(size).map(Self::Vector).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }

    /// The name in YAML.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Scalar(scalar) => scalar.name().to_owned(),
            Self::List(item) => format!("List<{}>", item.name()),
            Self::Vector(size) => format!("Vector<{size}>"),
        }
    }

    fn write_avro(self, out: &mut String, canonical: bool) {
        match self {
            Self::Scalar(scalar) => scalar.write_avro(out, canonical),
            Self::List(item) => {
                out.push_str(r#"{"type":"array","items":"#);
                item.write_avro(out, canonical);
                out.push('}');
            }
            Self::Vector(_) => out.push_str(r#"{"type":"array","items":"float"}"#),
        }
    }
}

/// One value field of one schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Given once by `apply`, never used again for another field.
    pub id: u16,
    /// Name in YAML, JSON and Avro.
    pub name: String,
    /// Declared type.
    pub field_type: FieldType,
    /// Whether null is a value.
    pub nullable: bool,
    /// The default in the form answers print it; `Null` for a nullable field without one.
    pub default: serde_json::Value,
}

impl Field {
    /// Whether its values, or the items of its lists, are a Date or a Timestamp.
    #[must_use]
    pub const fn is_time(&self) -> bool {
        use Scalar::{Date, Timestamp};
        matches!(
            self.field_type,
            FieldType::Scalar(Date | Timestamp) | FieldType::List(Date | Timestamp)
        )
    }

    /// The Avro schema of this field's values alone, which is how a patch is encoded.
    #[must_use]
    pub fn avro_schema(&self, canonical: bool) -> String {
        let mut out = String::new();
        self.write_avro(&mut out, canonical);
        out
    }

    fn write_avro(&self, out: &mut String, canonical: bool) {
        if self.nullable {
            out.push_str(r#"["null","#);
            self.field_type.write_avro(out, canonical);
            out.push(']');
        } else {
            self.field_type.write_avro(out, canonical);
        }
    }
}

/// A record schema as it was registered: the value fields in schema order.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSchema {
    /// 1 for the first schema of a group.
    pub ordinal: u32,
    /// Value fields in schema order.
    pub fields: Vec<Field>,
    /// CRC-64-AVRO of the canonical form, as it stands in single-object headers (LE there).
    pub fingerprint: u64,
    /// The full Avro schema, with logical types and defaults, as JSON text.
    pub avro: String,
    /// CRC-64-AVRO of each field's own type, in schema order: what its patch cells carry.
    pub patch_fingerprints: Vec<u64>,
    /// Each field's default as Avro, in schema order; None for a field that has none.
    pub defaults: Vec<Option<Vec<u8>>>,
    /// Positions of the fields, ascending by field id.
    pub by_id: Vec<usize>,
    /// Whether schema order is ascending by field id.
    pub in_id_order: bool,
}

impl RecordSchema {
    /// Names, checks and fingerprints a schema of the group `domain::name`.
    pub fn new(group: &str, ordinal: u32, fields: Vec<Field>) -> Result<Self> {
        let (domain, name) = group
            .split_once("::")
            .ok_or_else(|| Error::new(Kind::Schema, format!("`{group}` is not domain::name")))?;
        let namespace = format!("headrace.{}.s{ordinal}", domain.replace('-', "_"));
        let name = name.replace('-', "_");
        let defaults = fields.iter().map(default_of).collect::<Result<Vec<_>>>()?;
        let avro = record_avro(&namespace, &name, &fields, Some(&defaults))?;
        let canonical = record_avro(&namespace, &name, &fields, None)?;
        let fingerprint = fingerprint(canonical.as_bytes());
        let patch_fingerprints = fields
            .iter()
            .map(|field| self::fingerprint(field.avro_schema(true).as_bytes()))
            .collect();
        let mut by_id: Vec<usize> = (0..fields.len()).collect();
        by_id.sort_by_key(|position| fields.get(*position).map(|field| field.id));
        let in_id_order = by_id.is_sorted();
        Ok(Self {
            ordinal,
            fields,
            fingerprint,
            avro,
            patch_fingerprints,
            defaults,
            by_id,
            in_id_order,
        })
    }

    /// Positions of fields by name, in the given order; None is all in schema order.
    pub fn positions(&self, names: Option<&[String]>) -> Result<Vec<usize>> {
        let Some(names) = names else { return Ok((0..self.fields.len()).collect()) };
        names
            .iter()
            .map(|name| {
                self.fields.iter().position(|field| field.name == *name).ok_or_else(|| {
                    let known = self.fields.iter().map(|field| field.name.as_str());
                    Error::new(Kind::UnknownField, unknown("field", name, known))
                })
            })
            .collect()
    }

    /// The default of the field at a position, as Avro; [`Kind::Schema`] when it has none.
    pub fn default_at(&self, position: usize) -> Result<&[u8]> {
        self.defaults.get(position).and_then(Option::as_deref).ok_or_else(|| {
            let name = self.fields.get(position).map_or("?", |field| field.name.as_str());
            Error::new(Kind::Schema, "the field has neither a default nor null").under(name)
        })
    }

    /// Position of a field id.
    #[must_use]
    pub fn position(&self, id: u16) -> Option<usize> {
        self.fields.iter().position(|field| field.id == id)
    }
}

/// The default as Avro; None for a field without one, which is not nullable then.
fn default_of(field: &Field) -> Result<Option<Vec<u8>>> {
    if field.default.is_null() && !field.nullable {
        return Ok(None);
    }
    encode_default(field).map(Some)
}

/// The schema text: in full with these defaults, or without any the canonical form.
fn record_avro(
    namespace: &str,
    name: &str,
    fields: &[Field],
    defaults: Option<&[Option<Vec<u8>>]>,
) -> Result<String> {
    // Canonical form: full name, then type, then fields, no defaults, no logical types
    // (Avro specification 1.12, "Parsing Canonical Form for Schemas").
    let mut out = String::new();
    if defaults.is_none() {
        let _ = write!(out, r#"{{"name":"{namespace}.{name}","type":"record","fields":["#);
    } else {
        let _ = write!(
            out,
            r#"{{"type":"record","name":"{name}","namespace":"{namespace}","fields":["#
        );
    }
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, r#"{{"name":"{}","type":"#, field.name);
        field.write_avro(&mut out, defaults.is_none());
        if let Some(Some(default)) = defaults.and_then(|defaults| defaults.get(index)) {
            out.push_str(r#","default":"#);
            push_default(field, default, &mut out)?;
        }
        out.push('}');
    }
    out.push_str("]}");
    Ok(out)
}

/// Appends a default as Avro's JSON encoding of defaults has it: a value of the union's own branch
/// without a wrapper, Bytes as text of the code points 0 to 255, Date and Timestamp as numbers
/// (Avro specification 1.12, "Complex Types: Records").
fn push_default(field: &Field, default: &[u8], out: &mut String) -> Result<()> {
    let mut cursor = Cursor::new(default);
    if field.nullable && cursor.byte()? == 0 {
        out.push_str("null");
        return Ok(());
    }
    let item = match field.field_type {
        FieldType::Scalar(scalar) => return push_default_scalar(scalar, &mut cursor, out),
        FieldType::List(item) => item,
        FieldType::Vector(_) => Scalar::Float,
    };
    let count = cursor.varint()?;
    out.push('[');
    for index in 0..count {
        if index > 0 {
            out.push(',');
        }
        push_default_scalar(item, &mut cursor, out)?;
    }
    out.push(']');
    Ok(())
}

fn push_default_scalar(scalar: Scalar, cursor: &mut Cursor<'_>, out: &mut String) -> Result<()> {
    let _ = match scalar {
        Scalar::Boolean => write!(out, "{}", cursor.byte()? == 1),
        Scalar::Integer | Scalar::Long | Scalar::Date | Scalar::Timestamp => {
            write!(out, "{}", cursor.varint()?)
        }
        Scalar::Float => {
            let value = f32::from_le_bytes(cursor.array()?);
            write!(out, "{}", zmij::Buffer::new().format_finite(value))
        }
        Scalar::Double => {
            let value = f64::from_le_bytes(cursor.array()?);
            write!(out, "{}", zmij::Buffer::new().format_finite(value))
        }
        Scalar::Text => {
            let length = cursor.length()?;
            let text = String::from_utf8_lossy(cursor.take(length)?);
            write!(out, "{}", serde_json::Value::from(text))
        }
        Scalar::Bytes => {
            let length = cursor.length()?;
            let text: String = cursor.take(length)?.iter().map(|byte| char::from(*byte)).collect();
            write!(out, "{}", serde_json::Value::from(text))
        }
    };
    Ok(())
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// CRC-64-AVRO (Rabin) of a canonical schema text; Avro specification 1.12, "Schema Fingerprints".
#[must_use]
pub fn fingerprint(canonical: &[u8]) -> u64 {
    canonical.iter().fold(EMPTY, |crc, byte| {
        let low = u8::try_from(crc & 0xFF).unwrap_or_default();
        let mut row = u64::from(low ^ byte);
        for _ in 0..8 {
            row = (row >> 1) ^ (EMPTY & (row & 1).wrapping_neg());
        }
        (crc >> 8) ^ row
    })
}

/// The empty fingerprint and the polynomial of CRC-64-AVRO.
const EMPTY: u64 = 0xC15D_213A_A4D7_A795;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_of_primitives_are_those_of_the_specification() {
        // Values published in Avro's shared test data (schema-tests.txt) for "null" and "int".
        assert_eq!(fingerprint(br#""null""#), 7_195_948_357_588_979_594);
        assert_eq!(fingerprint(br#""int""#), 8_247_732_601_305_521_295);
    }

    #[test]
    fn types_read_back_from_their_names() {
        for name in ["Boolean", "Long", "List<Text>", "Vector<64>"] {
            assert_eq!(FieldType::parse(name).map(FieldType::name), Ok(name.to_owned()));
        }
        for name in ["long", "List<List<Text>>", "Vector<0>", "Vector<+1>", "Vector<99999>", ""] {
            assert!(FieldType::parse(name).is_err(), "{name}");
        }
    }
}
