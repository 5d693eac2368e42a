//! What is not OK about the rows of one result; the worst status wins per field (semantics 11).

use crate::status::{FieldSet, RowStatus};

/// What can be said of a value, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// As stored and fresh.
    Ok,
    /// Never written or expired: the default stands there.
    Defaulted,
    /// Older than the group's `max_age`.
    Stale,
    /// NaN or infinite: null stands there in JSON.
    NotFinite,
    /// No live row.
    Missing,
    /// The store was not reached.
    Unavailable,
    /// The stored bytes are damaged.
    Corrupt,
}

impl Status {
    /// From good to bad; an item's position is its number in Avro.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Defaulted,
        Self::Stale,
        Self::NotFinite,
        Self::Missing,
        Self::Unavailable,
        Self::Corrupt,
    ];

    /// The word of the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Defaulted => "DEFAULTED",
            Self::Stale => "STALE",
            Self::NotFinite => "NOT_FINITE",
            Self::Missing => "MISSING",
            Self::Unavailable => "UNAVAILABLE",
            Self::Corrupt => "CORRUPT",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn number(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Defaulted => 1,
            Self::Stale => 2,
            Self::NotFinite => 3,
            Self::Missing => 4,
            Self::Unavailable => 5,
            Self::Corrupt => 6,
        }
    }
}

/// One entry of a result's `statuses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Row of the result.
    pub row: usize,
    /// Never OK.
    pub status: Status,
    /// Positions in the field list; None is the whole row.
    pub fields: Option<FieldSet>,
}

/// The `statuses` of one result.
#[derive(Debug, Default)]
pub struct Statuses {
    entries: Vec<Entry>,
}

impl Statuses {
    /// Forgets all entries and keeps the room.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The entries in row order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Notes a row of `width` fields and returns the worst that is said of any of them.
    #[inline]
    pub fn note(&mut self, row: usize, whole: Status, fields: &RowStatus, width: usize) -> Status {
        if whole == Status::Ok && fields.is_ok() {
            return Status::Ok;
        }
        if whole > Status::NotFinite || fields.is_ok() {
            self.entries.push(Entry { row, status: whole, fields: None });
            return whole;
        }
        self.note_fields(row, whole, fields, width)
    }

    #[cold]
    fn note_fields(
        &mut self,
        row: usize,
        whole: Status,
        fields: &RowStatus,
        width: usize,
    ) -> Status {
        let mut rest = FieldSet::default();
        for position in 0..width {
            let below = whole == Status::Stale || fields.defaulted.contains(position);
            if below && !fields.not_finite.contains(position) {
                rest.insert(position);
            }
        }
        let below = if whole == Status::Stale { Status::Stale } else { Status::Defaulted };
        let mut worst = Status::Ok;
        for (status, set) in [(below, rest), (Status::NotFinite, fields.not_finite.clone())] {
            if !set.is_empty() {
                let fields = (set.count() < width).then_some(set);
                self.entries.push(Entry { row, status, fields });
                worst = status;
            }
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(whole: Status, defaulted: &[usize], not_finite: &[usize]) -> (Status, Vec<Entry>) {
        let mut fields = RowStatus::default();
        for position in defaulted {
            fields.defaulted.insert(*position);
        }
        for position in not_finite {
            fields.not_finite.insert(*position);
        }
        let mut statuses = Statuses::default();
        let worst = statuses.note(5, whole, &fields, 3);
        (worst, statuses.entries)
    }

    fn entry(status: Status, fields: Option<&[usize]>) -> Entry {
        let fields = fields.map(|positions| {
            let mut set = FieldSet::default();
            for position in positions {
                set.insert(*position);
            }
            set
        });
        Entry { row: 5, status, fields }
    }

    #[test]
    fn an_ok_row_is_not_listed() {
        assert_eq!(noted(Status::Ok, &[], &[]), (Status::Ok, vec![]));
    }

    #[test]
    fn a_status_of_some_fields_names_them_and_one_of_all_fields_does_not() {
        let some = entry(Status::Defaulted, Some(&[0, 2]));
        assert_eq!(noted(Status::Ok, &[0, 2], &[]), (Status::Defaulted, vec![some]));
        let all = entry(Status::Defaulted, None);
        assert_eq!(noted(Status::Ok, &[0, 1, 2], &[]), (Status::Defaulted, vec![all]));
    }

    #[test]
    fn the_worst_status_wins_per_field() {
        let expected =
            vec![entry(Status::Stale, Some(&[0, 1])), entry(Status::NotFinite, Some(&[2]))];
        assert_eq!(noted(Status::Stale, &[0, 2], &[2]), (Status::NotFinite, expected));
        for whole in [Status::Missing, Status::Unavailable, Status::Corrupt] {
            assert_eq!(noted(whole, &[0], &[1]), (whole, vec![entry(whole, None)]));
        }
    }

    #[test]
    fn numbers_are_positions_and_words_differ() {
        for (position, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status.number(), position);
        }
        assert!(Status::ALL.is_sorted());
    }
}
