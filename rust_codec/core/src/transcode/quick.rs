//! The plan of the quick walk, and its runs over one body.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{Pen, ROOM, print_long};
use super::take::Body;
use super::walk::{FIELD_ROOM, Kind, Label, Shown, Step, Stop, lead, show, skip, skip_whole};
use super::{Column, is_written};
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;
use crate::status::RowStatus;

/// Most fields of a writer that the quick walk keeps the places of.
const PLACES: usize = 64;

/// Room of an event time, its bracket and its comma.
const TIME_ROOM: usize = 22;

/// The layouts, as constants so that each has a loop of its own.
pub(super) const ROW: u8 = 0;
pub(super) const OBJECT: u8 = 1;
pub(super) const BARE: u8 = 2;

#[derive(Debug, Clone)]
enum Route {
    /// The fields asked for stand in the writer's order: one pass prints them.
    Straight(Vec<Step>),
    /// They do not: one pass finds their places, then each is printed from its own.
    Places { scan: Vec<Step>, shows: Vec<Step> },
}

/// A plan that prints most bodies.
#[derive(Debug, Clone)]
pub(super) struct Quick {
    unwritten: Vec<Vec<u8>>,
    route: Route,
    /// Of a row of values, of which the lengths of texts are not known.
    room: usize,
    /// What labels add.
    labels_room: usize,
    room_per_byte: usize,
}

/// What a run is given beside the body.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) body: &'a [u8],
    pub(super) written: Option<&'a [u8]>,
    pub(super) event_time_ms: Option<i64>,
}

impl Quick {
    /// None when nothing is asked for, a name is too long for a label, or the writer has too many
    /// fields to print them in another order than its own.
    pub(super) fn new(walk: &[FieldReading], columns: &[Column], quoted: bool) -> Option<Self> {
        if columns.is_empty() {
            return None;
        }
        let values = columns.iter().map(|column| room_of(column).saturating_add(1));
        let labels = columns.iter().map(|column| column.label.len());
        Some(Self {
            room: values.sum::<usize>().saturating_add(FIELD_ROOM.saturating_add(TIME_ROOM)),
            labels_room: labels.sum(),
            room_per_byte: walk.iter().map(room_per_byte).max().unwrap_or(1),
            unwritten: columns.iter().map(|column| column.unwritten.clone()).collect(),
            route: route(walk, columns, quoted)?,
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
        let (before, ends_before) = (out.len(), ends.len());
        let mut room = row.body.len().saturating_mul(self.room_per_byte).saturating_add(self.room);
        if LAYOUT == OBJECT {
            room = room.saturating_add(self.labels_room);
        }
        loop {
            out.resize(before.saturating_add(room), 0);
            let slot = out.get_mut(before..).unwrap_or_default();
            let outcome = self.run::<LAYOUT>(row, Pen::new(slot), ends, status);
            let whole = out.len();
            match outcome {
                Ok(left) => {
                    if let Some(first) = out.get_mut(before)
                        && LAYOUT != BARE
                    {
                        *first = if LAYOUT == ROW { b'[' } else { b'{' };
                    }
                    out.truncate(whole.saturating_sub(left));
                    // Noted as room that was left.
                    for end in ends.get_mut(ends_before..).unwrap_or_default() {
                        *end = whole.saturating_sub(*end);
                    }
                    return true;
                }
                Err(stop) => {
                    out.truncate(before);
                    ends.truncate(ends_before);
                    if matches!(stop, Stop::Unusual) {
                        return false;
                    }
                    room = room.saturating_mul(2);
                }
            }
        }
    }

    /// Prints after what is there; gives the room that it left.
    #[inline(always)]
    fn run<const LAYOUT: u8>(
        &self,
        row: Row<'_>,
        mut pen: Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<usize, Stop> {
        if let Some(event_time_ms) = row.event_time_ms {
            let left = print_time(event_time_ms, pen.fork())?;
            pen.join(left);
        }
        match &self.route {
            Route::Straight(steps) => {
                self.run_straight::<LAYOUT>(steps, row, &mut pen, ends, status)?;
            }
            Route::Places { scan, shows } => {
                self.run_places::<LAYOUT>(scan, shows, row, &mut pen, ends, status)?;
            }
        }
        if LAYOUT != BARE {
            pen.byte(if LAYOUT == ROW { b']' } else { b'}' })?;
        }
        Ok(pen.left())
    }

    #[inline(always)]
    fn run_straight<const LAYOUT: u8>(
        &self,
        steps: &[Step],
        row: Row<'_>,
        pen: &mut Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<(), Stop> {
        let mut rest = Body::new(row.body);
        for step in steps {
            if step.is_skip() {
                skip(&mut rest, step)?;
                continue;
            }
            if step.kind == Kind::Constant {
                self.default::<LAYOUT>(step, pen, status)?;
            } else if row.written.is_some_and(|bits| !is_written(bits, step.position)) {
                rest = rest.last_bytes(skip_whole(rest, step)?)?;
                self.default::<LAYOUT>(step, pen, status)?;
            } else {
                let shown = show::<LAYOUT>(&mut rest, step, pen)?;
                self.note::<LAYOUT>(shown, step, pen, status)?;
            }
            after::<LAYOUT>(pen, ends);
        }
        if rest.is_empty() { Ok(()) } else { Err(Stop::Unusual) }
    }

    #[inline(always)]
    fn run_places<const LAYOUT: u8>(
        &self,
        scan: &[Step],
        shows: &[Step],
        row: Row<'_>,
        pen: &mut Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<(), Stop> {
        let mut starts = [0_usize; PLACES];
        let body = Body::new(row.body);
        let mut rest = body;
        for (start, step) in starts.iter_mut().zip(scan) {
            *start = row.body.len().wrapping_sub(rest.len());
            skip(&mut rest, step)?;
        }
        if !rest.is_empty() {
            return Err(Stop::Unusual);
        }
        for step in shows {
            let written = row.written.is_none_or(|bits| is_written(bits, step.position));
            if written && step.kind != Kind::Constant {
                let start = starts.get(step.position).copied().unwrap_or(usize::MAX);
                let outcome = show::<LAYOUT>(&mut body.from(start)?, step, pen)?;
                self.note::<LAYOUT>(outcome, step, pen, status)?;
            } else {
                self.default::<LAYOUT>(step, pen, status)?;
            }
            after::<LAYOUT>(pen, ends);
        }
        Ok(())
    }

    #[inline(always)]
    fn note<const LAYOUT: u8>(
        &self,
        shown: Shown,
        step: &Step,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Result<(), Stop> {
        match shown {
            Shown::Value => {}
            Shown::NotFinite => status.not_finite.insert(step.column),
            Shown::Unwritten => self.default::<LAYOUT>(step, pen, status)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn default<const LAYOUT: u8>(
        &self,
        step: &Step,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Result<(), Stop> {
        status.defaulted.insert(step.column);
        let lead = lead::<LAYOUT>(step, pen.window()?)?;
        pen.keep(lead);
        let left = print_all(self.unwritten.get(step.column).ok_or(Stop::Unusual)?, pen.fork())?;
        pen.join(left);
        Ok(())
    }
}

/// Most bytes that a value takes, the content of its texts aside.
fn room_of(column: &Column) -> usize {
    let stored = match column.source.map(|(_, reading)| reading.shape) {
        Some(Shape::Scalar(Reading::Same(Scalar::Boolean))) => 5,
        Some(Shape::Scalar(Reading::Same(Scalar::Text))) => 2,
        _ => 24,
    };
    // A null takes four.
    stored.max(column.unwritten.len()).max(4)
}

/// Bytes that a stored byte prints as: floats of four take up to sixteen and a comma.
fn room_per_byte(reading: &FieldReading) -> usize {
    match reading.shape {
        Shape::Scalar(Reading::Same(Scalar::Bytes)) => 2,
        Shape::Scalar(_) => 1,
        Shape::List(_) | Shape::Vector(_) => 5,
    }
}

/// Opens an event.
#[inline(never)]
fn print_time(event_time_ms: i64, mut pen: Pen<'_>) -> Result<usize, Stop> {
    pen.byte(b'[')?;
    let length = print_long(pen.window::<ROOM>()?, event_time_ms);
    pen.keep(length);
    Ok(pen.left())
}

#[inline(never)]
fn print_all(bytes: &[u8], mut pen: Pen<'_>) -> Result<usize, Stop> {
    pen.bytes(bytes)?;
    Ok(pen.left())
}

#[inline(always)]
fn after<const LAYOUT: u8>(pen: &Pen<'_>, ends: &mut Vec<usize>) {
    if LAYOUT == BARE {
        ends.push(pen.left());
    }
}

/// None when a name is too long for a label, or too many fields are asked for out of order.
fn route(walk: &[FieldReading], columns: &[Column], quoted: bool) -> Option<Route> {
    let sources = columns.iter().filter_map(|column| column.source);
    let positions: Vec<usize> = sources.map(|(position, _)| position).collect();
    let shows = columns.iter().enumerate().map(|(column, it)| {
        let label = Label::new(&it.label)?;
        Some(match it.source {
            Some((position, reading)) => Step::show(reading, quoted, position, column, label),
            None => Step::constant(column, label),
        })
    });
    let shows: Vec<Step> = shows.collect::<Option<_>>()?;
    if !positions.is_sorted_by(|one, next| one < next) {
        if walk.len() > PLACES {
            return None;
        }
        let scan = walk.iter().map(|reading| Step::skip(*reading)).collect();
        return Some(Route::Places { scan, shows });
    }
    let mut steps = Vec::new();
    let mut passed = 0;
    for step in shows {
        if step.kind != Kind::Constant {
            let skipped = walk.iter().take(step.position).skip(passed);
            steps.extend(skipped.map(|reading| Step::skip(*reading)));
            passed = step.position.saturating_add(1);
        }
        steps.push(step);
    }
    steps.extend(walk.iter().skip(passed).map(|reading| Step::skip(*reading)));
    Some(Route::Straight(steps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Reading;
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
