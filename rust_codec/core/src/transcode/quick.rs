//! The plan of the quick walk, and its runs over one body.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{Pen, ROOM, print_long, print_zigzag, put};
use super::route::{Route, room_of, room_per_byte};
use super::step::{Kind, Label, Step};
use super::take::{Body, Stop, Walk};
use super::walk::{
    FIELD_ROOM, noted_double, noted_float, print_boolean, print_short_text, show_any_text,
    show_other, skip_boolean, skip_other, skip_text, skip_whole, take_short,
};
use super::{Column, is_written};
use crate::resolve::FieldReading;
use crate::status::RowStatus;

/// Places that are kept without an allocation when fields are not asked for in the writer's order.
const PLACES: usize = 64;

/// Room of an event time, its bracket and its comma.
const TIME_ROOM: usize = 22;

/// The layouts, as constants so that each has a loop of its own.
pub(super) const ROW: u8 = 0;
pub(super) const OBJECT: u8 = 1;
pub(super) const BARE: u8 = 2;

/// A plan that prints most bodies.
#[derive(Debug, Clone)]
pub(super) struct Quick {
    unwritten: Vec<Vec<u8>>,
    labels: Vec<Label>,
    route: Route,
    /// Of a row of values, of which the lengths of texts are not known.
    room: usize,
    /// What labels add.
    labels_room: usize,
    /// What a byte of a body prints as, usually and at most.
    room_per_byte: usize,
    room_per_byte_max: usize,
}

/// What a run is given beside the body.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) body: &'a [u8],
    pub(super) written: Option<&'a [u8]>,
    pub(super) event_time_ms: Option<i64>,
}

impl Quick {
    /// None when nothing is asked for or a name is too long for a label.
    pub(super) fn new(walk: &[FieldReading], columns: &[Column], quoted: bool) -> Option<Self> {
        if columns.is_empty() {
            return None;
        }
        let values = columns.iter().map(|column| room_of(column).saturating_add(1));
        let labels = columns.iter().map(|column| column.label.len());
        let per_byte = || walk.iter().map(room_per_byte);
        Some(Self {
            room: values.sum::<usize>().saturating_add(FIELD_ROOM.saturating_add(TIME_ROOM)),
            labels_room: labels.sum(),
            room_per_byte: per_byte().map(|(usual, _)| usual).max().unwrap_or(1),
            room_per_byte_max: per_byte().map(|(_, most)| most).max().unwrap_or(1),
            unwritten: columns.iter().map(|column| column.unwritten.clone()).collect(),
            labels: columns.iter().map(|it| Label::new(&it.label)).collect::<Option<_>>()?,
            route: Route::new(walk, columns, quoted)?,
        })
    }

    /// Appends one row; false, and nothing appended, when the plain walk has to look at it.
    #[inline]
    pub(super) fn print<const LAYOUT: u8>(
        &self,
        row: Row<'_>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> bool {
        // What stopped it is not told apart: it starts again with room enough for anything.
        self.print_within::<LAYOUT>(self.room_per_byte, row, out, ends, status)
            || self.room_per_byte < self.room_per_byte_max
                && self.print_within::<LAYOUT>(self.room_per_byte_max, row, out, ends, status)
    }

    fn print_within<const LAYOUT: u8>(
        &self,
        room_per_byte: usize,
        row: Row<'_>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> bool {
        let (before, ends_before) = (out.len(), ends.len());
        let mut room = row.body.len().saturating_mul(room_per_byte).saturating_add(self.room);
        if LAYOUT == OBJECT {
            room = room.saturating_add(self.labels_room);
        }
        out.resize(before.saturating_add(room), 0);
        let slot = Pen::new(out.get_mut(before..).unwrap_or_default());
        let outcome = match &self.route {
            Route::Straight(steps) => self.straight::<LAYOUT>(steps, &row, slot, ends, status),
            Route::Places { scan, shows } => {
                self.places::<LAYOUT>(scan, shows, &row, slot, ends, status)
            }
        };
        let whole = out.len();
        let Ok(left) = outcome else {
            out.truncate(before);
            ends.truncate(ends_before);
            return false;
        };
        if let Some(first) = out.get_mut(before)
            && LAYOUT != BARE
        {
            *first = if LAYOUT == ROW { b'[' } else { b'{' };
        }
        out.truncate(whole.saturating_sub(left));
        if LAYOUT == BARE {
            // Noted as room that was left.
            for end in ends.get_mut(ends_before..).unwrap_or_default() {
                *end = whole.saturating_sub(*end);
            }
        }
        true
    }

    /// Prints in the writer's order; gives the room that it left.
    #[inline(never)]
    fn straight<const LAYOUT: u8>(
        &self,
        steps: &[Step],
        row: &Row<'_>,
        mut pen: Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Walk<usize> {
        open(row, &mut pen)?;
        let mut rest = Body::new(row.body);
        for step in steps {
            if let Some(bits) = row.written
                && !step.is_skip()
                && step.kind != Kind::Constant
                && !is_written(bits, step.position as usize)
            {
                rest.leave(skip_whole(rest, step)?)?;
                self.put_default::<LAYOUT>(step, &mut pen, status)?;
                after::<LAYOUT>(&pen, ends);
            } else {
                self.step::<LAYOUT>(&mut rest, step, &mut pen, status)?;
                if !step.is_skip() {
                    after::<LAYOUT>(&pen, ends);
                }
            }
        }
        if rest.is_empty() { close::<LAYOUT>(pen) } else { Err(Stop) }
    }

    /// Prints in another order.
    #[inline(never)]
    fn places<const LAYOUT: u8>(
        &self,
        scan: &[Step],
        shows: &[Step],
        row: &Row<'_>,
        pen: Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Walk<usize> {
        if shows.len() <= PLACES {
            let mut places = [0; PLACES + 1];
            find(&mut places, scan, row.body)?;
            return self.print_from::<LAYOUT>(&places, shows, row, pen, ends, status);
        }
        let mut places = vec![0; shows.len().saturating_add(1)];
        find(&mut places, scan, row.body)?;
        self.print_from::<LAYOUT>(&places, shows, row, pen, ends, status)
    }

    #[inline(never)]
    fn print_from<const LAYOUT: u8>(
        &self,
        places: &[u32],
        shows: &[Step],
        row: &Row<'_>,
        mut pen: Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Walk<usize> {
        open(row, &mut pen)?;
        let body = Body::new(row.body);
        for step in shows {
            if row.written.is_none_or(|bits| is_written(bits, step.position as usize)) {
                let start = places.get(step.slot as usize).ok_or(Stop)?;
                let mut rest = body.from(*start as usize)?;
                self.step::<LAYOUT>(&mut rest, step, &mut pen, status)?;
            } else {
                self.put_default::<LAYOUT>(step, &mut pen, status)?;
            }
            after::<LAYOUT>(&pen, ends);
        }
        close::<LAYOUT>(pen)
    }

    /// Prints one field and moves past it, or only moves past it. One match, which is one jump.
    #[inline(always)]
    fn step<const LAYOUT: u8>(
        &self,
        rest: &mut Body<'_>,
        step: &Step,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Walk<()> {
        if step.nullable && rest.null()? {
            return self.null::<LAYOUT>(step, pen, status);
        }
        let length = match step.kind {
            Kind::Constant => return self.put_default::<LAYOUT>(step, pen, status),
            Kind::Boolean => print_boolean(self.place::<LAYOUT>(step, pen)?, rest.byte()?)?,
            Kind::Integer => {
                print_long(self.place::<LAYOUT>(step, pen)?, i64::from(rest.integer()?))
            }
            Kind::Long => print_zigzag(self.place::<LAYOUT>(step, pen)?, rest.zigzag()?),
            Kind::Float => {
                let place = self.place::<LAYOUT>(step, pen)?;
                noted_float(place, rest.float()?, step, &mut status.not_finite)
            }
            Kind::Double => {
                let place = self.place::<LAYOUT>(step, pen)?;
                noted_double(place, rest.double()?, step, &mut status.not_finite)
            }
            Kind::Text => match take_short(rest) {
                Some((chunk, length)) => {
                    print_short_text(self.place::<LAYOUT>(step, pen)?, chunk, length)
                }
                None => return self.any_text::<LAYOUT>(rest, step, pen),
            },
            Kind::Other => return self.other::<LAYOUT>(rest, step, pen, status),
            Kind::SkipBoolean => return skip_boolean(rest),
            Kind::SkipInteger => return rest.skip_integer(),
            Kind::SkipLong => return rest.skip_varint(),
            Kind::SkipFloat => return rest.skip(4),
            Kind::SkipDouble => return rest.skip(8),
            Kind::SkipText => return skip_text(rest),
            Kind::SkipOther => return rest.leave(skip_other(*rest, step)?),
        };
        pen.keep(length & (ROOM - 1));
        Ok(())
    }

    #[inline(always)]
    fn any_text<const LAYOUT: u8>(
        &self,
        rest: &mut Body<'_>,
        step: &Step,
        pen: &mut Pen<'_>,
    ) -> Walk<()> {
        self.place::<LAYOUT>(step, pen)?;
        let (stored, room) = show_any_text(*rest, pen.fork())?;
        pen.join(room);
        rest.leave(stored)
    }

    #[inline(always)]
    fn other<const LAYOUT: u8>(
        &self,
        rest: &mut Body<'_>,
        step: &Step,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Walk<()> {
        self.place::<LAYOUT>(step, pen)?;
        let other = show_other(*rest, step, pen.fork())?;
        if !other.finite {
            status.not_finite.insert(step.column as usize);
        }
        pen.join(other.room);
        rest.leave(other.stored)
    }

    /// Prints what stands before a value, and gives the place of the value.
    #[inline(always)]
    fn place<'p, const LAYOUT: u8>(
        &self,
        step: &Step,
        pen: &'p mut Pen<'_>,
    ) -> Walk<&'p mut [u8; ROOM]> {
        // One check for both.
        let window = pen.window::<FIELD_ROOM>()?;
        let lead = self.lead::<LAYOUT>(step, window)?;
        pen.keep(lead & (ROOM - 1));
        pen.window::<ROOM>()
    }

    /// What stands before a value: nothing, a comma or a comma and its label. What is printed first
    /// gets the opening bracket in place of the comma in the end.
    #[inline(always)]
    fn lead<const LAYOUT: u8>(&self, step: &Step, window: &mut [u8; FIELD_ROOM]) -> Walk<usize> {
        match LAYOUT {
            OBJECT => self.labels.get(step.column as usize).ok_or(Stop)?.write(window),
            ROW => {
                *window.first_mut().ok_or(Stop)? = b',';
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    /// A null, whose union index was taken.
    #[inline(always)]
    fn null<const LAYOUT: u8>(
        &self,
        step: &Step,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Walk<()> {
        if step.is_skip() {
            return Ok(());
        }
        if !step.null_allowed {
            return self.put_default::<LAYOUT>(step, pen, status);
        }
        put(self.place::<LAYOUT>(step, pen)?, 0, *b"null");
        pen.keep(4);
        Ok(())
    }

    #[inline(always)]
    fn put_default<const LAYOUT: u8>(
        &self,
        step: &Step,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Walk<()> {
        let left = self.default::<LAYOUT>(step, pen.fork(), status)?;
        pen.join(left);
        Ok(())
    }

    /// Prints what stands where nothing was written.
    #[inline(never)]
    fn default<const LAYOUT: u8>(
        &self,
        step: &Step,
        mut pen: Pen<'_>,
        status: &mut RowStatus,
    ) -> Walk<usize> {
        let column = step.column as usize;
        status.defaulted.insert(column);
        self.place::<LAYOUT>(step, &mut pen)?;
        pen.bytes(self.unwritten.get(column).ok_or(Stop)?)?;
        Ok(pen.left())
    }
}

/// Opens an event.
#[inline(always)]
fn open(row: &Row<'_>, pen: &mut Pen<'_>) -> Walk<()> {
    if let Some(event_time_ms) = row.event_time_ms {
        let left = print_time(event_time_ms, pen.fork())?;
        pen.join(left);
    }
    Ok(())
}

#[inline(never)]
fn print_time(event_time_ms: i64, mut pen: Pen<'_>) -> Walk<usize> {
    pen.byte(b'[')?;
    let length = print_long(pen.window::<ROOM>()?, event_time_ms);
    pen.keep(length);
    Ok(pen.left())
}

/// Closes a row.
#[inline(always)]
fn close<const LAYOUT: u8>(mut pen: Pen<'_>) -> Walk<usize> {
    if LAYOUT != BARE {
        pen.byte(if LAYOUT == ROW { b']' } else { b'}' })?;
    }
    Ok(pen.left())
}

#[inline(always)]
fn after<const LAYOUT: u8>(pen: &Pen<'_>, ends: &mut Vec<usize>) {
    if LAYOUT == BARE {
        ends.push(pen.left());
    }
}

/// Notes where the fields begin that have a slot.
#[inline(always)]
fn find(places: &mut [u32], scan: &[Step], body: &[u8]) -> Walk<()> {
    // So that places fit.
    let length = u32::try_from(body.len()).map_err(|_| Stop)?;
    let mut rest = Body::new(body);
    for step in scan {
        let left = u32::try_from(rest.len()).map_err(|_| Stop)?;
        *places.get_mut(step.slot as usize).ok_or(Stop)? = length.wrapping_sub(left);
        skip(&mut rest, step)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Stop) }
}

/// Moves past a value of a step that only does that.
#[inline(always)]
fn skip(rest: &mut Body<'_>, step: &Step) -> Walk<()> {
    if step.nullable && rest.null()? {
        return Ok(());
    }
    match step.kind {
        Kind::SkipBoolean => skip_boolean(rest),
        Kind::SkipInteger => rest.skip_integer(),
        Kind::SkipLong => rest.skip_varint(),
        Kind::SkipFloat => rest.skip(4),
        Kind::SkipDouble => rest.skip(8),
        Kind::SkipText => skip_text(rest),
        _ => rest.leave(skip_other(*rest, step)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{Reading, Shape};
    use crate::schema::Scalar;

    fn quick(readings: &[Reading], order: &[usize]) -> Quick {
        let walk: Vec<FieldReading> = readings
            .iter()
            .map(|reading| FieldReading {
                shape: Shape::Scalar(*reading),
                nullable: false,
                null_allowed: false,
            })
            .collect();
        let columns: Vec<Column> = order
            .iter()
            .map(|position| Column {
                source: Some((*position, walk[*position])),
                label: format!("\"f{position}\":").into_bytes(),
                unwritten: b"0".to_vec(),
            })
            .collect();
        Quick::new(&walk, &columns, false).unwrap()
    }

    fn printed(quick: &Quick, body: &[u8]) -> Option<String> {
        let (mut out, mut status) = (Vec::new(), RowStatus::default());
        let row = Row { body, written: None, event_time_ms: None };
        let done = quick.print::<OBJECT>(row, &mut out, &mut Vec::new(), &mut status);
        assert!(done || out.is_empty());
        done.then(|| String::from_utf8(out).unwrap())
    }

    const LONG: Reading = Reading::Same(Scalar::Long);
    const TEXT: Reading = Reading::Same(Scalar::Text);

    #[test]
    fn a_wide_writer_is_walked_quickly_in_its_own_order() {
        let wide = [LONG; 200];
        let body: Vec<u8> = (0..200_u8).map(|value| (value % 60) * 2).collect();
        let straight = quick(&wide, &[0, 61, 199]);
        assert_eq!(printed(&straight, &body), Some("{\"f0\":0,\"f61\":1,\"f199\":19}".into()));
    }

    #[test]
    fn as_many_fields_as_there_are_can_be_asked_for_in_another_order() {
        let body: Vec<u8> = (0..200_u8).map(|value| (value % 60) * 2).collect();
        for count in [2, 64, 65, 200] {
            let order: Vec<usize> = (0..count).rev().collect();
            let values = order.iter().map(|field| format!("\"f{field}\":{}", field % 60));
            let wanted = format!("{{{}}}", values.collect::<Vec<_>>().join(","));
            assert_eq!(printed(&quick(&[LONG; 200], &order), &body), Some(wanted));
        }
    }

    #[test]
    fn a_field_can_be_asked_for_twice() {
        let twice = quick(&[LONG, TEXT], &[1, 0, 1]);
        let wanted = "{\"f1\":\"a\",\"f0\":4,\"f1\":\"a\"}".to_owned();
        assert_eq!(printed(&twice, b"\x08\x02a"), Some(wanted));
    }

    #[test]
    fn plain_bodies_are_printed_without_the_plain_walk() {
        let straight = quick(&[LONG, TEXT], &[0, 1]);
        let reversed = quick(&[LONG, TEXT], &[1, 0]);
        for text in ["", "a", "0123456789abcdef", "0123456789abcdefg", "\u{1F600}é", "\"\n"] {
            let length = u8::try_from(text.len() * 2).unwrap();
            let body = [&[8, length][..], text.as_bytes()].concat();
            let shown = serde_json::to_string(text).unwrap();
            assert_eq!(printed(&straight, &body), Some(format!("{{\"f0\":4,\"f1\":{shown}}}")));
            assert_eq!(printed(&reversed, &body), Some(format!("{{\"f1\":{shown},\"f0\":4}}")));
        }
    }

    #[test]
    fn damaged_bodies_are_left_to_the_plain_walk() {
        let quick = quick(&[LONG, TEXT], &[0, 1]);
        for body in [&[][..], &[8], &[8, 2], &[8, 2, 0xFF], &[8, 0, 0], &[8, 1], &[0x80; 20]] {
            assert_eq!(printed(&quick, body), None, "{body:?}");
        }
    }

    #[test]
    fn text_that_outgrows_the_first_guess_is_printed_whole() {
        let quick = quick(&[TEXT], &[0]);
        let body = [&[0xD0, 0x0F][..], &[1; 1000]].concat();
        let wanted = format!("{{\"f0\":\"{}\"}}", "\\u0001".repeat(1000));
        assert_eq!(printed(&quick, &body), Some(wanted));
    }
}
