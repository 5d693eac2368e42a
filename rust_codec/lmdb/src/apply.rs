//! One batch of mutations, resolved against what is stored.
//!
//! The rules are those of a wide-column store with cell timestamps: per slot (whole record, one
//! field, one event) the higher write timestamp stands, at equal timestamps the larger bytes, and a
//! delete takes everything at or below its own timestamp, whatever arrives first.

use std::ops::Bound;

use headrace_codec::catalog::{Catalog, FeatureType, Group};
use headrace_codec::cell::Cell;
use headrace_codec::fold::supersedes;
use headrace_codec::format::WRITE_TIMESTAMP_PER_MS;
use headrace_codec::mutation::{Mutation, MutationKind};
use heed::RwTxn;

use crate::environment::Table;
use crate::error::Result;
use crate::layout::{
    DELETE_GRACE_MS, DeleteMarker, EVENT_KEY_BYTES, EXPIRED_GRACE_MS, HISTORY_LAYOUT, HistoryHead,
    OBJECT_LAYOUT, ObjectRow, RECORD_FIELD_ID, event_key, read_event_key,
};

/// What a batch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows, events and heads put or removed.
    pub entries_changed: u64,
    /// Stored rows whose framing was damaged; they begin anew with what the batch holds.
    pub rows_damaged: u64,
}

/// Mutations sorted by key, ready to be written more than once (the map may grow on the way).
pub(crate) struct Batch<'m, 'c> {
    mutations: Vec<Mutation<'m>>,
    catalog: &'c Catalog,
    now_ms: i64,
}

/// Rows elsewhere that are looked at for collection per call, and per mutation of the call.
const COLLECT_ROWS_MIN: usize = 32;
const MUTATIONS_PER_COLLECTED_ROW: usize = 16;

impl<'m, 'c> Batch<'m, 'c> {
    pub(crate) fn new(
        mutations: impl IntoIterator<Item = Mutation<'m>>,
        catalog: &'c Catalog,
        now_ms: i64,
    ) -> Self {
        let mut mutations: Vec<_> = mutations.into_iter().collect();
        // One read and one write a row however often the batch names it, and pages touched in order.
        mutations.sort_unstable_by(|left, right| left.key.cmp(right.key));
        Self { mutations, catalog, now_ms }
    }

    /// Writes everything; gives what was done and where collection stopped.
    pub(crate) fn write(
        &self,
        rows: Table,
        transaction: &mut RwTxn<'_>,
        position: &[u8],
    ) -> Result<(Applied, Vec<u8>)> {
        let mut writer = RowWriter {
            rows,
            catalog: self.catalog,
            now_ms: self.now_ms,
            applied: Applied::default(),
            stored: Vec::new(),
            merged: Vec::new(),
        };
        for of_one_key in self.mutations.chunk_by(|left, right| left.key == right.key) {
            if let Some(first) = of_one_key.first() {
                let history =
                    matches!(first.kind, MutationKind::Event | MutationKind::DeleteHistory);
                writer.merge(transaction, first.key, history, of_one_key)?;
            }
        }
        let budget = self.mutations.len().checked_div(MUTATIONS_PER_COLLECTED_ROW).unwrap_or(0);
        let position = writer.collect(transaction, position, budget.max(COLLECT_ROWS_MIN))?;
        Ok((writer.applied, position))
    }
}

struct RowWriter<'c> {
    rows: Table,
    catalog: &'c Catalog,
    now_ms: i64,
    applied: Applied,
    /// Copy of the stored entry: writing ends every borrow from the transaction.
    stored: Vec<u8>,
    merged: Vec<u8>,
}

/// A cell in its place in the row.
struct Slot<'c> {
    field_id: u16,
    bytes: &'c [u8],
    /// None for a damaged cell, which stays to be reported until a write or a delete replaces it.
    cell: Option<Cell<'c>>,
}

impl<'c> Slot<'c> {
    fn new(field_id: u16, bytes: &'c [u8]) -> Self {
        Self { field_id, bytes, cell: Cell::open(bytes).ok() }
    }

    fn write_timestamp(&self) -> i64 {
        self.cell.map_or(i64::MIN, |cell| cell.write_timestamp)
    }
}

impl RowWriter<'_> {
    fn merge(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        history: bool,
        mutations: &[Mutation<'_>],
    ) -> Result<()> {
        self.stored.clear();
        if let Some(stored) = self.rows.get(transaction, key)? {
            self.stored.extend_from_slice(stored);
        }
        let catalog = self.catalog;
        let group = group_of(catalog, key);
        if history {
            self.merge_history(transaction, key, group, mutations)
        } else {
            self.merge_object(transaction, key, group, mutations)
        }
    }

    fn merge_object(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        group: Option<&Group>,
        mutations: &[Mutation<'_>],
    ) -> Result<()> {
        let (mut marker, mut slots) = (None, Vec::with_capacity(1));
        match ObjectRow::parse(&self.stored) {
            Ok(row) => {
                marker = row.marker;
                slots.extend(row.cells().map(|(field_id, cell)| Slot::new(field_id, cell)));
            }
            Err(_) if self.stored.is_empty() => {}
            Err(_) => self.applied.rows_damaged = self.applied.rows_damaged.saturating_add(1),
        }
        marker = raised(marker, mutations, self.now_ms);
        for mutation in mutations {
            let field_id = match mutation.kind {
                MutationKind::Record => RECORD_FIELD_ID,
                MutationKind::Patch(field_id) => field_id,
                _ => continue,
            };
            offer(&mut slots, Slot::new(field_id, mutation.cell));
        }
        let ttl_ms = group.and_then(|group| group.ttl_ms);
        slots.retain(|slot| {
            marker.is_none_or(|marker| slot.write_timestamp() > marker.write_timestamp)
                && !is_collectable(slot.write_timestamp(), ttl_ms, self.now_ms)
        });
        drop_superseded(&mut slots, group);
        marker = marker.filter(|marker| !is_over(*marker, self.now_ms));
        self.merged.clear();
        if marker.is_some() || !slots.is_empty() {
            let cells = slots.iter().map(|slot| (slot.field_id, slot.bytes));
            ObjectRow::write(&mut self.merged, marker, cells)?;
        }
        self.replace(transaction, key)
    }

    fn merge_history(
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

    /// Puts `merged` in the place of `stored`; empty is absent.
    fn replace(&mut self, transaction: &mut RwTxn<'_>, key: &[u8]) -> Result<()> {
        if self.merged == self.stored {
            return Ok(());
        }
        if self.merged.is_empty() {
            self.rows.delete(transaction, key)?;
        } else {
            self.rows.put(transaction, key, &self.merged)?;
        }
        self.applied.entries_changed = self.applied.entries_changed.saturating_add(1);
        Ok(())
    }

    /// Looks at the next `budget` entries after `position` and merges nothing into those that hold
    /// something to collect, which collects it. Gives the place to go on from; empty after the end.
    fn collect(
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

fn group_of<'c>(catalog: &'c Catalog, key: &[u8]) -> Option<&'c Group> {
    let (id, _) = key.split_first_chunk::<4>()?;
    catalog.group_by_id(u32::from_be_bytes(*id)).map(AsRef::as_ref)
}

/// The write timestamp of a stored cell; a damaged cell loses to everything.
fn stored_timestamp(cell: &[u8]) -> i64 {
    Cell::open(cell).map_or(i64::MIN, |cell| cell.write_timestamp)
}

/// The marker after the deletes among these mutations.
fn raised(
    marker: Option<DeleteMarker>,
    mutations: &[Mutation<'_>],
    now_ms: i64,
) -> Option<DeleteMarker> {
    mutations
        .iter()
        .filter(|mutation| {
            matches!(mutation.kind, MutationKind::DeleteRow | MutationKind::DeleteHistory)
        })
        .map(|mutation| DeleteMarker {
            write_timestamp: mutation.write_timestamp,
            arrived_at_ms: now_ms,
        })
        .fold(marker, |highest, marker| match highest {
            Some(highest) if highest.write_timestamp >= marker.write_timestamp => Some(highest),
            _ => Some(marker),
        })
}

/// Whether a marker has served its time.
const fn is_over(marker: DeleteMarker, now_ms: i64) -> bool {
    marker.arrived_at_ms.saturating_add(DELETE_GRACE_MS) <= now_ms
}

/// Whether a cell may be collected: a day after its expiry. Damaged cells stay to be reported.
const fn is_collectable(write_timestamp: i64, ttl_ms: Option<i64>, now_ms: i64) -> bool {
    let Some(ttl_ms) = ttl_ms else { return false };
    let event_time_ms = write_timestamp.div_euclid(WRITE_TIMESTAMP_PER_MS);
    let collected_at_ms = event_time_ms.saturating_add(ttl_ms).saturating_add(EXPIRED_GRACE_MS);
    write_timestamp != i64::MIN && collected_at_ms <= now_ms
}

fn offer<'c>(slots: &mut Vec<Slot<'c>>, slot: Slot<'c>) {
    match slots.binary_search_by_key(&slot.field_id, |slot| slot.field_id) {
        Ok(position) => {
            if let Some(standing) = slots.get_mut(position)
                && wins(slot.cell, standing.cell)
            {
                *standing = slot;
            }
        }
        Err(position) => slots.insert(position, slot),
    }
}

/// Whether a cell replaces the one in its place; a damaged one never does and always yields.
fn wins(candidate: Option<Cell<'_>>, standing: Option<Cell<'_>>) -> bool {
    match (candidate, standing) {
        (Some(candidate), Some(standing)) => supersedes(&candidate, &standing),
        (candidate, None) => candidate.is_some(),
        (None, Some(_)) => false,
    }
}

/// Drops patches that no order of later writes can bring back.
///
/// A newer record alone is no reason: a still newer one of an older schema may arrive that lacks the
/// field, and then the patch speaks again. But when every schema up to the record's has the field, a
/// record without it can only be of a later schema, which removed it for good (semantics 6).
fn drop_superseded(slots: &mut Vec<Slot<'_>>, group: Option<&Group>) {
    let Some((first, [_, ..])) = slots.split_first() else { return };
    let (Some(group), RECORD_FIELD_ID) = (group, first.field_id) else { return };
    let Some(record) = first.cell else { return };
    let Some(schema) = group.schema(record.fingerprint) else { return };
    let ordinal = schema.ordinal;
    slots.retain(|slot| {
        slot.field_id == RECORD_FIELD_ID
            || slot.write_timestamp() >= record.write_timestamp
            || !group
                .schemas
                .iter()
                .filter(|schema| schema.ordinal <= ordinal)
                .all(|schema| schema.position(slot.field_id).is_some())
    });
}
