//! Avro bodies → lanes, value by value, with nothing built on the way.

use super::lane::{Kind, Lane, cut, push_null};
use super::layout::{ReadLayout, Step};
use crate::cursor::Cursor;
use crate::decode::{
    each_item, integer_to_float, long_to_double, long_to_float, read_boolean, read_bytes,
    read_float, read_integer, read_text, skip_field, starts_with_null,
};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::LIST_ITEMS_MAX;
use crate::read::row::Event;
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;
use crate::status::FieldSet;
use crate::transcode::is_written;
use crate::transcode::take::{Body, Stop, Walk};

/// The lanes of one read.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    pub(super) lanes: &'a mut [Lane],
    pub(super) kinds: &'a [Kind],
}

impl Columns<'_> {
    /// Appends the fields of a body; fields that were never written are put into `defaulted`.
    ///
    /// On an error the lanes hold part of the row: see [`Self::cut`].
    pub(super) fn push_record(
        &mut self,
        read: &ReadLayout,
        schema: usize,
        body: &[u8],
        written: Option<&[u8]>,
        defaulted: &mut FieldSet,
    ) -> Result<()> {
        let Some(Some(steps)) = read.steps.get(schema) else {
            return Err(Error::new(ErrorKind::Schema, "stored values do not widen to this schema"));
        };
        let (items, whole) = (self.items(read), written.is_none());
        if !whole || self.push_quickly(&steps.walk, body).is_err() {
            if whole {
                self.cut_fields(read, items);
            }
            self.push_plainly(read, &steps.walk, body, written, defaulted)?;
        }
        for field in &steps.lacking {
            self.push_unwritten(read, *field)?;
            defaulted.insert(*field);
        }
        Ok(())
    }

    /// The walk for bodies that were written whole; it stops at whatever is not plain, damaged
    /// bytes included, and leaves that to [`Self::push_plainly`].
    fn push_quickly(&mut self, walk: &[Step], body: &[u8]) -> Walk<()> {
        let mut rest = Body::new(body);
        for Step { reading, place } in walk {
            let FieldReading { shape, nullable, null_allowed } = *reading;
            if nullable && rest.null()? {
                match place {
                    Some(_) if !null_allowed => return Err(Stop),
                    Some((_, lane)) => self.push_null(*lane),
                    None => {}
                }
                continue;
            }
            let lane = place.map(|(_, lane)| lane);
            match shape {
                Shape::Scalar(Reading::Same(scalar)) => {
                    let lane = lane.and_then(|lane| self.lanes.get_mut(lane));
                    take_scalar(&mut rest, scalar, lane)?;
                }
                _ => rest.leave(self.take_other(rest.rest(), shape, lane)?)?,
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Stop) }
    }

    /// Takes a value of any other type; the bytes that are left after it.
    #[inline(never)]
    fn take_other(&mut self, rest: &[u8], shape: Shape, lane: Option<usize>) -> Walk<usize> {
        let mut cursor = Cursor::new(rest);
        let reading = FieldReading { shape, nullable: false, null_allowed: false };
        match lane {
            Some(lane) => self.push_value(&mut cursor, reading, lane),
            None => skip_field(&mut cursor, reading),
        }
        .map_err(|_| Stop)?;
        Ok(cursor.rest().len())
    }

    /// The walk for every body there is; says what is wrong with the others.
    #[inline(never)]
    fn push_plainly(
        &mut self,
        read: &ReadLayout,
        walk: &[Step],
        body: &[u8],
        written: Option<&[u8]>,
        defaulted: &mut FieldSet,
    ) -> Result<()> {
        let mut cursor = Cursor::new(body);
        for (position, Step { reading, place }) in walk.iter().enumerate() {
            let Some((field, lane)) = *place else {
                skip_field(&mut cursor, *reading)?;
                continue;
            };
            let there = written.is_none_or(|bits| is_written(bits, position));
            let refused = !reading.null_allowed && starts_with_null(cursor.rest(), *reading);
            if there && !refused {
                self.push_value(&mut cursor, *reading, lane)?;
            } else {
                skip_field(&mut cursor, *reading)?;
                self.push_unwritten(read, field)?;
                defaulted.insert(field);
            }
        }
        cursor.finish()
    }

    /// Values of each field so far: rows, or events of all rows.
    fn items(&self, read: &ReadLayout) -> usize {
        let first = read.fields.first().and_then(|field| self.lanes.get(field.lane));
        first.map_or(0, Lane::length)
    }

    #[cold]
    fn cut_fields(&mut self, read: &ReadLayout, items: usize) {
        for field in &read.fields {
            cut(self.lanes, self.kinds, field.lane, items);
        }
    }

    /// Appends what stands where a field was never written.
    pub(super) fn push_unwritten(&mut self, read: &ReadLayout, field: usize) -> Result<()> {
        let Some(place) = read.fields.get(field) else { return Ok(()) };
        let Some(default) = &place.default else {
            self.push_null(place.lane);
            return Ok(());
        };
        self.push_value(&mut Cursor::new(default), place.reading, place.lane)
    }

    /// Appends a History row.
    pub(super) fn push_events(
        &mut self,
        read: &ReadLayout,
        events: &[Event<'_>],
        defaulted: &mut FieldSet,
    ) -> Result<()> {
        let Some(list) = read.events else { return Ok(()) };
        let (record, time) = (list.saturating_add(1), list.saturating_add(2));
        for event in events {
            self.with(record, Lane::push_parent);
            self.with(time, |lane| lane.push(event.event_time_ms.to_le_bytes()));
            self.push_record(read, event.schema, event.body, None, defaulted)?;
        }
        self.end_events(list);
        Ok(())
    }

    /// Appends what stands for a row that is not there: no events, or what was never written.
    pub(super) fn push_missing(&mut self, read: &ReadLayout) -> Result<()> {
        match read.events {
            Some(list) => self.end_events(list),
            None => {
                for field in 0..read.fields.len() {
                    self.push_unwritten(read, field)?;
                }
            }
        }
        Ok(())
    }

    /// Appends a row of nulls.
    pub(super) fn push_nulls(&mut self, read: &ReadLayout) {
        match read.events {
            Some(list) => self.push_null(list),
            None => read.fields.iter().for_each(|field| self.push_null(field.lane)),
        }
    }

    /// Takes back what a row left beyond so many.
    #[cold]
    pub(super) fn cut(&mut self, read: &ReadLayout, rows: usize) {
        match read.events {
            Some(list) => drop(cut(self.lanes, self.kinds, list, rows)),
            None => self.cut_fields(read, rows),
        }
    }

    pub(super) fn push_null(&mut self, lane: usize) {
        push_null(self.lanes, self.kinds, lane);
    }

    pub(super) fn with(&mut self, lane: usize, act: impl FnOnce(&mut Lane)) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            act(lane);
        }
    }

    fn end_events(&mut self, list: usize) {
        let items = self.lanes.get(list.saturating_add(1)).map_or(0, Lane::length);
        self.with(list, |lane| lane.push_end(items));
    }

    fn push_value(
        &mut self,
        cursor: &mut Cursor<'_>,
        reading: FieldReading,
        lane: usize,
    ) -> Result<()> {
        if reading.nullable {
            match cursor.byte()? {
                0 => {
                    self.push_null(lane);
                    return Ok(());
                }
                2 => {}
                _ => return Err(Error::new(ErrorKind::Corrupt, "a union index is not 0 or 1")),
            }
        }
        let Some((parent, children)) = self.lanes.get_mut(lane..).and_then(<[_]>::split_first_mut)
        else {
            return Ok(());
        };
        match (reading.shape, children.first_mut()) {
            (Shape::Scalar(scalar), _) => push_scalar(cursor, scalar, parent)?,
            (Shape::List(item), Some(items)) => {
                let each = |cursor: &mut Cursor<'_>| push_scalar(cursor, item, items);
                each_item(cursor, LIST_ITEMS_MAX, each)?;
                parent.push_end(items.length());
            }
            (Shape::Vector(size), Some(items)) => {
                push_vector(cursor, usize::try_from(size).unwrap_or(LIST_ITEMS_MAX), items)?;
                parent.push_parent();
            }
            (Shape::List(_) | Shape::Vector(_), None) => {}
        }
        Ok(())
    }
}

/// One value of a scalar's own type, into a lane or past it.
#[inline]
fn take_scalar(rest: &mut Body<'_>, scalar: Scalar, lane: Option<&mut Lane>) -> Walk<()> {
    match scalar {
        Scalar::Boolean => {
            let byte = rest.byte()?;
            if byte > 1 {
                return Err(Stop);
            }
            put(lane, [byte]);
        }
        Scalar::Integer | Scalar::Date => put(lane, rest.integer()?.to_le_bytes()),
        Scalar::Long | Scalar::Timestamp => put(lane, rest.varint()?.to_le_bytes()),
        Scalar::Float => put(lane, rest.float()?.to_le_bytes()),
        Scalar::Double => put(lane, rest.double()?.to_le_bytes()),
        Scalar::Text | Scalar::Bytes => {
            let length = rest.length()?;
            let content = rest.bytes(length)?;
            if let Some(lane) = lane {
                if scalar == Scalar::Text && std::str::from_utf8(content).is_err() {
                    return Err(Stop);
                }
                lane.push_variable(content);
            }
        }
    }
    Ok(())
}

#[inline]
fn put<const N: usize>(lane: Option<&mut Lane>, value: [u8; N]) {
    if let Some(lane) = lane {
        lane.push(value);
    }
}

#[inline]
fn push_scalar(cursor: &mut Cursor<'_>, reading: Reading, lane: &mut Lane) -> Result<()> {
    match reading {
        Reading::Same(Scalar::Boolean) => lane.push([u8::from(read_boolean(cursor)?)]),
        Reading::Same(Scalar::Integer | Scalar::Date) => {
            lane.push(read_integer(cursor)?.to_le_bytes());
        }
        Reading::Same(Scalar::Long | Scalar::Timestamp) => {
            lane.push(cursor.varint()?.to_le_bytes());
        }
        Reading::Same(Scalar::Float) => lane.push(cursor.array::<4>()?),
        Reading::Same(Scalar::Double) => lane.push(cursor.array::<8>()?),
        Reading::Same(Scalar::Text) => lane.push_variable(read_text(cursor)?.as_bytes()),
        Reading::Same(Scalar::Bytes) => lane.push_variable(read_bytes(cursor)?),
        Reading::IntegerToLong => lane.push(i64::from(read_integer(cursor)?).to_le_bytes()),
        Reading::IntegerToFloat => {
            lane.push(integer_to_float(read_integer(cursor)?).to_le_bytes());
        }
        Reading::IntegerToDouble => lane.push(f64::from(read_integer(cursor)?).to_le_bytes()),
        Reading::LongToFloat => lane.push(long_to_float(cursor.varint()?).to_le_bytes()),
        Reading::LongToDouble => lane.push(long_to_double(cursor.varint()?).to_le_bytes()),
        Reading::FloatToDouble => lane.push(f64::from(read_float(cursor)?).to_le_bytes()),
    }
    Ok(())
}

/// Avro and Arrow hold floats in the same bytes: one copy when they come in one block, as they do.
fn push_vector(cursor: &mut Cursor<'_>, size: usize, items: &mut Lane) -> Result<()> {
    let mut ahead = cursor.clone();
    if usize::try_from(ahead.varint()?) == Ok(size) {
        let floats = ahead.take(size.saturating_mul(size_of::<f32>()))?;
        if ahead.byte()? == 0 {
            items.push_all(floats, size);
            *cursor = ahead;
            return Ok(());
        }
    }
    let float = Reading::Same(Scalar::Float);
    let found = each_item(cursor, size, |cursor| push_scalar(cursor, float, items))?;
    if found == size {
        return Ok(());
    }
    let message = format!("a vector of {size} holds {found} items");
    Err(Error::new(ErrorKind::Corrupt, message).at(cursor.offset()))
}
