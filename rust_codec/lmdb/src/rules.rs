//! What decides between cells, markers and time, for both feature types.

use headrace_codec::cell::Cell;
use headrace_codec::fold::supersedes;
use headrace_codec::format::WRITE_TIMESTAMP_PER_MS;
use headrace_codec::mutation::{Mutation, MutationKind};

use crate::layout::{DELETE_GRACE_MS, DeleteMarker, EXPIRED_GRACE_MS};

/// The write timestamp of a stored cell; a damaged one is older than everything and never expires.
pub(crate) fn stored_timestamp(cell: &[u8]) -> i64 {
    Cell::open(cell).map_or(i64::MIN, |cell| cell.write_timestamp)
}

/// The marker after the deletes among these mutations.
pub(crate) fn raised(
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
pub(crate) const fn is_over(marker: DeleteMarker, now_ms: i64) -> bool {
    marker.arrived_at_ms.saturating_add(DELETE_GRACE_MS) <= now_ms
}

/// Whether a cell may be collected: a day after its expiry.
pub(crate) const fn is_collectable(write_timestamp: i64, ttl_ms: Option<i64>, now_ms: i64) -> bool {
    let Some(ttl_ms) = ttl_ms else { return false };
    let event_time_ms = write_timestamp.div_euclid(WRITE_TIMESTAMP_PER_MS);
    let collected_at_ms = event_time_ms.saturating_add(ttl_ms).saturating_add(EXPIRED_GRACE_MS);
    write_timestamp != i64::MIN && collected_at_ms <= now_ms
}

/// Whether a cell replaces the one in its place; a damaged one never does and always yields.
pub(crate) fn wins(candidate: Option<Cell<'_>>, standing: Option<Cell<'_>>) -> bool {
    match (candidate, standing) {
        (Some(candidate), Some(standing)) => supersedes(&candidate, &standing),
        (candidate, None) => candidate.is_some(),
        (None, Some(_)) => false,
    }
}
