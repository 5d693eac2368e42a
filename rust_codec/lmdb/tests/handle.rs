//! Opening, named values, growth and closing.

mod support;

use std::sync::Barrier;

use headrace_lmdb::{Error, Options, Store};
use support::{OBJECT, Owned, catalog, key, record};

const SMALL: Options = Options { map_size_bytes: 1 << 20, read_only: false };
const READER: Options = Options { map_size_bytes: 1 << 20, read_only: true };

#[test]
fn named_values_are_put_listed_and_swapped_only_when_as_expected() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    assert_eq!(store.get("catalog/generation").unwrap(), None);
    store.put("sync/a", b"").unwrap();
    assert!(store.compare_and_put("catalog/generation", None, b"1").unwrap());
    assert!(!store.compare_and_put("catalog/generation", None, b"2").unwrap());
    assert!(!store.compare_and_put("catalog/generation", Some(b"0"), b"2").unwrap());
    assert!(store.compare_and_put("catalog/generation", Some(b"1"), b"2").unwrap());
    assert_eq!(store.get("catalog/generation").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.read().unwrap().names("sync/").unwrap(), ["sync/a"]);
    assert_eq!(store.read().unwrap().names("").unwrap().len(), 2);
}

#[test]
fn a_name_that_lmdb_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    for name in [String::new(), "n".repeat(512)] {
        assert!(matches!(store.put(&name, b""), Err(Error::Name(_))));
        assert!(matches!(store.get(&name), Err(Error::Name(_))));
    }
    store.put(&"n".repeat(511), b"").unwrap();
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let row = record(OBJECT, 1, 1000, 1, b"record");
    {
        let store = Store::open(folder.path(), SMALL).unwrap();
        store.apply([row.borrow()], &catalog(), 0).unwrap();
    }
    let store = Store::open(folder.path(), READER).unwrap();
    let read = store.read().unwrap();
    let cells: Vec<_> = read.object_row(&row.key).unwrap().unwrap().cells().collect();
    assert_eq!(cells, [(0, &*row.cell)]);
}

#[test]
fn a_read_only_handle_refuses_writes_and_needs_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Store::open(&folder.path().join("none"), READER);
    assert!(matches!(missing, Err(Error::Missing(_))));
    drop(Store::open(folder.path(), SMALL).unwrap());
    let store = Store::open(folder.path(), READER).unwrap();
    assert!(matches!(store.put("name", b""), Err(Error::ReadOnly)));
    assert!(matches!(store.apply([], &catalog(), 0), Err(Error::ReadOnly)));
}

#[test]
fn a_second_handle_in_one_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Store::open(folder.path(), SMALL).unwrap();
    assert!(matches!(Store::open(folder.path(), SMALL), Err(Error::AlreadyOpen(_))));
}

#[test]
fn a_file_where_the_folder_should_be_is_a_clear_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path(), SMALL).err().unwrap();
    assert_eq!(error.code(), "STORE_UNREACHABLE");
}

#[test]
fn a_closed_handle_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    store.close();
    assert!(matches!(store.get("name"), Err(Error::Closed)));
    assert!(matches!(store.put("name", b""), Err(Error::Closed)));
}

#[test]
fn the_map_grows_under_a_batch_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    let body = vec![7; 1000];
    let rows: Vec<_> = (0..8_000).map(|number| record(OBJECT, number, 1, 1, &body)).collect();
    store.apply(rows.iter().map(Owned::borrow), &catalog(), 0).unwrap();
    let after = store.statistics().unwrap();
    assert_eq!(after.entries, 8_000);
    assert!(after.map_size_bytes >= 8 << 20 && after.used_bytes > 8_000_000, "{after:?}");
    store.put("large", &vec![1; 40 << 20]).unwrap();
    assert_eq!(store.get("large").unwrap().unwrap().len(), 40 << 20);
}

#[test]
fn a_store_that_grew_keeps_its_size_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let grown = {
        let store = Store::open(folder.path(), SMALL).unwrap();
        store.put("large", &vec![1; 5 << 20]).unwrap();
        store.statistics().unwrap().map_size_bytes
    };
    let store = Store::open(folder.path(), SMALL).unwrap();
    assert_eq!(store.statistics().unwrap().map_size_bytes, grown);
}

#[test]
fn threads_read_whole_batches_while_the_map_grows() {
    const READERS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    let start = Barrier::new(READERS + 1);
    let write = |round: u8| {
        let body = vec![round; 60_000];
        let rows: Vec<_> =
            (0..20).map(|number| record(OBJECT, number, i64::from(round), 1, &body)).collect();
        store.apply(rows.iter().map(Owned::borrow), &catalog(), 0).unwrap();
    };
    write(0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut seen = 0;
                    while seen < 40 {
                        let read = store.read().unwrap();
                        let rounds: Vec<u8> = (0..20)
                            .map(|number| {
                                let row = read.object_row(&key(OBJECT, number)).unwrap().unwrap();
                                *row.cells().next().unwrap().1.last().unwrap()
                            })
                            .collect();
                        assert!(rounds.iter().all(|round| *round == rounds[0]), "torn: {rounds:?}");
                        assert!(rounds[0] >= seen, "went back from {seen} to {}", rounds[0]);
                        seen = rounds[0];
                    }
                })
            })
            .collect();
        start.wait();
        (1..=40).for_each(&write);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(store.statistics().unwrap().map_size_bytes > 1 << 20);
}
