//! The plan of the quick walk, and its runs over one body.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::pen::{Pen, ROOM, print_long};
use super::walk::{Kind, Label, Shown, Step, Stop, show, skip, skip_whole};
use super::{Column, is_written};
use crate::resolve::{FieldReading, Shape};
use crate::status::RowStatus;

/// Most fields of a writer that the quick walk keeps the places of.
const PLACES: usize = 64;

/// Room of one scalar that is no text: its longest form and what a whole store writes beyond it.
const SCALAR_ROOM: usize = 24;

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
    labels: Vec<Label>,
    unwritten: Vec<Vec<u8>>,
    route: Route,
    room: usize,
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
        let labels = columns.iter().map(|column| Label::new(&column.label));
        let labels: Vec<Label> = labels.collect::<Option<_>>()?;
        if columns.is_empty() {
            return None;
        }
        let lists = walk.iter().any(|reading| !matches!(reading.shape, Shape::Scalar(_)));
        let fixed = columns.iter().map(|column| {
            let shown = column.unwritten.len().max(SCALAR_ROOM);
            column.label.len().saturating_add(shown).saturating_add(2)
        });
        Some(Self {
            room: fixed.sum::<usize>().saturating_add(super::walk::LABEL_MAX.saturating_add(ROOM)),
            room_per_byte: if lists { 5 } else { 1 },
            labels,
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
        loop {
            out.resize(before.saturating_add(room), 0);
            let slot = out.get_mut(before..).unwrap_or_default();
            let outcome = self.run::<LAYOUT>(row, Pen::new(slot), ends, status);
            match outcome {
                Ok(length) => {
                    out.truncate(before.saturating_add(length));
                    for end in ends.get_mut(ends_before..).unwrap_or_default() {
                        *end = end.saturating_add(before);
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

    #[inline(always)]
    fn run<const LAYOUT: u8>(
        &self,
        row: Row<'_>,
        mut pen: Pen<'_>,
        ends: &mut Vec<usize>,
        status: &mut RowStatus,
    ) -> Result<usize, Stop> {
        match LAYOUT {
            ROW => pen.byte(b'[')?,
            OBJECT => pen.byte(b'{')?,
            _ => {}
        }
        if let Some(event_time_ms) = row.event_time_ms {
            let length = print_long(pen.window::<ROOM>()?, event_time_ms);
            pen.keep(length);
            pen.byte(b',')?;
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
            pen.back();
            pen.byte(if LAYOUT == ROW { b']' } else { b'}' })?;
        }
        Ok(pen.at())
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
        let mut rest = row.body;
        for step in steps {
            if step.is_skip() {
                skip(&mut rest, step)?;
                continue;
            }
            self.label::<LAYOUT>(step.column, pen)?;
            if step.kind == Kind::Constant {
                self.default(step.column, pen, status)?;
            } else if row.written.is_some_and(|bits| !is_written(bits, step.position)) {
                rest = skip_whole(rest, step)?;
                self.default(step.column, pen, status)?;
            } else {
                let shown = show(&mut rest, step, pen)?;
                self.note(shown, step.column, pen, status)?;
            }
            after::<LAYOUT>(pen, ends)?;
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
        let mut rest = row.body;
        for (start, step) in starts.iter_mut().zip(scan) {
            *start = row.body.len().wrapping_sub(rest.len());
            skip(&mut rest, step)?;
        }
        if !rest.is_empty() {
            return Err(Stop::Unusual);
        }
        for step in shows {
            self.label::<LAYOUT>(step.column, pen)?;
            let written = row.written.is_none_or(|bits| is_written(bits, step.position));
            if written && step.kind != Kind::Constant {
                let start = starts.get(step.position).copied().unwrap_or(usize::MAX);
                let mut rest = row.body.get(start..).ok_or(Stop::Unusual)?;
                let outcome = show(&mut rest, step, pen)?;
                self.note(outcome, step.column, pen, status)?;
            } else {
                self.default(step.column, pen, status)?;
            }
            after::<LAYOUT>(pen, ends)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn label<const LAYOUT: u8>(&self, column: usize, pen: &mut Pen<'_>) -> Result<(), Stop> {
        if LAYOUT == OBJECT {
            self.labels.get(column).ok_or(Stop::Unusual)?.write(pen)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn note(
        &self,
        shown: Shown,
        column: usize,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Result<(), Stop> {
        match shown {
            Shown::Value => {}
            Shown::NotFinite => status.not_finite.insert(column),
            Shown::Unwritten => self.default(column, pen, status)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn default(
        &self,
        column: usize,
        pen: &mut Pen<'_>,
        status: &mut RowStatus,
    ) -> Result<(), Stop> {
        status.defaulted.insert(column);
        let at = print_all(self.unwritten.get(column).ok_or(Stop::Unusual)?, pen.fork())?;
        pen.join(at);
        Ok(())
    }
}

#[inline(never)]
fn print_all(bytes: &[u8], mut pen: Pen<'_>) -> Result<usize, Stop> {
    pen.bytes(bytes)?;
    Ok(pen.at())
}

#[inline(always)]
fn after<const LAYOUT: u8>(pen: &mut Pen<'_>, ends: &mut Vec<usize>) -> Result<(), Stop> {
    if LAYOUT == BARE {
        ends.push(pen.at());
        return Ok(());
    }
    Ok(pen.byte(b',')?)
}

fn route(walk: &[FieldReading], columns: &[Column], quoted: bool) -> Option<Route> {
    let sources = columns.iter().filter_map(|column| column.source);
    let positions: Vec<usize> = sources.map(|(position, _)| position).collect();
    let shows = columns.iter().enumerate().map(|(column, it)| match it.source {
        Some((position, reading)) => Step::show(reading, quoted, position, column),
        None => Step::constant(column),
    });
    if !positions.is_sorted_by(|one, next| one < next) {
        if walk.len() > PLACES {
            return None;
        }
        let scan = walk.iter().map(|reading| Step::skip(*reading)).collect();
        return Some(Route::Places { scan, shows: shows.collect() });
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
