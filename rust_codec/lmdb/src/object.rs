//! One Object row: its cells, the mutations of its key, and what stands of both.

use headrace_codec::catalog::Group;
use headrace_codec::cell::Cell;
use headrace_codec::mutation::{Mutation, MutationKind};
use heed::RwTxn;

use crate::apply::RowWriter;
use crate::error::Result;
use crate::layout::{ObjectRow, RECORD_FIELD_ID};
use crate::rules::{is_collectable, is_over, raised, wins};

/// A cell in its place in the row.
struct Slot<'c> {
    field_id: u16,
    bytes: &'c [u8],
    /// None for a damaged cell, which stays to be reported until a write takes its place or a further
    /// delete comes: what it held may have been the newest.
    cell: Option<Cell<'c>>,
}

impl<'c> Slot<'c> {
    fn new(field_id: u16, bytes: &'c [u8]) -> Self {
        Self { field_id, bytes, cell: Cell::open(bytes).ok() }
    }
}

impl RowWriter<'_> {
    pub(crate) fn merge_object(
        &mut self,
        transaction: &mut RwTxn<'_>,
        key: &[u8],
        group: Option<&Group>,
        mutations: &[Mutation<'_>],
    ) -> Result<()> {
        let (mut before, mut slots) = (None, Vec::with_capacity(1));
        match ObjectRow::parse(&self.stored) {
            Ok(row) => {
                before = row.marker;
                slots.extend(row.cells().map(|(field_id, cell)| Slot::new(field_id, cell)));
            }
            Err(_) if self.stored.is_empty() => {}
            Err(_) => self.applied.rows_damaged = self.applied.rows_damaged.saturating_add(1),
        }
        let marker = raised(before, mutations, self.now_ms);
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
            let Some(cell) = slot.cell else { return marker == before };
            marker.is_none_or(|marker| cell.write_timestamp > marker.write_timestamp)
                && !is_collectable(cell.write_timestamp, ttl_ms, self.now_ms)
        });
        drop_superseded(&mut slots, group);
        let marker = marker.filter(|marker| !is_over(*marker, self.now_ms));
        self.merged.clear();
        if marker.is_some() || !slots.is_empty() {
            let cells = slots.iter().map(|slot| (slot.field_id, slot.bytes));
            ObjectRow::write(&mut self.merged, marker, cells)?;
        }
        self.replace(transaction, key)
    }
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
            || slot.cell.is_none_or(|cell| cell.write_timestamp >= record.write_timestamp)
            || !group
                .schemas
                .iter()
                .filter(|schema| schema.ordinal <= ordinal)
                .all(|schema| schema.position(slot.field_id).is_some())
    });
}
