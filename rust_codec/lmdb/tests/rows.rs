//! What `apply` leaves behind, rule by rule.
#![expect(clippy::unwrap_used, reason = "a failed test is what we want")]

mod support;

use headrace_lmdb::{Options, Store};
use support::{BRIEF, DAY_MS, HISTORY, OBJECT, Owned, catalog, delete, event, key, patch, record};
use tempfile::TempDir;

const NOW_MS: i64 = 1_700_000_000_000;
/// A write timestamp one hour before `NOW_MS`.
const T: i64 = (NOW_MS - 3_600_000) * 1000;

/// (field id, cell bytes), ascending.
type Cells = Vec<(u16, Vec<u8>)>;

struct Fixture {
    store: Store,
    _folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { map_size_bytes: 8 << 20, read_only: false };
        Self { store: Store::open(folder.path(), options).unwrap(), _folder: folder }
    }

    fn apply(&self, mutations: &[Owned], now_ms: i64) {
        self.store.apply(mutations.iter().map(Owned::borrow), &catalog(), now_ms).unwrap();
    }

    /// Delete timestamp and (field id, cell).
    fn object(&self, key: &[u8]) -> Option<(Option<i64>, Cells)> {
        let read = self.store.read().unwrap();
        let row = read.object_row(key).unwrap()?;
        let cells = row.cells().map(|(id, cell)| (id, cell.to_vec())).collect();
        Some((row.delete_timestamp(), cells))
    }

    /// (event time, event id, cell), newest first.
    fn events(&self, number: u64, limit: usize) -> Vec<(i64, u64, Vec<u8>)> {
        let read = self.store.read().unwrap();
        let events = read.events(&key(HISTORY, number), limit).unwrap();
        events
            .map(|event| event.unwrap())
            .map(|event| (event.event_time_ms, event.event_id, event.cell.to_vec()))
            .collect()
    }
}

fn cells(mutations: &[&Owned]) -> Cells {
    use headrace_codec::mutation::MutationKind::Patch;
    let id = |mutation: &Owned| if let Patch(id) = mutation.kind { id } else { 0 };
    mutations.iter().map(|mutation| (id(mutation), mutation.cell.clone())).collect()
}

#[test]
fn the_higher_write_timestamp_stands_whatever_comes_first() {
    let (old, new) = (patch(OBJECT, 1, T, 2, b"old"), patch(OBJECT, 1, T + 1, 2, b"a"));
    for order in [[&old, &new], [&new, &old]] {
        let fixture = Fixture::new();
        for mutation in order {
            fixture.apply(std::slice::from_ref(mutation), NOW_MS);
        }
        assert_eq!(fixture.object(&key(OBJECT, 1)), Some((None, cells(&[&new]))));
    }
}

#[test]
fn at_equal_write_timestamps_the_larger_bytes_stand() {
    let pair = [patch(OBJECT, 1, T, 2, b"one"), patch(OBJECT, 1, T, 2, b"two")];
    let larger = pair.iter().max_by_key(|mutation| mutation.cell.clone()).unwrap();
    for order in [[&pair[0], &pair[1]], [&pair[1], &pair[0]]] {
        let fixture = Fixture::new();
        for mutation in order {
            fixture.apply(std::slice::from_ref(mutation), NOW_MS);
        }
        assert_eq!(fixture.object(&key(OBJECT, 1)), Some((None, cells(&[larger]))));
    }
}

#[test]
fn a_record_keeps_newer_patches_and_patches_of_fields_that_its_schema_lacks() {
    let fixture = Fixture::new();
    let record = record(OBJECT, 1, T + 5, 1, b"record");
    let (newer, foreign) = (patch(OBJECT, 1, T + 6, 1, b"n"), patch(OBJECT, 1, T, 3, b"f"));
    fixture.apply(&[newer.clone(), foreign.clone(), record.clone()], NOW_MS);
    let left = cells(&[&record, &newer, &foreign]);
    assert_eq!(fixture.object(&key(OBJECT, 1)), Some((None, left)));
}

#[test]
fn a_patch_is_dropped_only_when_no_schema_could_bring_it_back() {
    let fixture = Fixture::new();
    let record = record(OBJECT, 1, T + 5, 2, b"record");
    // Every schema up to the second has field 1; the first lacks field 3, so that its patch may speak again.
    let (always, since_second) = (patch(OBJECT, 1, T, 1, b"a"), patch(OBJECT, 1, T, 3, b"s"));
    fixture.apply(&[always, since_second.clone(), record.clone()], NOW_MS);
    assert_eq!(fixture.object(&key(OBJECT, 1)), Some((None, cells(&[&record, &since_second]))));
}

#[test]
fn a_patch_is_kept_under_a_record_of_a_schema_that_is_not_known_yet() {
    let fixture = Fixture::new();
    let mut foreign = record(OBJECT, 1, T + 5, 1, b"record");
    foreign.cell.clear();
    headrace_codec::cell::seal(&mut foreign.cell, T + 5, 0xF00D, b"of a newer generation");
    let patch = patch(OBJECT, 1, T, 1, b"patch");
    fixture.apply(&[patch.clone(), foreign.clone()], NOW_MS);
    assert_eq!(fixture.object(&key(OBJECT, 1)), Some((None, cells(&[&foreign, &patch]))));
}

#[test]
fn the_longest_key_and_the_longest_record_find_room() {
    use headrace_codec::format::{KEY_BYTES_MAX, RECORD_BYTES_MAX};
    let fixture = Fixture::new();
    let mut long_key = HISTORY.to_be_bytes().to_vec();
    long_key.resize(KEY_BYTES_MAX, b'k');
    let long_event = event(1, T, 1, b"event").with_key(long_key.clone());
    let large = record(OBJECT, 1, T, 1, &vec![7; RECORD_BYTES_MAX]);
    fixture.apply(&[long_event.clone(), large.clone()], NOW_MS);
    let read = fixture.store.read().unwrap();
    let event = read.events(&long_key, 1).unwrap().next().unwrap().unwrap();
    assert_eq!(event.cell, long_event.cell);
    assert_eq!(fixture.object(&large.key), Some((None, cells(&[&large]))));
}

#[test]
fn a_delete_takes_what_is_not_newer_and_keeps_its_marker() {
    let fixture = Fixture::new();
    let deleted_ms = T / 1000;
    let same_ms = record(OBJECT, 1, T + 998, 1, b"same millisecond");
    let newer = patch(OBJECT, 1, T + 1000, 2, b"newer");
    fixture.apply(&[same_ms.clone(), newer.clone()], NOW_MS);
    fixture.apply(&[delete(OBJECT, 1, deleted_ms)], NOW_MS);
    fixture.apply(std::slice::from_ref(&same_ms), NOW_MS);
    let marker = Some(deleted_ms * 1000 + 999);
    assert_eq!(fixture.object(&key(OBJECT, 1)), Some((marker, cells(&[&newer]))));
}

#[test]
fn a_marker_lives_ten_days_from_its_arrival_and_is_then_collected() {
    let fixture = Fixture::new();
    fixture.apply(&[delete(OBJECT, 1, T / 1000)], NOW_MS);
    fixture.apply(&[], NOW_MS + 10 * DAY_MS - 1);
    assert!(fixture.object(&key(OBJECT, 1)).is_some());
    fixture.apply(&[], NOW_MS + 10 * DAY_MS);
    assert_eq!(fixture.object(&key(OBJECT, 1)), None);
}

#[test]
fn an_expired_cell_is_collected_a_day_after_its_expiry() {
    let fixture = Fixture::new();
    fixture.apply(&[record(BRIEF, 1, T, 1, b"brief"), record(OBJECT, 1, T, 1, b"stays")], NOW_MS);
    let expired_at_ms = T / 1000 + 30 * DAY_MS;
    fixture.apply(&[], expired_at_ms + DAY_MS - 1);
    assert!(fixture.object(&key(BRIEF, 1)).is_some());
    fixture.apply(&[], expired_at_ms + DAY_MS);
    assert_eq!(fixture.object(&key(BRIEF, 1)), None);
    assert!(fixture.object(&key(OBJECT, 1)).is_some());
}

#[test]
fn collection_goes_round_the_whole_store_in_small_steps() {
    let fixture = Fixture::new();
    let rows: Vec<_> = (0..500).map(|number| record(BRIEF, number, T, 1, b"brief")).collect();
    fixture.apply(&rows, NOW_MS);
    let later_ms = T / 1000 + 31 * DAY_MS;
    let mut left = Vec::new();
    while left.last() != Some(&0) {
        fixture.apply(&[], later_ms);
        left.push(fixture.store.statistics().unwrap().entries);
        assert!(left.len() < 100, "collection stands still: {left:?}");
    }
    assert!(left.len() > 5, "one call did too much: {left:?}");
}

#[test]
fn a_history_answers_newest_first_and_the_same_event_once() {
    let fixture = Fixture::new();
    let (first, second) = (event(1, T, 7, b"first"), event(1, T + 60_000, 3, b"second"));
    let same_time = event(1, T, 9, b"same time, larger id");
    fixture.apply(&[second.clone(), first.clone(), same_time.clone(), first.clone()], NOW_MS);
    fixture.apply(std::slice::from_ref(&first), NOW_MS);
    let time_ms = T / 1000;
    let expected = vec![
        (time_ms + 60, 3, second.cell),
        (time_ms, 9, same_time.cell),
        (time_ms, 7, first.cell),
    ];
    assert_eq!(fixture.events(1, 10), expected);
    assert_eq!(fixture.events(1, 2), expected[..2]);
    assert_eq!(fixture.events(2, 10), []);
}

#[test]
fn a_history_is_trimmed_to_its_newest_events() {
    let fixture = Fixture::new();
    let events: Vec<_> = (0..8).map(|at| event(1, T + at * 1000, 1, b"event")).collect();
    for event in [4, 0, 7, 2, 6, 1, 5, 3].map(|at: usize| &events[at]) {
        fixture.apply(std::slice::from_ref(event), NOW_MS);
    }
    let times: Vec<_> = fixture.events(1, 10).iter().map(|event| event.0 - T / 1000).collect();
    assert_eq!(times, [7, 6, 5]);
}

#[test]
fn a_history_forgets_what_was_deleted_and_refuses_it_later() {
    let fixture = Fixture::new();
    let (old, new) = (event(1, T, 1, b"old"), event(1, T + 1_000_000, 2, b"new"));
    fixture.apply(&[old.clone(), new.clone()], NOW_MS);
    fixture.apply(&[delete(HISTORY, 1, T / 1000)], NOW_MS);
    fixture.apply(std::slice::from_ref(&old), NOW_MS);
    assert_eq!(fixture.events(1, 10), [(T / 1000 + 1000, 2, new.cell)]);
    fixture.apply(&[], NOW_MS + 10 * DAY_MS);
    assert_eq!(fixture.events(1, 10).len(), 1, "collecting the marker keeps the events");
}

#[test]
fn expired_events_are_collected_from_the_oldest_on() {
    let fixture = Fixture::new();
    let (old, new) = (event(1, T, 1, b"old"), event(1, T + 5000 * DAY_MS, 2, b"new"));
    fixture.apply(&[old, new.clone()], NOW_MS);
    fixture.apply(&[], T / 1000 + 31 * DAY_MS);
    assert_eq!(fixture.events(1, 10), [(T / 1000 + 5 * DAY_MS, 2, new.cell)]);
    fixture.apply(&[], T / 1000 + 36 * DAY_MS);
    assert_eq!(fixture.store.statistics().unwrap().entries, 0, "the head goes with its last event");
}

#[test]
fn keys_lists_each_key_with_a_cell_once() {
    let fixture = Fixture::new();
    let history = [event(12, T, 1, b"a"), event(12, T, 2, b"b"), event(1, T, 1, b"c")];
    fixture.apply(&history, NOW_MS);
    fixture.apply(&[record(OBJECT, 5, T, 1, b"r"), delete(OBJECT, 6, T / 1000)], NOW_MS);
    let read = fixture.store.read().unwrap();
    assert_eq!(read.keys(HISTORY).unwrap(), [key(HISTORY, 1), key(HISTORY, 12)]);
    assert_eq!(read.keys(OBJECT).unwrap(), [key(OBJECT, 5)]);
}
