//! What a quick walk does with one field, decided once.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{ROOM, put};
use super::take::{Stop, Walk};
use super::walk::FIELD_ROOM;
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;

/// What a step does; the loop dispatches on it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Prints what stands where nothing was written.
    Constant,
    Boolean,
    Integer,
    Long,
    Float,
    Double,
    Text,
    /// Prints any other type.
    Other,
    SkipBoolean,
    SkipInteger,
    SkipLong,
    SkipFloat,
    SkipDouble,
    SkipText,
    /// Moves past any other type.
    SkipOther,
}

/// One step of a walk: small, because a wide writer has many that only skip.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// Whether a union index stands before the value.
    pub(super) nullable: bool,
    /// Whether null is a value.
    pub(super) null_allowed: bool,
    /// Longs print as strings.
    pub(super) quoted: bool,
    pub(super) shape: Shape,
    /// Position in the writer's schema.
    pub(super) position: u32,
    /// Position in the request.
    pub(super) column: u32,
    /// Where the place of its value is kept when fields are not asked for in order; 0: nowhere.
    pub(super) slot: u32,
}

impl Step {
    pub(super) const fn constant(column: u32) -> Self {
        Self {
            kind: Kind::Constant,
            nullable: false,
            null_allowed: true,
            quoted: false,
            shape: Shape::Scalar(Reading::Same(Scalar::Boolean)),
            position: 0,
            column,
            slot: 0,
        }
    }

    pub(super) const fn show(
        reading: FieldReading,
        quoted: bool,
        position: u32,
        column: u32,
    ) -> Self {
        let FieldReading { shape, nullable, null_allowed } = reading;
        let kind = match shape {
            Shape::Scalar(Reading::Same(Scalar::Boolean)) => Kind::Boolean,
            Shape::Scalar(Reading::Same(Scalar::Integer)) => Kind::Integer,
            Shape::Scalar(Reading::Same(Scalar::Long)) if !quoted => Kind::Long,
            Shape::Scalar(Reading::Same(Scalar::Float)) => Kind::Float,
            Shape::Scalar(Reading::Same(Scalar::Double)) => Kind::Double,
            Shape::Scalar(Reading::Same(Scalar::Text)) => Kind::Text,
            _ => Kind::Other,
        };
        Self { kind, nullable, null_allowed, quoted, shape, position, column, slot: 0 }
    }

    pub(super) const fn skip(reading: FieldReading, slot: u32) -> Self {
        let FieldReading { shape, nullable, null_allowed } = reading;
        let kind = match shape {
            Shape::Scalar(scalar) => match scalar.stored() {
                Scalar::Boolean => Kind::SkipBoolean,
                Scalar::Integer | Scalar::Date => Kind::SkipInteger,
                Scalar::Long | Scalar::Timestamp => Kind::SkipLong,
                Scalar::Float => Kind::SkipFloat,
                Scalar::Double => Kind::SkipDouble,
                Scalar::Text | Scalar::Bytes => Kind::SkipText,
            },
            Shape::List(_) | Shape::Vector(_) => Kind::SkipOther,
        };
        Self { kind, nullable, null_allowed, quoted: false, shape, position: 0, column: 0, slot }
    }

    /// Whether it prints nothing.
    #[inline(always)]
    pub(super) const fn is_skip(&self) -> bool {
        self.kind as u8 >= Kind::SkipBoolean as u8
    }
}

/// `,"name":`, padded to a fixed size of which the last byte is the length.
#[derive(Debug, Clone)]
pub(super) struct Label([u8; ROOM]);

impl Label {
    /// The label of a name with its quotes and its colon; None when it is too long.
    pub(super) fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [b','; ROOM];
        let length = u8::try_from(name.len()).ok()?.checked_add(1)?;
        let (last, text) = bytes.split_last_mut()?;
        *last = length;
        text.get_mut(1..usize::from(length))?.copy_from_slice(name);
        Some(Self(bytes))
    }

    /// Writes it and gives its length.
    #[inline(always)]
    pub(super) fn write(&self, window: &mut [u8; FIELD_ROOM]) -> Walk<usize> {
        let place = window.first_chunk_mut::<ROOM>().ok_or(Stop)?;
        let [.., length] = self.0;
        if length <= 32 {
            let (head, _) = self.0.split_first_chunk::<32>().ok_or(Stop)?;
            put(place, 0, *head);
        } else {
            *place = self.0;
        }
        Ok(usize::from(length))
    }
}
