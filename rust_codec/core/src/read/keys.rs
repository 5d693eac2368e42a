//! Key columns → store keys, one after another in one buffer, in request order.

use std::ops::Range;

use super::Limits;
use super::columns::Column;
use super::plan::{Accept, Plan, PlannedRead};
use super::problem::{Code, Problem};
use super::request::Result;
use crate::catalog::KeyField;
use crate::error::Error;
use crate::key::KeyWriter;
use crate::schema::Scalar;

/// The store keys of a request.
#[derive(Debug, Default)]
pub struct Keys {
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    ends: Vec<usize>,
    /// Where each read's keys end in `ends`.
    read_ends: Vec<usize>,
}

impl Keys {
    /// Rows of the whole request.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the request has no rows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What the buffers take.
    #[must_use]
    pub const fn capacity_bytes(&self) -> usize {
        self.bytes
            .capacity()
            .saturating_add(self.ends.capacity().saturating_mul(size_of::<usize>()))
    }

    /// One key; empty when there is none.
    #[must_use]
    #[inline]
    pub fn key(&self, slot: usize) -> &[u8] {
        let start = slot.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(slot).copied().unwrap_or_default();
        self.bytes.get(start.unwrap_or_default()..end).unwrap_or_default()
    }

    /// The slots of one read.
    #[must_use]
    pub fn slots(&self, read: usize) -> Range<usize> {
        let start = read.checked_sub(1).and_then(|before| self.read_ends.get(before)).copied();
        start.unwrap_or_default()..self.read_ends.get(read).copied().unwrap_or_default()
    }

    /// Encodes the keys of all reads, replacing what was there.
    pub fn encode(&mut self, plan: &Plan, columns: &[Column], limits: &Limits) -> Result<()> {
        self.bytes.clear();
        self.ends.clear();
        self.read_ends.clear();
        for (position, read) in plan.reads.iter().enumerate() {
            let within = |problem: Problem| within(plan, position, problem);
            let rows = rows(plan, read, columns).map_err(within)?;
            if self.ends.len().saturating_add(rows) > limits.rows_max {
                let detail = format!("a request has at most {} rows", limits.rows_max);
                return Err(within(Problem::new(Code::TooManyRows, detail)));
            }
            self.encode_read(plan, read, columns, rows).map_err(within)?;
            self.read_ends.push(self.ends.len());
        }
        Ok(())
    }

    fn encode_read(
        &mut self,
        plan: &Plan,
        read: &PlannedRead,
        columns: &[Column],
        rows: usize,
    ) -> Result<()> {
        if let [position] = read.columns.as_slice()
            && let Some(column) = columns.get(*position)
            && read.group.keys.first().is_some_and(|key| key.scalar != Scalar::Text)
            && column.integers().len() == rows
        {
            return self.encode_integers(plan, read, *position, column);
        }
        for row in 0..rows {
            let mut writer = KeyWriter::new(&read.group, &mut self.bytes);
            for (field, position) in read.group.keys.iter().zip(&read.columns) {
                let column = columns.get(*position);
                let column = column.ok_or_else(|| lacks(plan, *position, row, field))?;
                let row = if column.len() == 1 { 0 } else { row };
                let pushed = if field.scalar == Scalar::Text {
                    let text = column.text(row).and_then(|text| str::from_utf8(text).ok());
                    writer.push_text(text.ok_or_else(|| lacks(plan, *position, row, field))?)
                } else {
                    let value = column.integer(row);
                    writer.push_integer(value.ok_or_else(|| lacks(plan, *position, row, field))?)
                };
                pushed.map_err(|error| refused(plan, *position, row, error))?;
            }
            writer.finish().map_err(|error| {
                let position = longest(read, columns, row);
                let single = columns.get(position).is_some_and(|column| column.len() == 1);
                refused(plan, position, if single { 0 } else { row }, error)
            })?;
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }

    /// The one key column that most groups have.
    fn encode_integers(
        &mut self,
        plan: &Plan,
        read: &PlannedRead,
        position: usize,
        column: &Column,
    ) -> Result<()> {
        for (row, value) in column.integers().iter().enumerate() {
            let mut writer = KeyWriter::new(&read.group, &mut self.bytes);
            writer.push_integer(*value).map_err(|error| refused(plan, position, row, error))?;
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }
}

/// How many rows the key columns of a read make.
fn rows(plan: &Plan, read: &PlannedRead, columns: &[Column]) -> Result<usize> {
    let length = |position: &usize| columns.get(*position).map_or(0, Column::len);
    let mut lengths = read.columns.iter().map(length);
    let first = lengths.next().unwrap_or_default();
    let mut rows = first;
    for length in lengths {
        if length == rows || (plan.broadcast && length == 1) {
            continue;
        }
        if plan.broadcast && rows == 1 {
            rows = length;
            continue;
        }
        return Err(ragged(plan, read, columns));
    }
    Ok(rows)
}

fn ragged(plan: &Plan, read: &PlannedRead, columns: &[Column]) -> Problem {
    let lengths: Vec<String> = read
        .columns
        .iter()
        .filter_map(|position| {
            let (planned, column) = (plan.columns.get(*position)?, columns.get(*position)?);
            Some(format!("`{}` has {}", planned.name, column.len()))
        })
        .collect();
    let rule = if plan.broadcast { "equally many keys, or one," } else { "equally many keys" };
    let detail = format!(
        "the key columns of `{}` need {rule} each; {}",
        read.group.name,
        lengths.join(", ")
    );
    Problem::new(Code::RaggedKeys, detail)
}

/// A key that cannot be stored, at its place in the column that the caller sent.
fn refused(plan: &Plan, column: usize, row: usize, error: Error) -> Problem {
    let name = plan.columns.get(column).map_or("", |planned| &*planned.name);
    Problem::new(Code::BadKey, error.message).item(row).under(name)
}

/// A column without a key of the type that a group has: no such key is ever made up.
#[cold]
fn lacks(plan: &Plan, column: usize, row: usize, field: &KeyField) -> Problem {
    let name = plan.columns.get(column).map_or("", |planned| &*planned.name);
    let detail = format!("a key of type {} was expected", field.scalar.name());
    Problem::new(Code::WrongType, detail).item(row).under(name)
}

/// Of the columns of a read, the one whose Text is longest in a row: what makes a key too long.
fn longest(read: &PlannedRead, columns: &[Column], row: usize) -> usize {
    let length = |position: &usize| {
        let column = columns.get(*position);
        let text = column.and_then(|column| column.text(if column.len() == 1 { 0 } else { row }));
        text.map_or(0, <[u8]>::len)
    };
    read.columns.iter().copied().max_by_key(length).unwrap_or_default()
}

/// Puts the place of a read's keys around a problem.
fn within(plan: &Plan, read: usize, problem: Problem) -> Problem {
    let problem = problem.under(plan.accept.keys_member());
    if plan.accept == Accept::Feast || plan.broadcast {
        problem
    } else {
        problem.item(read).under("reads")
    }
}
