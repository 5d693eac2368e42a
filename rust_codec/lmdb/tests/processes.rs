//! What holds between processes: whole batches, growth, death at any moment, a full disk.
//!
//! This program starts itself again with a role in its environment; without one it runs the tests.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed test is what we want"
)]

mod support;

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use headrace_lmdb::{Options, Store};
use support::{OBJECT, Owned, catalog, key, record};

const ROLE: &str = "HEADRACE_TEST_ROLE";
const FOLDER: &str = "HEADRACE_TEST_FOLDER";
const ROWS: u64 = 40;
const ROUNDS: u64 = 60;

fn main() {
    let Ok(role) = std::env::var(ROLE) else {
        run("readers_see_whole_batches_while_a_writer_grows_the_map", readers_see_whole_batches);
        run("a_writer_killed_at_any_moment_leaves_whole_batches", a_killed_writer);
        run("writers_of_several_processes_take_turns", writers_take_turns);
        run("slots_of_killed_readers_are_freed", slots_of_killed_readers_are_freed);
        run("a_full_disk_is_an_error_and_harms_nothing", a_full_disk);
        return;
    };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    match role.as_str() {
        "watch" => watch(&folder),
        "hold" => hold(&folder),
        "write" => write_for_ever(&folder),
        "count" => count(&folder),
        "fill" => fill(&folder),
        other => panic!("unknown role {other}"),
    }
}

/// Runs one test; a panic ends the program with a failure.
fn run(name: &str, test: fn()) {
    test();
    println!("test {name} ... ok");
}

/// A process of ours in some role, killed when it is dropped.
struct Process {
    child: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, folder: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        Self::spawn(&mut Command::new(program), role, folder)
    }

    fn spawn(command: &mut Command, role: &str, folder: &Path) -> Self {
        command.env(ROLE, role).env(FOLDER, folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, told }
    }

    fn next_line(&mut self) -> String {
        self.told.next().expect("the process ended early").unwrap()
    }

    /// SIGKILL, then whatever it had still told.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.told.by_ref().map(Result::unwrap).collect()
    }

    fn finish(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(word: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}").unwrap();
    out.flush().unwrap();
}

fn open(folder: &Path) -> Store {
    Store::open(folder, Options { map_size_bytes: 1 << 20, read_only: false }).unwrap()
}

fn open_to_read(folder: &Path) -> Store {
    Store::open(folder, Options { map_size_bytes: 1 << 20, read_only: true }).unwrap()
}

/// Every row gets this round's number as its body.
fn write_round(store: &Store, round: u64) {
    let rows = rows_of(round);
    store.apply(rows.iter().map(Owned::borrow), &catalog(), 0).unwrap();
}

fn rows_of(round: u64) -> Vec<Owned> {
    let mut body = vec![0; 30_000];
    body.extend_from_slice(&round.to_le_bytes());
    let timestamp = i64::try_from(round).unwrap();
    (0..ROWS).map(|number| record(OBJECT, number, timestamp, 1, &body)).collect()
}

/// The one round that all rows show.
fn round_of(store: &Store) -> u64 {
    let read = store.read().unwrap();
    let rounds: Vec<u64> = (0..ROWS)
        .map(|number| {
            let row = read.object_row(&key(OBJECT, number)).unwrap().unwrap();
            let (_, cell) = row.cells().next().unwrap();
            headrace_codec::cell::Cell::open(cell).unwrap();
            u64::from_le_bytes(*cell.last_chunk().unwrap())
        })
        .collect();
    assert!(rounds.iter().all(|round| *round == rounds[0]), "torn: {rounds:?}");
    rounds[0]
}

fn readers_see_whole_batches() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write_round(&store, 1);
    let mut readers: Vec<_> = (0..3).map(|_| Process::start("watch", folder.path())).collect();
    for reader in &mut readers {
        assert_eq!(reader.next_line(), "ready");
    }
    (2..=ROUNDS).for_each(|round| write_round(&store, round));
    store.put("large", &vec![7; 20 << 20]).unwrap();
    for mut reader in readers {
        assert_eq!(reader.next_line(), format!("{}", 20 << 20));
        reader.finish();
    }
}

fn watch(folder: &Path) {
    let store = open_to_read(folder);
    let mut seen = round_of(&store);
    say("ready");
    while seen < ROUNDS {
        let round = round_of(&store);
        assert!(round >= seen, "went back from {seen} to {round}");
        seen = round;
    }
    // Written beyond the map that this process opened.
    let large = loop {
        if let Some(large) = store.get("large").unwrap() {
            break large;
        }
        std::thread::yield_now();
    };
    say(large.len());
}

fn a_killed_writer() {
    let folder = tempfile::tempdir().unwrap();
    write_round(&open(folder.path()), 1);
    let mut last = 1;
    for kills in 0..20 {
        let mut writer = Process::start("write", folder.path());
        for _ in 0..=kills % 4 {
            last = writer.next_line().parse().unwrap();
        }
        // It goes on at once with the next transaction; spin a little further into it each time.
        for _ in 0..kills * 20_000 {
            std::hint::spin_loop();
        }
        if let Some(told) = writer.kill().last() {
            last = told.parse().unwrap();
        }
        let store = open(folder.path());
        let found = round_of(&store);
        assert!(found == last || found == last + 1, "told {last}, found {found}");
        last = found + 1;
        write_round(&store, last);
        assert_eq!(round_of(&store), last, "the dead writer's lock is in the way");
    }
}

fn write_for_ever(folder: &Path) {
    let store = open(folder);
    for round in round_of(&store) + 1.. {
        write_round(&store, round);
        say(round);
    }
}

fn writers_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let counters: Vec<_> = (0..3).map(|_| Process::start("count", folder.path())).collect();
    counters.into_iter().for_each(Process::finish);
    assert_eq!(store.get("count").unwrap().as_deref(), Some(&b"60"[..]));
}

/// Adds one twenty times, each time to what nobody else has changed meanwhile.
fn count(folder: &Path) {
    let store = open(folder);
    for _ in 0..20 {
        loop {
            let old = store.get("count").unwrap();
            let number: u64 = old
                .as_deref()
                .map_or(0, |text| std::str::from_utf8(text).unwrap().parse().unwrap());
            let new = (number + 1).to_string();
            if store.compare_and_put("count", old.as_deref(), new.as_bytes()).unwrap() {
                break;
            }
        }
    }
}

fn slots_of_killed_readers_are_freed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write_round(&store, 1);
    let kill_a_reader = || {
        let mut reader = Process::start("hold", folder.path());
        assert_eq!(reader.next_line(), "1");
        reader.kill();
    };
    kill_a_reader();
    assert_eq!(store.clear_stale_readers().unwrap(), 1);
    assert_eq!(store.clear_stale_readers().unwrap(), 0);
    kill_a_reader();
    store.apply([], &catalog(), 10_000).unwrap();
    assert_eq!(store.clear_stale_readers().unwrap(), 0, "a writer frees them by itself");
}

fn hold(folder: &Path) {
    let store = open_to_read(folder);
    let read = store.read().unwrap();
    say(read.keys(OBJECT).unwrap().len() as u64 / ROWS);
    std::io::stdin().lines().for_each(drop);
}

fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    write_round(&open(folder.path()), 1);
    // A file-size limit fails the same writes that a full disk does, and needs no disk of its own.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\""]);
    limited.arg(std::env::current_exe().unwrap());
    let mut writer = Process::spawn(&mut limited, "fill", folder.path());
    assert_eq!(writer.next_line(), "DISK_FULL");
    assert_eq!(writer.next_line(), "DISK_FULL");
    assert_eq!(writer.next_line(), "1");
    writer.finish();
    let store = open(folder.path());
    assert_eq!(store.get("large").unwrap(), None);
    write_round(&store, 2);
    assert_eq!(round_of(&store), 2);
}

/// More than the limit allows, in two ways; then everything is still as it was.
fn fill(folder: &Path) {
    let store = open(folder);
    let body = vec![1; 30_000];
    let rows: Vec<_> =
        (ROWS..ROWS + 2_000).map(|number| record(OBJECT, number, 1, 1, &body)).collect();
    let full = store.apply(rows.iter().map(Owned::borrow), &catalog(), 0);
    say(full.unwrap_err().code());
    say(store.put("large", &vec![7; 20 << 20]).unwrap_err().code());
    say(round_of(&store));
}
