//! One batch of mutations, resolved against what is stored.
//!
//! The rules are those of a wide-column store with cell timestamps: per slot (whole record, one
//! field, one event) the higher write timestamp stands, at equal timestamps the larger bytes, and a
//! delete takes everything at or below its own timestamp, whatever arrives first.

use headrace_codec::catalog::{Catalog, Group};
use headrace_codec::mutation::{Mutation, MutationKind};
use heed::RwTxn;

use crate::environment::Table;
use crate::error::Result;

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

/// Writes row after row in one transaction; `object`, `history` and `collect` say how.
pub(crate) struct RowWriter<'c> {
    pub(crate) rows: Table,
    pub(crate) catalog: &'c Catalog,
    pub(crate) now_ms: i64,
    pub(crate) applied: Applied,
    /// Copy of the stored entry: writing ends every borrow from the transaction.
    pub(crate) stored: Vec<u8>,
    /// What takes its place; empty is absent.
    pub(crate) merged: Vec<u8>,
}

impl RowWriter<'_> {
    /// Merges the mutations of one key into what is stored; with none it only collects.
    pub(crate) fn merge(
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

    /// Puts `merged` in the place of `stored`; empty is absent.
    pub(crate) fn replace(&mut self, transaction: &mut RwTxn<'_>, key: &[u8]) -> Result<()> {
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
}

pub(crate) fn group_of<'c>(catalog: &'c Catalog, key: &[u8]) -> Option<&'c Group> {
    let (id, _) = key.split_first_chunk::<4>()?;
    catalog.group_by_id(u32::from_be_bytes(*id)).map(AsRef::as_ref)
}
