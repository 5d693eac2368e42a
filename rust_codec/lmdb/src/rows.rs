//! A snapshot as the read path's source of rows.

use headrace_codec::read::row::{RowError, RowSource};

use crate::error::Error;
use crate::read::ReadTransaction;

impl RowSource for ReadTransaction<'_> {
    fn object<'s>(
        &'s self,
        key: &[u8],
        cells: &mut Vec<(u16, &'s [u8])>,
    ) -> Result<Option<i64>, RowError> {
        self.object_cells(key, cells).map_err(|error| row_error(&error))
    }

    fn events<'s>(
        &'s self,
        key: &[u8],
        limit: usize,
        events: &mut Vec<(i64, &'s [u8])>,
    ) -> Result<(), RowError> {
        for event in Self::events(self, key, limit).map_err(|error| row_error(&error))? {
            let event = event.map_err(|error| row_error(&error))?;
            events.push((event.event_time_ms, event.cell));
        }
        Ok(())
    }
}

/// Damaged bytes are CORRUPT; whatever else fails, the row was not reached.
#[must_use]
pub fn row_error(error: &Error) -> RowError {
    match error {
        Error::Corrupt(_) => RowError::Corrupt,
        _ => RowError::Unavailable,
    }
}
