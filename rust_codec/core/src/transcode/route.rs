//! The way of a quick walk through a body, and the room that it needs.

use super::Column;
use super::step::{Kind, Step};
use crate::resolve::{FieldReading, Reading, Shape};
use crate::schema::Scalar;

#[derive(Debug, Clone)]
pub(super) enum Route {
    /// The fields asked for stand in the writer's order: one pass prints them.
    Straight(Vec<Step>),
    /// They do not: one pass finds their places, then each is printed from its own.
    Places { scan: Vec<Step>, shows: Vec<Step> },
}

/// Most bytes that a value takes, the content of its texts and lists aside.
pub(super) fn room_of(column: &Column) -> usize {
    let stored = match column.source.map(|(_, reading)| reading.shape) {
        Some(Shape::Scalar(Reading::Same(Scalar::Boolean))) => 5,
        Some(Shape::Scalar(Reading::Same(Scalar::Text))) => 2,
        Some(Shape::Scalar(Reading::Same(Scalar::Timestamp))) => 36,
        _ => 24,
    };
    // A null takes four.
    stored.max(column.unwritten.len()).max(4)
}

/// Bytes that a stored byte prints as, usually and at most: an item of a list and its comma, a
/// character that is escaped by its number.
pub(super) fn room_per_byte(reading: &FieldReading) -> (usize, usize) {
    match reading.shape {
        Shape::Scalar(Reading::Same(Scalar::Bytes)) => (2, 2),
        Shape::Scalar(Reading::Same(Scalar::Text)) => (1, 6),
        Shape::Scalar(_) => (1, 1),
        Shape::List(Reading::Same(Scalar::Boolean)) => (6, 6),
        Shape::List(Reading::Same(Scalar::Date)) => (5, 14),
        Shape::List(Reading::Same(Scalar::Timestamp)) => (5, 32),
        Shape::List(_) => (5, 6),
        Shape::Vector(_) => (5, 5),
    }
}

impl Route {
    /// None when there are more fields than a position can tell.
    pub(super) fn new(walk: &[FieldReading], columns: &[Column], quoted: bool) -> Option<Self> {
        u32::try_from(walk.len().max(columns.len())).ok()?;
        let shows = (0..).zip(columns).map(|(column, it)| match it.source {
            Some((position, reading)) => {
                Some(Step::show(reading, quoted, u32::try_from(position).ok()?, column))
            }
            None => Some(Step::constant(column)),
        });
        let shows: Vec<Step> = shows.collect::<Option<_>>()?;
        let stored = shows.iter().filter(|step| step.kind != Kind::Constant);
        let positions: Vec<u32> = stored.map(|step| step.position).collect();
        if positions.is_sorted_by(|one, next| one < next) {
            return Some(straight(walk, shows));
        }
        Some(places(walk, shows, positions))
    }
}

fn straight(walk: &[FieldReading], shows: Vec<Step>) -> Route {
    let mut steps = Vec::new();
    let mut passed = 0;
    for step in shows {
        if step.kind != Kind::Constant {
            let position = step.position as usize;
            let skipped = walk.iter().take(position).skip(passed);
            steps.extend(skipped.map(|reading| Step::skip(*reading, 0)));
            passed = position.saturating_add(1);
        }
        steps.push(step);
    }
    steps.extend(walk.iter().skip(passed).map(|reading| Step::skip(*reading, 0)));
    Route::Straight(steps)
}

/// A slot for each position that is asked for, and the first for all others.
fn places(walk: &[FieldReading], mut shows: Vec<Step>, mut positions: Vec<u32>) -> Route {
    positions.sort_unstable();
    positions.dedup();
    let slots: Vec<(u32, u32)> = positions.into_iter().zip(1..).collect();
    let slot = |position: u32| {
        let found = slots.binary_search_by_key(&position, |(position, _)| *position).ok();
        found.and_then(|index| slots.get(index)).map_or(0, |(_, slot)| *slot)
    };
    for step in shows.iter_mut().filter(|step| step.kind != Kind::Constant) {
        step.slot = slot(step.position);
    }
    let scan = walk.iter().zip(0..).map(|(reading, position)| Step::skip(*reading, slot(position)));
    Route::Places { scan: scan.collect(), shows }
}
