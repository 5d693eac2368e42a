//! The store handle: named values, batches, snapshots.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use headrace_codec::catalog::Catalog;
use headrace_codec::mutation::Mutation;

use crate::apply::{Applied, Batch};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::read::ReadTransaction;

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// First size of the map; it doubles whenever it is full. Address space only, not memory or disk.
    pub map_size_bytes: usize,
    /// Whether writes are refused; such an open needs a store that exists.
    pub read_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { map_size_bytes: 16 << 30, read_only: false }
    }
}

/// Sizes of a store, as `headrace doctor` and metrics show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Address space of the map.
    pub map_size_bytes: u64,
    /// Bytes of the data file up to the last page in use.
    pub used_bytes: u64,
    /// Object rows, History heads and events.
    pub entries: u64,
    /// Reader slots in use, by all processes.
    pub readers: u32,
    /// Rows whose framing this handle's writes found damaged, and began anew.
    pub damaged_rows: u64,
}

/// The embedded online store: one handle per process, shared by reader, writer and catalog.
pub struct Store {
    environment: Environment,
    housekeeping: Mutex<Housekeeping>,
    damaged_rows: AtomicU64,
}

/// What a writer remembers between batches.
#[derive(Debug, Default)]
struct Housekeeping {
    /// Key after which the next look for collectable rows begins.
    position: Vec<u8>,
    /// When slots of dead readers were last cleared.
    readers_cleared_at_ms: Option<i64>,
}

/// Between two looks for reader slots of dead processes, which pin old pages.
const READERS_CLEARED_EVERY_MS: i64 = 10_000;
/// LMDB's longest key.
const NAME_BYTES_MAX: usize = 511;

impl Store {
    /// Opens the store in folder `path`, which is made when it is missing.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        let environment = Environment::open(path, options.map_size_bytes, options.read_only)?;
        Ok(Self { environment, housekeeping: Mutex::default(), damaged_rows: AtomicU64::new(0) })
    }

    /// Begins a read of one snapshot.
    pub fn read(&self) -> Result<ReadTransaction<'_>> {
        self.environment.begin_read().map(ReadTransaction::new)
    }

    /// Writes a batch in one transaction, durable when this returns.
    ///
    /// Any order and any repetition of batches ends in the same rows (semantics 1, 2, 4, 5). Each call
    /// also collects a few rows elsewhere that expired or whose delete marker is old enough.
    pub fn apply<'m>(
        &self,
        mutations: impl IntoIterator<Item = Mutation<'m>>,
        catalog: &Catalog,
        now_ms: i64,
    ) -> Result<Applied> {
        let batch = Batch::new(mutations, catalog, now_ms);
        let mut housekeeping = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear_dead_readers(&mut housekeeping, now_ms)?;
        let (applied, position) = self.environment.write(|opened| {
            let mut transaction = opened.env.write_txn()?;
            let done = batch.write(opened.rows, &mut transaction, &housekeeping.position)?;
            transaction.commit()?;
            Ok(done)
        })?;
        housekeeping.position = position;
        self.damaged_rows.fetch_add(applied.rows_damaged, Ordering::Relaxed);
        Ok(applied)
    }

    /// A small named value: the catalog and sync state.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.read()?.named(checked_name(name)?)?.map(<[u8]>::to_vec))
    }

    /// Sets a named value, durable when this returns.
    pub fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        let name = checked_name(name)?.as_bytes();
        self.environment.write(|opened| {
            let mut transaction = opened.env.write_txn()?;
            opened.names.put(&mut transaction, name, value)?;
            Ok(transaction.commit()?)
        })
    }

    /// Sets a named value only while the present one is `expected` (None: absent); true when it was
    /// set. No other process can come in between.
    pub fn compare_and_put(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<bool> {
        self.compare_and_put_all(name, expected, &[(name, value)])
    }

    /// Sets several values in one transaction, only while the present value of `name` is `expected`.
    pub fn compare_and_put_all(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        values: &[(&str, &[u8])],
    ) -> Result<bool> {
        let name = checked_name(name)?.as_bytes();
        self.environment.write(|opened| {
            let mut transaction = opened.env.write_txn()?;
            if opened.names.get(&transaction, name)? != expected {
                return Ok(false);
            }
            for (name, value) in values {
                opened.names.put(&mut transaction, checked_name(name)?.as_bytes(), value)?;
            }
            transaction.commit()?;
            Ok(true)
        })
    }

    /// Present sizes.
    pub fn statistics(&self) -> Result<Statistics> {
        let entries = self.read()?.entries()?;
        self.environment.inspect(|opened| {
            let now = opened.env.info();
            let page_bytes = u64::from(opened.env.unnamed_database_stat().page_size);
            let pages = u64::try_from(now.last_page_number).unwrap_or(u64::MAX).saturating_add(1);
            Ok(Statistics {
                map_size_bytes: u64::try_from(now.map_size).unwrap_or(u64::MAX),
                used_bytes: pages.saturating_mul(page_bytes),
                entries,
                readers: now.number_of_readers,
                damaged_rows: self.damaged_rows.load(Ordering::Relaxed),
            })
        })
    }

    /// Frees reader slots of processes that died; returns how many.
    pub fn clear_stale_readers(&self) -> Result<usize> {
        self.environment.inspect(|opened| Ok(opened.env.clear_stale_readers()?))
    }

    /// Waits for transactions under way and closes; later calls fail with [`Error::Closed`].
    pub fn close(&self) {
        self.environment.close();
    }

    fn clear_dead_readers(&self, housekeeping: &mut Housekeeping, now_ms: i64) -> Result<()> {
        let due = housekeeping
            .readers_cleared_at_ms
            .is_none_or(|at| now_ms.saturating_sub(at) >= READERS_CLEARED_EVERY_MS);
        if due {
            self.clear_stale_readers()?;
            housekeeping.readers_cleared_at_ms = Some(now_ms);
        }
        Ok(())
    }
}

fn checked_name(name: &str) -> Result<&str> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(name);
    }
    Err(Error::Name(name.to_owned()))
}
