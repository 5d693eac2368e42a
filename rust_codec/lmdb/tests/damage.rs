//! Bytes that went bad on the disk: told to readers, replaced by writers, never taken for values.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test is what we want")]

mod support;

use std::path::Path;

use headrace_codec::cell::Cell;
use headrace_lmdb::{Error, Options, Store};
use support::{HISTORY, OBJECT, Owned, catalog, delete, event, key, patch, record};

const OPTIONS: Options = Options { map_size_bytes: 1 << 20, read_only: false };

/// A closed store that holds these, with every copy of `bytes` in its file changed at `offset`.
fn damaged(folder: &Path, stored: &[Owned], bytes: &[u8], offset: usize) -> Store {
    let store = Store::open(folder, OPTIONS).unwrap();
    apply(&store, stored);
    drop(store);
    let file = folder.join("data.mdb");
    let mut content = std::fs::read(&file).unwrap();
    let places: Vec<_> =
        content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes).collect();
    assert!(!places.is_empty());
    for place in places.into_iter().map(|(place, _)| place).collect::<Vec<_>>() {
        content[place.wrapping_add(offset)] ^= 0x10;
    }
    std::fs::write(&file, content).unwrap();
    Store::open(folder, OPTIONS).unwrap()
}

fn apply(store: &Store, mutations: &[Owned]) -> u64 {
    store.apply(mutations.iter().map(Owned::borrow), &catalog(), 0).unwrap().rows_damaged
}

/// Field id and, of a cell that is sound, its body.
fn cells(store: &Store) -> Vec<(u16, Option<Vec<u8>>)> {
    let read = store.read().unwrap();
    let row = read.object_row(&key(OBJECT, 1)).unwrap().unwrap();
    let body = |cell| Cell::open(cell).ok().map(|cell| cell.body.to_vec());
    row.cells().map(|(id, cell)| (id, body(cell))).collect()
}

#[test]
fn a_damaged_cell_stays_until_a_write_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let stored = [record(OBJECT, 1, 9000, 1, b"record"), patch(OBJECT, 1, 9000, 2, b"patch")];
    let store = damaged(folder.path(), &stored, &stored[1].cell, 20);
    let record = || (0, Some(b"record".to_vec()));
    assert_eq!(cells(&store), [record(), (2, None)]);
    assert_eq!(apply(&store, &[patch(OBJECT, 1, 9000, 1, b"other")]), 0);
    assert_eq!(cells(&store), [record(), (1, Some(b"other".to_vec())), (2, None)]);
    // Older than what was lost, which nobody can tell any more.
    assert_eq!(apply(&store, &[patch(OBJECT, 1, 9000, 2, b"again")]), 0);
    assert_eq!(cells(&store)[2], (2, Some(b"again".to_vec())));
}

#[test]
fn a_delete_takes_a_damaged_cell_along() {
    let folder = tempfile::tempdir().unwrap();
    let stored = [delete(OBJECT, 1, 1), record(OBJECT, 1, 9000, 1, b"record")];
    let store = damaged(folder.path(), &stored, &stored[1].cell, 20);
    apply(&store, &[delete(OBJECT, 1, 1), patch(OBJECT, 1, 9_000_000, 2, b"patch")]);
    assert_eq!(cells(&store), [(0, None), (2, Some(b"patch".to_vec()))]);
    apply(&store, &[delete(OBJECT, 1, 2)]);
    assert_eq!(cells(&store), [(2, Some(b"patch".to_vec()))]);
}

#[test]
fn a_damaged_row_is_an_error_until_a_write_begins_it_anew() {
    let folder = tempfile::tempdir().unwrap();
    let stored = [record(OBJECT, 1, 9000, 1, b"record")];
    let mut frame = vec![0, 0];
    frame.extend_from_slice(&u32::try_from(stored[0].cell.len()).unwrap().to_le_bytes());
    let store = damaged(folder.path(), &stored, &frame, 0);
    let read = store.read().unwrap();
    assert!(matches!(read.object_row(&key(OBJECT, 1)), Err(Error::Corrupt(_))));
    drop(read);
    assert_eq!(apply(&store, &[]), 0, "a collecting pass leaves it to be reported");
    assert_eq!(apply(&store, &[patch(OBJECT, 1, 1, 2, b"new")]), 1);
    assert_eq!(cells(&store), [(2, Some(b"new".to_vec()))]);
    assert_eq!(store.statistics().unwrap().damaged_rows, 1);
}

#[test]
fn a_history_with_a_damaged_head_counts_its_events_again() {
    let folder = tempfile::tempdir().unwrap();
    let stored: Vec<_> = (1..=3).map(|at| event(1, at * 1000, 1, b"event")).collect();
    let head = [headrace_lmdb::layout::HISTORY_LAYOUT, 0, 3, 0, 0, 0];
    let store = damaged(folder.path(), &stored, &head, 2);
    let times = |store: &Store| -> Result<Vec<i64>, Error> {
        let read = store.read()?;
        let events = read.events(&key(HISTORY, 1), 10)?;
        events.map(|event| event.map(|event| event.event_time_ms)).collect()
    };
    assert!(matches!(times(&store), Err(Error::Corrupt(_))));
    assert_eq!(apply(&store, &[event(1, 4000, 1, b"event")]), 1);
    assert_eq!(times(&store).unwrap(), [4, 3, 2]);
}
