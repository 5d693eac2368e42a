//! Collection: a few rows a batch, round the whole store, lose what expired or was deleted long ago.

use std::ops::Bound;

use headrace_codec::catalog::FeatureType;
use heed::RwTxn;

use crate::apply::{RowWriter, group_of};
use crate::error::Result;
use crate::layout::{
    DeleteMarker, EVENT_KEY_BYTES, HISTORY_LAYOUT, HistoryHead, OBJECT_LAYOUT, ObjectRow,
};
use crate::rules::{is_collectable, is_over, stored_timestamp};

impl RowWriter<'_> {
    /// Looks at the next `budget` entries after `position` and merges nothing into those that hold
    /// something to collect, which collects it. Gives the place to go on from; empty after the end.
    pub(crate) fn collect(
        &mut self,
        transaction: &mut RwTxn<'_>,
        position: &[u8],
        budget: usize,
    ) -> Result<Vec<u8>> {
        let from = if position.is_empty() {
            (Bound::Unbounded, Bound::Unbounded)
        } else {
            (Bound::Excluded(position), Bound::Unbounded)
        };
        let mut due = Vec::<(Vec<u8>, bool)>::new();
        let mut left = budget;
        let mut last = Vec::new();
        for entry in self.rows.range(transaction, &from)? {
            let (key, value) = entry?;
            if left == 0 {
                break;
            }
            left = left.saturating_sub(1);
            last.clear();
            last.extend_from_slice(key);
            if let Some((row, history)) = self.collectable(key, value)
                && due.last().is_none_or(|(last, _)| last != row)
            {
                due.push((row.to_vec(), history));
            }
        }
        for (key, history) in due {
            self.merge(transaction, &key, history, &[])?;
        }
        Ok(if left == 0 { last } else { Vec::new() })
    }

    /// The row that an entry belongs to, and whether it is a History, when there is something to
    /// collect in the entry. A damaged row is left for its reader to report.
    fn collectable<'k>(&self, key: &'k [u8], value: &[u8]) -> Option<(&'k [u8], bool)> {
        let group = group_of(self.catalog, key)?;
        let expired =
            |cell: &[u8]| is_collectable(stored_timestamp(cell), group.ttl_ms, self.now_ms);
        let over = |marker: Option<DeleteMarker>| {
            marker.is_some_and(|marker| is_over(marker, self.now_ms))
        };
        match (value.first()?, group.feature_type) {
            (&OBJECT_LAYOUT, FeatureType::Object) => {
                let row = ObjectRow::parse(value).ok()?;
                let due = over(row.marker) || row.cells().any(|(_, cell)| expired(cell));
                due.then_some((key, false))
            }
            (&HISTORY_LAYOUT, FeatureType::History) => {
                over(HistoryHead::parse(value).ok()?.marker).then_some((key, true))
            }
            (_, FeatureType::History) if expired(value) => {
                let (history, _) = key.split_at_checked(key.len().checked_sub(EVENT_KEY_BYTES)?)?;
                Some((history, true))
            }
            _ => None,
        }
    }
}
