//! Arrow arrays as values of fields.
//!
//! | field | Arrow types |
//! | --- | --- |
//! | Boolean | bool |
//! | Integer, Long | int8…int64, uint8…uint64, decimal128 of scale 0 (what `DuckDB` makes of a sum) |
//! | Float, Double | float32, float64, the integers, decimal128 |
//! | Text | utf8, `large_utf8`, `utf8_view` |
//! | Bytes | binary, `large_binary`, `binary_view`, `fixed_size_binary` |
//! | Date | date32, date64 |
//! | Timestamp | timestamp of any unit, in whole microseconds; without a zone it is UTC |
//! | `List<T>`, `Vector<N>` | list, `large_list`, `fixed_size_list` of a type that the item takes |
//!
//! Each may be dictionary-encoded; a nullable field takes a column of type null too. Types are
//! resolved once a batch; what depends on a value (range, size, NaN) is checked when it is written.

use std::borrow::Cow;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    FixedSizeBinaryArray, FixedSizeListArray, LargeBinaryArray, LargeListArray, LargeStringArray,
    ListArray, StringArray, StringViewArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, TimeUnit};

use crate::cursor::write_varint;
use crate::error::{Error, Kind, Result};
use crate::format::{DATE_MAX_DAYS, DATE_MIN_DAYS, DAY_MICROS, LIST_ITEMS_MAX, TEXT_BYTES_MAX};
use crate::schema::{Field, FieldType, Scalar};

const DAY_MS: i64 = 86_400_000;

/// One column of one batch, its type resolved.
pub(super) struct Column<'b> {
    nulls: Option<NullBuffer>,
    /// Where each row's value stands, for a dictionary.
    places: Option<Vec<usize>>,
    values: Values<'b>,
}

enum Values<'b> {
    Nulls,
    Booleans(&'b BooleanArray),
    Integers(Integers<'b>),
    Floats(&'b [f32]),
    Doubles(&'b [f64]),
    Texts(Texts<'b>),
    Lists(Bounds<'b>, Box<Column<'b>>),
}

enum Integers<'b> {
    Signed(Cow<'b, [i64]>),
    Unsigned(&'b [u64]),
    Decimals(&'b Decimal128Array),
    /// Times of a coarser unit.
    Multiplied(&'b [i64], i64),
    /// Times of a finer unit; exact, or rounded down.
    Divided(&'b [i64], i64, Rest),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Refused,
    Dropped,
}

enum Texts<'b> {
    Utf8(&'b StringArray),
    LargeUtf8(&'b LargeStringArray),
    Utf8View(&'b StringViewArray),
    Binary(&'b BinaryArray),
    LargeBinary(&'b LargeBinaryArray),
    BinaryView(&'b BinaryViewArray),
    FixedSizeBinary(&'b FixedSizeBinaryArray),
}

enum Bounds<'b> {
    List(&'b ListArray),
    LargeList(&'b LargeListArray),
    FixedSizeList(&'b FixedSizeListArray),
}

impl<'b> Column<'b> {
    /// Resolves an array for a field of that type; fails when the field does not take it.
    pub(super) fn new(array: &'b ArrayRef, field_type: FieldType) -> Result<Self> {
        let values = |array: &'b ArrayRef| match field_type {
            FieldType::Scalar(scalar) => scalars(array, scalar),
            FieldType::List(item) => lists(array, item),
            FieldType::Vector(_) => lists(array, Scalar::Float),
        };
        Self::resolve(array, values, &field_type.name())
    }

    /// Resolves an array of event times in milliseconds.
    pub(super) fn event_time(array: &'b ArrayRef) -> Result<Self> {
        let values = |array: &'b ArrayRef| match array.data_type() {
            DataType::Timestamp(..) => times(array, 1000, Rest::Dropped),
            _ => scalars(array, Scalar::Long),
        };
        Self::resolve(array, values, "an event time")
    }

    fn resolve(
        array: &'b ArrayRef,
        values: impl Fn(&'b ArrayRef) -> Option<Values<'b>>,
        name: &str,
    ) -> Result<Self> {
        let (dictionary, places) = match array.as_any_dictionary_opt() {
            Some(dictionary) if dictionary.values().is_empty() => {
                (Some(dictionary.values()), Some(vec![0; array.len()]))
            }
            Some(dictionary) => (Some(dictionary.values()), Some(dictionary.normalized_keys())),
            None => (None, None),
        };
        let values = match array.data_type() {
            DataType::Null => Some(Values::Nulls),
            _ => values(dictionary.unwrap_or(array)),
        };
        let values = values.ok_or_else(|| {
            let message = format!("{name} does not take the column type {}", array.data_type());
            Error::new(Kind::WrongType, message)
        })?;
        Ok(Self { nulls: array.logical_nulls(), places, values })
    }

    /// Whether the row is null.
    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
            || matches!(self.values, Values::Nulls)
    }

    fn place(&self, row: usize) -> usize {
        match &self.places {
            Some(places) => places.get(row).copied().unwrap_or_default(),
            None => row,
        }
    }

    /// The row as an integer, which is not null.
    pub(super) fn integer(&self, row: usize) -> Result<i64> {
        match &self.values {
            Values::Integers(integers) => integers.get(self.place(row)),
            _ => Err(unexpected()),
        }
    }

    /// The row as a text, which is not null.
    pub(super) fn text(&self, row: usize) -> Result<&str> {
        match &self.values {
            Values::Texts(texts) => std::str::from_utf8(texts.get(self.place(row)))
                .map_err(|_| Error::new(Kind::Corrupt, "the text is not UTF-8")),
            _ => Err(unexpected()),
        }
    }

    /// Appends the Avro of the row as a value of the field.
    pub(super) fn write(&self, row: usize, field: &Field, out: &mut Vec<u8>) -> Result<()> {
        if self.is_null(row) {
            if !field.nullable {
                return Err(Error::new(Kind::NullNotAllowed, "the field is not nullable"));
            }
            out.push(0);
            return Ok(());
        }
        if field.nullable {
            out.push(2);
        }
        match field.field_type {
            FieldType::Scalar(scalar) => self.write_scalar(row, scalar, out),
            FieldType::List(item) => {
                let (items, range) = self.items(row)?;
                if range.len() > LIST_ITEMS_MAX {
                    let message = format!("the list has more than {LIST_ITEMS_MAX} items");
                    return Err(Error::new(Kind::TooLarge, message));
                }
                write_items(items, range, item, out)
            }
            FieldType::Vector(size) => {
                let (items, range) = self.items(row)?;
                let count = range.len();
                if u32::try_from(count) != Ok(size) {
                    let message = format!("a Vector<{size}> has exactly {size} items, got {count}");
                    return Err(Error::new(Kind::WrongType, message));
                }
                write_items(items, range, Scalar::Float, out)
            }
        }
    }

    fn items(&self, row: usize) -> Result<(&Self, std::ops::Range<usize>)> {
        match &self.values {
            Values::Lists(bounds, items) => Ok((items, bounds.get(self.place(row))?)),
            _ => Err(unexpected()),
        }
    }

    fn write_scalar(&self, row: usize, scalar: Scalar, out: &mut Vec<u8>) -> Result<()> {
        let place = self.place(row);
        match (scalar, &self.values) {
            (Scalar::Boolean, Values::Booleans(values)) => out.push(u8::from(values.value(place))),
            (Scalar::Float, _) => {
                let value = self.float(place)?;
                check_finite(value.is_finite())?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            (Scalar::Double, _) => {
                let value = self.double(place)?;
                check_finite(value.is_finite())?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            (Scalar::Text | Scalar::Bytes, Values::Texts(texts)) => {
                let bytes = texts.get(place);
                if bytes.len() > TEXT_BYTES_MAX {
                    let message = format!("the value takes more than {TEXT_BYTES_MAX} bytes");
                    return Err(Error::new(Kind::TooLarge, message));
                }
                write_varint(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
                out.extend_from_slice(bytes);
            }
            (_, Values::Integers(integers)) => {
                write_varint(out, check_range(integers.get(place)?, scalar)?);
            }
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a Float takes the nearest float, as it does from JSON"
    )]
    fn float(&self, place: usize) -> Result<f32> {
        match &self.values {
            Values::Floats(values) => values.get(place).copied().ok_or_else(unexpected),
            Values::Doubles(values) => {
                let value = values.get(place).copied().ok_or_else(unexpected)?;
                let narrow = value as f32;
                if value.is_finite() && narrow.is_infinite() {
                    return Err(Error::new(Kind::OutOfRange, "the number does not fit a Float"));
                }
                Ok(narrow)
            }
            Values::Integers(Integers::Decimals(values)) => parse_decimal(values, place),
            Values::Integers(integers) => Ok(integers.get(place)? as f32),
            _ => Err(unexpected()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a Double takes the nearest double")]
    fn double(&self, place: usize) -> Result<f64> {
        match &self.values {
            Values::Floats(values) => {
                values.get(place).copied().map(f64::from).ok_or_else(unexpected)
            }
            Values::Doubles(values) => values.get(place).copied().ok_or_else(unexpected),
            Values::Integers(Integers::Decimals(values)) => parse_decimal(values, place),
            Values::Integers(integers) => Ok(integers.get(place)? as f64),
            _ => Err(unexpected()),
        }
    }
}

fn write_items(
    items: &Column<'_>,
    range: std::ops::Range<usize>,
    item: Scalar,
    out: &mut Vec<u8>,
) -> Result<()> {
    if !range.is_empty() {
        write_varint(out, i64::try_from(range.len()).unwrap_or(i64::MAX));
    }
    for (position, row) in range.enumerate() {
        if items.is_null(row) {
            let error = Error::new(Kind::WrongType, "an item is never null");
            return Err(error.under(&position.to_string()));
        }
        items.write_scalar(row, item, out).map_err(|error| error.under(&position.to_string()))?;
    }
    out.push(0);
    Ok(())
}

/// The type was resolved before, so this is never seen.
#[cold]
fn unexpected() -> Error {
    Error::new(Kind::WrongType, "the column does not hold what its type says")
}

fn parse_decimal<T: std::str::FromStr>(values: &Decimal128Array, place: usize) -> Result<T> {
    values.value_as_string(place).parse().map_err(|_| unexpected())
}

fn check_finite(finite: bool) -> Result<()> {
    if finite {
        return Ok(());
    }
    Err(Error::new(Kind::OutOfRange, "NaN and infinity cannot be stored"))
}

fn check_range(value: i64, scalar: Scalar) -> Result<i64> {
    let range = match scalar {
        Scalar::Integer => i64::from(i32::MIN)..=i64::from(i32::MAX),
        Scalar::Date => DATE_MIN_DAYS..=DATE_MAX_DAYS,
        Scalar::Timestamp => {
            let end = DATE_MAX_DAYS.saturating_add(1).saturating_mul(DAY_MICROS);
            DATE_MIN_DAYS.saturating_mul(DAY_MICROS)..=end.saturating_sub(1)
        }
        _ => i64::MIN..=i64::MAX,
    };
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Error::new(Kind::OutOfRange, format!("the number does not fit a {}", scalar.name())))
}

impl Integers<'_> {
    fn get(&self, place: usize) -> Result<i64> {
        let far = || Error::new(Kind::OutOfRange, "the number does not fit 64 bits");
        match self {
            Self::Signed(values) => values.get(place).copied().ok_or_else(unexpected),
            Self::Unsigned(values) => {
                let value = values.get(place).copied().ok_or_else(unexpected)?;
                i64::try_from(value).map_err(|_| far())
            }
            Self::Decimals(values) => i64::try_from(values.value(place)).map_err(|_| far()),
            Self::Multiplied(values, factor) => {
                let value = values.get(place).copied().ok_or_else(unexpected)?;
                value.checked_mul(*factor).ok_or_else(far)
            }
            Self::Divided(values, divisor, rest) => {
                let value = values.get(place).copied().ok_or_else(unexpected)?;
                if *rest == Rest::Refused && value.checked_rem(*divisor) != Some(0) {
                    let message = "the time is finer than its field; round it first";
                    return Err(Error::new(Kind::OutOfRange, message));
                }
                value.checked_div_euclid(*divisor).ok_or_else(far)
            }
        }
    }
}

impl<'b> Texts<'b> {
    fn get(&self, place: usize) -> &'b [u8] {
        match self {
            Self::Utf8(values) => values.value(place).as_bytes(),
            Self::LargeUtf8(values) => values.value(place).as_bytes(),
            Self::Utf8View(values) => values.value(place).as_bytes(),
            Self::Binary(values) => values.value(place),
            Self::LargeBinary(values) => values.value(place),
            Self::BinaryView(values) => values.value(place),
            Self::FixedSizeBinary(values) => values.value(place),
        }
    }
}

impl Bounds<'_> {
    fn get(&self, place: usize) -> Result<std::ops::Range<usize>> {
        let (start, length) = match self {
            Self::List(list) => (
                list.value_offsets().get(place).and_then(|start| usize::try_from(*start).ok()),
                usize::try_from(list.value_length(place)).ok(),
            ),
            Self::LargeList(list) => (
                list.value_offsets().get(place).and_then(|start| usize::try_from(*start).ok()),
                usize::try_from(list.value_length(place)).ok(),
            ),
            Self::FixedSizeList(list) => {
                (Some(list.value_offset_at(place)), usize::try_from(list.value_length()).ok())
            }
        };
        let range = start.zip(length);
        let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
        range.ok_or_else(unexpected)
    }
}

fn scalars(array: &ArrayRef, scalar: Scalar) -> Option<Values<'_>> {
    match scalar {
        Scalar::Boolean => array.as_boolean_opt().map(Values::Booleans),
        Scalar::Integer | Scalar::Long => integers(array, 0).map(Values::Integers),
        Scalar::Float | Scalar::Double => match array.data_type() {
            DataType::Float32 => Some(Values::Floats(array.as_primitive::<Float32Type>().values())),
            DataType::Float64 => {
                Some(Values::Doubles(array.as_primitive::<Float64Type>().values()))
            }
            _ => integers(array, i8::MAX).map(Values::Integers),
        },
        Scalar::Text => texts(array).map(Values::Texts),
        Scalar::Bytes => binaries(array).map(Values::Texts),
        Scalar::Date => match array.data_type() {
            DataType::Date32 => Some(Values::Integers(widened::<Date32Type>(array))),
            DataType::Date64 => {
                let values = array.as_primitive::<Date64Type>().values();
                Some(Values::Integers(Integers::Divided(values, DAY_MS, Rest::Refused)))
            }
            _ => None,
        },
        Scalar::Timestamp => times(array, 1_000_000, Rest::Refused),
    }
}

/// Integers of any width, and decimals of at most that scale.
fn integers(array: &ArrayRef, scale_max: i8) -> Option<Integers<'_>> {
    Some(match array.data_type() {
        DataType::Int8 => widened::<Int8Type>(array),
        DataType::Int16 => widened::<Int16Type>(array),
        DataType::Int32 => widened::<Int32Type>(array),
        DataType::Int64 => {
            Integers::Signed(Cow::Borrowed(array.as_primitive::<Int64Type>().values()))
        }
        DataType::UInt8 => widened::<UInt8Type>(array),
        DataType::UInt16 => widened::<UInt16Type>(array),
        DataType::UInt32 => widened::<UInt32Type>(array),
        DataType::UInt64 => Integers::Unsigned(array.as_primitive::<UInt64Type>().values()),
        DataType::Decimal128(_, scale) if (0..=scale_max).contains(scale) => {
            Integers::Decimals(array.as_primitive::<Decimal128Type>())
        }
        _ => return None,
    })
}

fn widened<T>(array: &ArrayRef) -> Integers<'_>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    Integers::Signed(
        array.as_primitive::<T>().values().iter().map(|value| (*value).into()).collect(),
    )
}

/// Times since 1970 in units of which `per_second` make a second: 1,000 or 1,000,000.
fn times(array: &ArrayRef, per_second: i64, rest: Rest) -> Option<Values<'_>> {
    let DataType::Timestamp(unit, _) = array.data_type() else { return None };
    let (values, theirs): (&[i64], i64) = match unit {
        TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().values(), 1),
        TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().values(), 1000),
        TimeUnit::Microsecond => {
            (array.as_primitive::<TimestampMicrosecondType>().values(), 1_000_000)
        }
        TimeUnit::Nanosecond => {
            (array.as_primitive::<TimestampNanosecondType>().values(), 1_000_000_000)
        }
    };
    let integers = if theirs > per_second {
        Integers::Divided(values, theirs.checked_div(per_second)?, rest)
    } else {
        Integers::Multiplied(values, per_second.checked_div(theirs)?)
    };
    Some(Values::Integers(integers))
}

fn texts(array: &ArrayRef) -> Option<Texts<'_>> {
    Some(match array.data_type() {
        DataType::Utf8 => Texts::Utf8(array.as_string()),
        DataType::LargeUtf8 => Texts::LargeUtf8(array.as_string()),
        DataType::Utf8View => Texts::Utf8View(array.as_string_view()),
        _ => return None,
    })
}

fn binaries(array: &ArrayRef) -> Option<Texts<'_>> {
    Some(match array.data_type() {
        DataType::Binary => Texts::Binary(array.as_binary()),
        DataType::LargeBinary => Texts::LargeBinary(array.as_binary()),
        DataType::BinaryView => Texts::BinaryView(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => Texts::FixedSizeBinary(array.as_fixed_size_binary()),
        _ => return None,
    })
}

fn lists(array: &ArrayRef, item: Scalar) -> Option<Values<'_>> {
    let (bounds, items) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list();
            (Bounds::List(list), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list();
            (Bounds::LargeList(list), list.values())
        }
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            (Bounds::FixedSizeList(list), list.values())
        }
        _ => return None,
    };
    let items = Column::new(items, FieldType::Scalar(item)).ok()?;
    Some(Values::Lists(bounds, Box::new(items)))
}
