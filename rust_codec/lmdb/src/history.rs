//! One History: its head, its events, and the mutations of its key.

use std::ops::Bound;

use headrace_codec::catalog::Group;
use headrace_codec::cell::Cell;
use headrace_codec::format::WRITE_TIMESTAMP_PER_MS;
use headrace_codec::mutation::{Mutation, MutationKind};
use heed::RwTxn;

use crate::apply::RowWriter;
use crate::error::Result;
use crate::layout::{DeleteMarker, HistoryHead, event_key, read_event_key};
use crate::rules::{is_collectable, is_over, raised, stored_timestamp, wins};

impl RowWriter<'_> {
    pub(crate) fn merge_history(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        group: Option<&Group>,
        mutations: &[Mutation<'_>],
    ) -> Result<()> {
        let mut head = match HistoryHead::parse(&self.stored) {
            Ok(head) => head,
            Err(_) if self.stored.is_empty() => HistoryHead::default(),
            Err(_) => {
                self.applied.rows_damaged = self.applied.rows_damaged.saturating_add(1);
                HistoryHead { count: self.count_events(transaction, key)?, marker: None }
            }
        };
        let before = head.marker;
        head.marker = raised(before, mutations, self.now_ms);
        if let Some(marker) = head.marker.filter(|_| head.marker != before) {
            self.delete_events(transaction, key, marker, &mut head)?;
        }
        let floor = head.marker.map_or(i64::MIN, |marker| marker.write_timestamp);
        for mutation in mutations {
            if mutation.kind == MutationKind::Event && mutation.write_timestamp > floor {
                self.put_event(transaction, key, mutation, &mut head)?;
            }
        }
        self.trim(transaction, key, group, &mut head)?;
        head.marker = head.marker.filter(|marker| !is_over(*marker, self.now_ms));
        self.merged.clear();
        if head != HistoryHead::default() {
            head.write(&mut self.merged);
        }
        self.replace(transaction, key)
    }

    fn put_event(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        mutation: &Mutation<'_>,
        head: &mut HistoryHead,
    ) -> Result<()> {
        let event_time_ms = mutation.write_timestamp.div_euclid(WRITE_TIMESTAMP_PER_MS);
        event_key(&mut self.merged, key, event_time_ms, mutation.digest);
        match self.rows.get(transaction, &self.merged)? {
            Some(stored) if !wins(Cell::open(mutation.cell).ok(), Cell::open(stored).ok()) => {
                return Ok(());
            }
            Some(_) => {}
            None => head.count = head.count.saturating_add(1),
        }
        self.rows.put(transaction, &self.merged, mutation.cell)?;
        self.applied.entries_changed = self.applied.entries_changed.saturating_add(1);
        Ok(())
    }

    /// Removes events from the oldest on while there are too many or they are long expired.
    fn trim(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        group: Option<&Group>,
        head: &mut HistoryHead,
    ) -> Result<()> {
        let events_max = group.map_or(u32::MAX, |group| group.max_events);
        let ttl_ms = group.and_then(|group| group.ttl_ms);
        loop {
            let oldest = self.rows.rev_prefix_iter(transaction, key)?.next().transpose()?;
            let Some((event, cell)) = oldest.filter(|(event, _)| *event != key) else {
                head.count = 0;
                return Ok(());
            };
            let expired = is_collectable(stored_timestamp(cell), ttl_ms, self.now_ms);
            if head.count <= events_max && !expired {
                return Ok(());
            }
            self.merged.clear();
            self.merged.extend_from_slice(event);
            self.rows.delete(transaction, &self.merged)?;
            head.count = head.count.saturating_sub(1);
            self.applied.entries_changed = self.applied.entries_changed.saturating_add(1);
        }
    }

    fn delete_events(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        marker: DeleteMarker,
        head: &mut HistoryHead,
    ) -> Result<()> {
        let newest_ms = marker.write_timestamp.div_euclid(WRITE_TIMESTAMP_PER_MS);
        event_key(&mut self.merged, key, newest_ms, u64::MAX);
        let mut doomed = Vec::new();
        let from = (Bound::Included(self.merged.as_slice()), Bound::Unbounded);
        for entry in self.rows.range(transaction, &from)? {
            let (event, cell) = entry?;
            if !event.starts_with(key) {
                break;
            }
            if stored_timestamp(cell) <= marker.write_timestamp {
                doomed.push(event.to_vec());
            }
        }
        for event in doomed {
            self.rows.delete(transaction, &event)?;
            head.count = head.count.saturating_sub(1);
            self.applied.entries_changed = self.applied.entries_changed.saturating_add(1);
        }
        Ok(())
    }

    fn count_events(&self, transaction: &RwTxn<'_>, key: &[u8]) -> Result<u32> {
        let mut count: u32 = 0;
        for entry in self.rows.prefix_iter(transaction, key)? {
            count = count.saturating_add(u32::from(read_event_key(key, entry?.0).is_some()));
        }
        Ok(count)
    }
}
