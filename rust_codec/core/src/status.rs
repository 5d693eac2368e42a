//! What a row's answer says beside its values: sets of field positions.

/// A set of small numbers; positions below 64 take no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    first: u64,
    more: Vec<u64>,
}

impl FieldSet {
    /// Puts a position in.
    #[inline]
    pub fn insert(&mut self, position: usize) {
        if position < 64 {
            self.first |= bit(position);
            return;
        }
        let word = (position / 64).saturating_sub(1);
        if self.more.len() <= word {
            self.more.resize(word.saturating_add(1), 0);
        }
        if let Some(slot) = self.more.get_mut(word) {
            *slot |= bit(position);
        }
    }

    /// Whether a position is in.
    #[must_use]
    #[inline]
    pub fn contains(&self, position: usize) -> bool {
        let word = match position / 64 {
            0 => self.first,
            word => self.more.get(word.saturating_sub(1)).copied().unwrap_or(0),
        };
        word & bit(position) != 0
    }

    /// Whether nothing is in.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.more.iter().all(|word| *word == 0)
    }

    /// How many positions are in.
    #[must_use]
    pub fn count(&self) -> usize {
        let ones: u32 = self.words().map(u64::count_ones).sum();
        usize::try_from(ones).unwrap_or(usize::MAX)
    }

    /// Takes everything out and keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        self.first = 0;
        self.more.clear();
    }

    /// The positions in rising order.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.words().enumerate().flat_map(|(index, word)| {
            let base = index.saturating_mul(64);
            (0..64_usize)
                .filter(move |place| word & bit(*place) != 0)
                .map(move |place| base.saturating_add(place))
        })
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

const fn bit(position: usize) -> u64 {
    1_u64 << (position % 64)
}

/// The fields of a row that are not plainly OK, by position in the request's field list. A
/// transcoder only adds to it; the caller clears it between rows (not between events of one row).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowStatus {
    /// Never written, or expired: the current default stands there.
    pub defaulted: FieldSet,
    /// NaN or infinite, whole or in an item: null stands there.
    pub not_finite: FieldSet,
}

impl RowStatus {
    /// Whether every field is OK.
    #[must_use]
    #[inline]
    pub fn is_ok(&self) -> bool {
        self.defaulted.is_empty() && self.not_finite.is_empty()
    }

    /// Forgets everything and keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        self.defaulted.clear();
        self.not_finite.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_across_word_borders() {
        let mut set = FieldSet::default();
        let wanted = [0, 1, 63, 64, 127, 128, 4000];
        for position in wanted {
            set.insert(position);
        }
        assert_eq!(set.positions().collect::<Vec<_>>(), wanted);
        assert_eq!(set.count(), wanted.len());
        assert!(set.contains(4000) && !set.contains(3999) && !set.contains(40_000));
        set.clear();
        assert!(set.is_empty());
    }
}
