//! From a writer's schema to the current one: which field comes from where, and how it is read.
//!
//! Fields are matched by id, never by name or position. A field that the writer lacks is never
//! written; one that the current schema dropped is skipped. Numbers widen as Avro resolves them
//! (specification 1.12, "Schema Resolution"), except that long to float or double loses digits and
//! therefore happens only when it is asked for.

use crate::error::{Error, Kind, Result};
use crate::schema::{Field, FieldType, RecordSchema, Scalar};

/// Which changes of a number's type are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Promotion {
    /// int → long, float, double; float → double.
    #[default]
    Exact,
    /// Also long → float and double, which rounds beyond 24 or 53 bits.
    Rounding,
}

/// How one scalar of the writer is read as one of the current schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As it was written.
    Same(Scalar),
    /// int → long
    IntegerToLong,
    /// int → float
    IntegerToFloat,
    /// int → double
    IntegerToDouble,
    /// long → float
    LongToFloat,
    /// long → double
    LongToDouble,
    /// float → double
    FloatToDouble,
}

impl Reading {
    /// The reading between two scalars, None when there is none.
    #[must_use]
    pub const fn between(writer: Scalar, current: Scalar, promotion: Promotion) -> Option<Self> {
        Some(match (writer, current) {
            (Scalar::Integer, Scalar::Long) => Self::IntegerToLong,
            (Scalar::Integer, Scalar::Float) => Self::IntegerToFloat,
            (Scalar::Integer, Scalar::Double) => Self::IntegerToDouble,
            (Scalar::Float, Scalar::Double) => Self::FloatToDouble,
            (Scalar::Long, Scalar::Float) if matches!(promotion, Promotion::Rounding) => {
                Self::LongToFloat
            }
            (Scalar::Long, Scalar::Double) if matches!(promotion, Promotion::Rounding) => {
                Self::LongToDouble
            }
            (Scalar::Boolean, Scalar::Boolean)
            | (Scalar::Integer, Scalar::Integer)
            | (Scalar::Long, Scalar::Long)
            | (Scalar::Float, Scalar::Float)
            | (Scalar::Double, Scalar::Double)
            | (Scalar::Text, Scalar::Text)
            | (Scalar::Bytes, Scalar::Bytes)
            | (Scalar::Date, Scalar::Date)
            | (Scalar::Timestamp, Scalar::Timestamp) => Self::Same(writer),
            _ => return None,
        })
    }

    /// The writer's scalar, which says how many bytes there are.
    #[must_use]
    pub const fn stored(self) -> Scalar {
        match self {
            Self::Same(scalar) => scalar,
            Self::IntegerToLong | Self::IntegerToFloat | Self::IntegerToDouble => Scalar::Integer,
            Self::LongToFloat | Self::LongToDouble => Scalar::Long,
            Self::FloatToDouble => Scalar::Float,
        }
    }
}

/// What the bytes of a field hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    Scalar(Reading),
    /// An array of them.
    List(Reading),
    /// An array of exactly so many floats.
    Vector(u32),
}

/// How a field's stored bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldReading {
    /// What the bytes hold after the union's index.
    pub shape: Shape,
    /// Whether a union index stands before the value.
    pub nullable: bool,
    /// Whether null is a value now; a stored null of a field that no longer takes it counts as
    /// never written.
    pub null_allowed: bool,
}

impl FieldReading {
    /// Reads a field as it was written.
    #[must_use]
    pub const fn of(field: &Field) -> Self {
        let shape = match field.field_type {
            FieldType::Scalar(scalar) => Shape::Scalar(Reading::Same(scalar)),
            FieldType::List(item) => Shape::List(Reading::Same(item)),
            FieldType::Vector(size) => Shape::Vector(size),
        };
        Self { shape, nullable: field.nullable, null_allowed: field.nullable }
    }

    /// Reads a field of the writer as the current field of the same id.
    pub fn between(writer: &Field, current: &Field, promotion: Promotion) -> Result<Self> {
        let shape = match (writer.field_type, current.field_type) {
            (FieldType::Scalar(from), FieldType::Scalar(to)) => {
                Reading::between(from, to, promotion).map(Shape::Scalar)
            }
            (FieldType::List(from), FieldType::List(to)) => {
                Reading::between(from, to, promotion).map(Shape::List)
            }
            (FieldType::Vector(from), FieldType::Vector(to)) if from == to => {
                Some(Shape::Vector(from))
            }
            _ => None,
        };
        let shape = shape.ok_or_else(|| {
            Error::new(
                Kind::Schema,
                format!(
                    "stored `{}` cannot be read as `{}`",
                    writer.field_type.name(),
                    current.field_type.name()
                ),
            )
            .under(&current.name)
        })?;
        Ok(Self { shape, nullable: writer.nullable, null_allowed: current.nullable })
    }

    /// Whether the stored bytes are also the bytes of the current field.
    #[must_use]
    pub fn is_verbatim(&self) -> bool {
        let same = match self.shape {
            Shape::Scalar(reading) | Shape::List(reading) => {
                matches!(reading, Reading::Same(_) | Reading::IntegerToLong)
            }
            Shape::Vector(_) => true,
        };
        same && self.nullable == self.null_allowed
    }
}

/// Where a field of the current schema comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The field at this position of the writer's schema.
    Stored {
        /// Position in the writer's schema.
        position: usize,
        /// How its bytes are read.
        reading: FieldReading,
    },
    /// The writer lacks it.
    Unwritten,
}

/// The origins of all fields of the current schema, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// One origin a current field.
    pub origins: Vec<Origin>,
    /// How to read each field of the writer, for walking its body.
    pub written: Vec<FieldReading>,
}

impl Resolution {
    /// Resolves a writer's schema against the current one.
    ///
    /// Fails with [`Kind::Schema`] when a field changed to a type that its stored bytes do not
    /// widen to.
    pub fn new(
        writer: &RecordSchema,
        current: &RecordSchema,
        promotion: Promotion,
    ) -> Result<Self> {
        let origins = current.fields.iter().map(|field| origin(writer, field, promotion));
        Ok(Self {
            origins: origins.collect::<Result<_>>()?,
            written: writer.fields.iter().map(FieldReading::of).collect(),
        })
    }
}

fn origin(writer: &RecordSchema, field: &Field, promotion: Promotion) -> Result<Origin> {
    let Some(position) = writer.position(field.id) else { return Ok(Origin::Unwritten) };
    let Some(stored) = writer.fields.get(position) else { return Ok(Origin::Unwritten) };
    let reading = FieldReading::between(stored, field, promotion)?;
    Ok(Origin::Stored { position, reading })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn field(id: u16, field_type: &str) -> Field {
        Field {
            id,
            name: format!("f{id}"),
            field_type: FieldType::parse(field_type).unwrap(),
            nullable: false,
            default: serde_json::Value::Null,
        }
    }

    fn schema(ordinal: u32, fields: Vec<Field>) -> RecordSchema {
        RecordSchema::new("live::host", ordinal, fields).unwrap()
    }

    #[test]
    fn fields_are_matched_by_id_whatever_their_order_and_name() {
        let writer = schema(1, vec![field(1, "Long"), field(2, "Text"), field(3, "Boolean")]);
        let mut renamed = field(3, "Boolean");
        renamed.name = "other".to_owned();
        let current = schema(2, vec![renamed, field(4, "Text"), field(1, "Long")]);
        let resolution = Resolution::new(&writer, &current, Promotion::Exact).unwrap();
        let positions: Vec<Option<usize>> = resolution
            .origins
            .iter()
            .map(|origin| match origin {
                Origin::Stored { position, .. } => Some(*position),
                Origin::Unwritten => None,
            })
            .collect();
        assert_eq!(positions, [Some(2), None, Some(0)]);
    }

    #[test]
    fn long_becomes_double_only_when_rounding_is_asked_for() {
        let writer = schema(1, vec![field(1, "Long")]);
        let current = schema(2, vec![field(1, "Double")]);
        let refused = Resolution::new(&writer, &current, Promotion::Exact).unwrap_err();
        assert_eq!((refused.kind, refused.path()), (Kind::Schema, "f1".to_owned()));
        assert!(Resolution::new(&writer, &current, Promotion::Rounding).is_ok());
    }

    #[test]
    fn only_numbers_widen() {
        let widens = [("Integer", "Long"), ("Integer", "Double"), ("Float", "Double")];
        for from in ["Boolean", "Integer", "Long", "Float", "Double", "Text", "Bytes", "Date"] {
            for to in ["Boolean", "Integer", "Long", "Float", "Double", "Text", "Bytes", "Date"] {
                let allowed = from == to
                    || widens.contains(&(from, to))
                    || (from, to) == ("Integer", "Float");
                let writer = schema(1, vec![field(1, &format!("List<{from}>"))]);
                let current = schema(2, vec![field(1, &format!("List<{to}>"))]);
                let outcome = Resolution::new(&writer, &current, Promotion::Exact);
                assert_eq!(outcome.is_ok(), allowed, "{from} to {to}");
            }
        }
    }
}
