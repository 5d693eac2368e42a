//! One error type for the crate.

use std::fmt;
use std::path::PathBuf;

/// Why the store could not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A read-only open found no store there.
    Missing(PathBuf),
    /// This process has the store open already; one handle is shared by all its parts.
    AlreadyOpen(PathBuf),
    /// The folder cannot be made or opened.
    Unreachable(PathBuf, String),
    /// The store was written by a version with another layout.
    Layout {
        /// The layout number that the store carries.
        found: Vec<u8>,
    },
    /// A write through a handle that was opened read-only.
    ReadOnly,
    /// The handle was closed.
    Closed,
    /// The disk or the file-size limit is full; nothing of the transaction was kept.
    DiskFull(String),
    /// Every reader slot is taken by a live process.
    ReadersFull,
    /// A name is empty or longer than LMDB's longest key.
    Name(String),
    /// Stored bytes that are no row of ours.
    Corrupt(headrace_codec::error::Error),
    /// Whatever else LMDB reports.
    Engine(heed::Error),
}

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A stable upper-case word.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "STORE_MISSING",
            Self::AlreadyOpen(_) => "STORE_ALREADY_OPEN",
            Self::Unreachable(..) => "STORE_UNREACHABLE",
            Self::Layout { .. } => "STORE_LAYOUT",
            Self::ReadOnly => "STORE_READ_ONLY",
            Self::Closed => "STORE_CLOSED",
            Self::DiskFull(_) => "DISK_FULL",
            Self::ReadersFull => "READERS_FULL",
            Self::Name(_) => "BAD_NAME",
            Self::Corrupt(_) => "CORRUPT",
            Self::Engine(_) => "STORE_ENGINE",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                write!(out, "no online store in `{}`; start a writer there first", path.display())
            }
            Self::AlreadyOpen(path) => write!(
                out,
                "this process has the online store `{}` open already; share that one handle",
                path.display()
            ),
            Self::Unreachable(path, reason) => {
                write!(out, "the online store `{}` cannot be opened: {reason}", path.display())
            }
            Self::Layout { found } => write!(
                out,
                "the online store has layout {}, this version reads 1; upgrade this process",
                String::from_utf8_lossy(found)
            ),
            Self::ReadOnly => out.write_str("the online store is open for reading only"),
            Self::Closed => out.write_str("the online store is closed"),
            Self::DiskFull(reason) => write!(
                out,
                "the online store has no room to write ({reason}); nothing was changed, free some \
                 disk space and try again"
            ),
            Self::ReadersFull => out.write_str(
                "every reader slot of the online store is taken; run fewer gateway processes on it",
            ),
            Self::Name(name) => write!(out, "`{name}` is not a name of 1 to 511 bytes"),
            Self::Corrupt(error) => write!(out, "{error}"),
            Self::Engine(error) => write!(out, "the online store failed: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<headrace_codec::error::Error> for Error {
    fn from(error: headrace_codec::error::Error) -> Self {
        Self::Corrupt(error)
    }
}

impl From<heed::Error> for Error {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Io(reason) if is_full(&reason) => Self::DiskFull(reason.to_string()),
            heed::Error::Mdb(heed::MdbError::ReadersFull) => Self::ReadersFull,
            other => Self::Engine(other),
        }
    }
}

impl Error {
    /// The same error, met while writing: LMDB reports a write that stopped short as EIO, and a full
    /// disk is what stops one.
    pub(crate) fn while_writing(self) -> Self {
        match self {
            Self::Engine(heed::Error::Io(reason)) if reason.raw_os_error() == Some(EIO) => {
                Self::DiskFull(format!("a write stopped short: {reason}"))
            }
            other => other,
        }
    }
}

/// The same number on every Unix.
const EIO: i32 = 5;

fn is_full(reason: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(reason.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
