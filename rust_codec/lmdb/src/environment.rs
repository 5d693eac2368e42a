//! The LMDB environment behind the store: open, grow, follow another process' growth, close.
//!
//! LMDB may change the size of its map only while no transaction of the process is active, so a
//! transaction holds the read half of a lock and a new map takes the write half. The map is changed by
//! closing and opening again, which needs no unsafe call beyond the one that opens.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, WithoutTls};

use crate::error::{Error, Result};
use crate::order::KeyOrder;

/// A table of byte keys and byte values.
pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// An open environment and its tables.
pub(crate) struct Opened {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) rows: Table,
    pub(crate) names: Table,
}

enum State {
    Open(Opened),
    /// Opening again failed; the next call tries once more.
    Lost,
    Closed,
}

/// One environment for the life of a store handle.
pub(crate) struct Environment {
    path: PathBuf,
    read_only: bool,
    state: RwLock<State>,
}

/// An open environment that cannot be swapped while this guard lives.
pub(crate) struct Guard<'s>(RwLockReadGuard<'s, State>);

impl Guard<'_> {
    pub(crate) fn opened(&self) -> Result<&Opened> {
        match &*self.0 {
            State::Open(opened) => Ok(opened),
            State::Lost | State::Closed => Err(Error::Closed),
        }
    }
}

const TABLES: u32 = 3;
/// Read transactions of all processes at one time.
const READERS_MAX: u32 = 1024;
/// Map sizes are multiples of this, which is a multiple of every page size in use.
const MAP_STEP_BYTES: usize = 1 << 20;
const LAYOUT_NAME: &[u8] = b"layout";
const LAYOUT: &[u8] = b"1";
/// Attempts after errors that another process causes; growth is not counted.
const ATTEMPTS_MAX: u32 = 16;

impl Environment {
    pub(crate) fn open(path: &Path, map_size_bytes: usize, read_only: bool) -> Result<Self> {
        let unreachable =
            |error: &dyn std::fmt::Display| Error::Unreachable(path.to_owned(), error.to_string());
        if !read_only {
            std::fs::create_dir_all(path).map_err(|error| unreachable(&error))?;
        } else if !path.join("data.mdb").exists() {
            return Err(Error::Missing(path.to_owned()));
        }
        let wanted = map_size_bytes.max(1).next_multiple_of(MAP_STEP_BYTES);
        // An existing store keeps its own size when that is larger.
        let existing = path.join("data.mdb").exists();
        let mut opened = open_tables(path, (!existing).then_some(wanted), read_only)?;
        if !read_only && opened.env.info().map_size < wanted {
            drop(opened);
            opened = open_tables(path, Some(wanted), read_only)?;
        }
        opened.env.clear_stale_readers()?;
        let state = RwLock::new(State::Open(opened));
        Ok(Self { path: path.to_owned(), read_only, state })
    }

    /// Waits for transactions under way, then closes for good.
    pub(crate) fn close(&self) {
        *self.exclusive() = State::Closed;
    }

    /// Begins a read transaction; follows growth by another process.
    pub(crate) fn begin_read(&self) -> Result<Reading<'_>> {
        let mut attempts: u32 = 0;
        loop {
            let guard = self.guard()?;
            let opened = guard.opened()?;
            let (rows, names) = (opened.rows, opened.names);
            match opened.env.clone().static_read_txn() {
                Ok(transaction) => return Ok(Reading { rows, names, transaction, _guard: guard }),
                Err(error) => {
                    let map_size_bytes = opened.env.info().map_size;
                    drop(guard);
                    attempts = attempts.saturating_add(1);
                    self.recover(error.into(), map_size_bytes, attempts)?;
                }
            }
        }
    }

    /// Runs a write transaction; from its start again when the map had to grow.
    pub(crate) fn write<T>(&self, work: impl Fn(&Opened) -> Result<T>) -> Result<T> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let mut attempts: u32 = 0;
        loop {
            let guard = self.guard()?;
            let opened = guard.opened()?;
            match work(opened) {
                Ok(done) => return Ok(done),
                Err(error) => {
                    let map_size_bytes = opened.env.info().map_size;
                    drop(guard);
                    attempts = attempts.saturating_add(1);
                    self.recover(error.while_writing(), map_size_bytes, attempts)?;
                }
            }
        }
    }

    /// Looks at the open environment without a transaction.
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&Opened) -> Result<T>) -> Result<T> {
        look(self.guard()?.opened()?)
    }

    /// Makes the next attempt possible, or gives the error back.
    fn recover(&self, error: Error, map_size_bytes: usize, attempts: u32) -> Result<()> {
        let Error::Engine(heed::Error::Mdb(kind)) = &error else {
            let stale = matches!(error, Error::ReadersFull) && attempts == 1;
            if stale && self.inspect(|opened| Ok(opened.env.clear_stale_readers()?))? > 0 {
                return Ok(());
            }
            return Err(error);
        };
        match kind {
            // The address space ends the doubling.
            MdbError::MapFull => {
                let grown = map_size_bytes.saturating_mul(2).next_multiple_of(MAP_STEP_BYTES);
                self.reopen(map_size_bytes, Some(grown))
            }
            MdbError::MapResized if attempts <= ATTEMPTS_MAX => self.reopen(map_size_bytes, None),
            // A failed write of a meta page leaves the handle unusable, the file as it was.
            MdbError::Panic if attempts == 1 => self.reopen(map_size_bytes, Some(map_size_bytes)),
            _ => Err(error),
        }
    }

    /// Opens again with another map, unless another thread already did.
    fn reopen(&self, seen_bytes: usize, wanted_bytes: Option<usize>) -> Result<()> {
        let mut state = self.exclusive();
        match &*state {
            State::Closed => return Err(Error::Closed),
            State::Open(opened) if opened.env.info().map_size != seen_bytes => return Ok(()),
            State::Open(_) | State::Lost => {}
        }
        *state = State::Lost; // Closes it: LMDB forbids a second one in the process.
        let opened = open_tables(&self.path, wanted_bytes, self.read_only)?;
        opened.env.clear_stale_readers()?;
        *state = State::Open(opened);
        Ok(())
    }

    fn guard(&self) -> Result<Guard<'_>> {
        loop {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            match &*state {
                State::Open(_) => return Ok(Guard(state)),
                State::Closed => return Err(Error::Closed),
                State::Lost => {
                    drop(state);
                    self.reopen(0, None)?;
                }
            }
        }
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read transaction. The transaction is declared before the guard: it must end first.
pub(crate) struct Reading<'s> {
    pub(crate) rows: Table,
    pub(crate) names: Table,
    pub(crate) transaction: RoTxn<'static, WithoutTls>,
    _guard: Guard<'s>,
}

fn open_tables(path: &Path, map_size_bytes: Option<usize>, read_only: bool) -> Result<Opened> {
    let env = open_environment(path, map_size_bytes, read_only).map_err(|error| match error {
        heed::Error::EnvAlreadyOpened => Error::AlreadyOpen(path.to_owned()),
        other => Error::Unreachable(path.to_owned(), other.to_string()),
    })?;
    let tables = if read_only { existing_tables(&env)? } else { created_tables(&env)? };
    let [rows, names, meta] = tables.ok_or_else(|| Error::Missing(path.to_owned()))?;
    let found = meta.get(&*env.read_txn()?, LAYOUT_NAME)?.map(<[u8]>::to_vec);
    match found {
        Some(found) if found != LAYOUT => Err(Error::Layout { found }),
        _ => Ok(Opened { env, rows, names }),
    }
}

fn existing_tables(env: &Env<WithoutTls>) -> Result<Option<[Table; 3]>> {
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, transaction| {
        let open = |name| opener.open_database::<Bytes, Bytes>(transaction, Some(name));
        let rows = open("rows")?;
        opener.database_options().key_comparator::<KeyOrder>().name("rows").open(transaction)?;
        Ok::<_, Error>(match (rows, open("names")?, open("meta")?) {
            (Some(rows), Some(names), Some(meta)) => CommitOrAbort::Commit([rows, names, meta]),
            _ => CommitOrAbort::Abort(()),
        })
    })?;
    Ok(opened.commit())
}

fn created_tables(env: &Env<WithoutTls>) -> Result<Option<[Table; 3]>> {
    let opened = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
        let mut create = |name| opener.create_database::<Bytes, Bytes>(transaction, Some(name));
        let tables = [create("rows")?, create("names")?, create("meta")?];
        opener.database_options().key_comparator::<KeyOrder>().name("rows").open(transaction)?;
        let [_, _, meta] = &tables;
        if meta.get(transaction, LAYOUT_NAME)?.is_none() {
            meta.put(transaction, LAYOUT_NAME, LAYOUT)?;
        }
        Ok::<_, Error>(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    Ok(opened.commit())
}

#[expect(unsafe_code, reason = "opening a memory map is unsafe in heed; there is no other way in")]
fn open_environment(
    path: &Path,
    map_size_bytes: Option<usize>,
    read_only: bool,
) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.max_dbs(TABLES).max_readers(READERS_MAX);
    if let Some(bytes) = map_size_bytes {
        options.map_size(bytes);
    }
    // SAFETY: the map is sound while nothing but LMDB changes the file and its lock file is in force.
    // The folder belongs to this store alone, the only flag ever set is READ_ONLY (never NO_LOCK or
    // one that gives up durability), and heed refuses a second open of the path in this process.
    unsafe {
        if read_only {
            options.flags(EnvFlags::READ_ONLY);
        }
        options.open(path)
    }
}
