//! Requests against a cache that has every row, and against a store.

use std::collections::HashMap;

use headrace_codec::placement::Placement;
use headrace_codec::read::Limits;
use headrace_codec::read::cached::{CachedReads, Done};
use headrace_codec::read::coding::Coding;
use headrace_codec::read::engine::{Engine, ReadCall};
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::{RowError, RowSource};
use headrace_codec::resp::{write_argument, write_command};

use crate::rows::{Fixture, NOW_MS, OBJECT};

pub(crate) const JSON: Accept = Accept::Json;
pub(crate) const AVRO: Accept = Accept::Avro;
pub(crate) const REPEATS: usize = 10;

fn engine(fixture: &Fixture) -> Engine {
    let engine = Engine::new(Limits::default());
    engine.install(std::sync::Arc::clone(&fixture.catalog));
    engine
}

fn call(body: &str, accept: Accept) -> ReadCall<'_> {
    let (body, request_id) = (body.as_bytes(), &b"0123456789abcdef"[..]);
    let (coding, keep_alive, reloaded) = (Coding::Identity, true, false);
    ReadCall { body, accept, coding, now_ms: NOW_MS, request_id, keep_alive, reloaded }
}

fn body(group: &str, rows: usize) -> String {
    let ids: Vec<String> = (0..rows).map(|id| (1001 + id).to_string()).collect();
    let ids = ids.join(",");
    format!(r#"{{"reads":[{{"feature_group":"{group}","keys":{{"user_id":[{ids}]}}}}]}}"#)
}

/// One request and the reply of a cache that has its rows.
pub(crate) struct Cached {
    engine: Engine,
    reads: CachedReads<u64>,
    body: String,
    accept: Accept,
    reply: Vec<u8>,
    done: Vec<Done<u64, usize>>,
}

impl Cached {
    pub(crate) fn new(fixture: &Fixture, group: &str, rows: usize, accept: Accept) -> Self {
        let mut reads = CachedReads::new(Placement::new(["cache:6379"], 1).unwrap(), 0);
        reads.node_up(0);
        let (engine, body) = (engine(fixture), body(group, rows));
        let mut pending = engine.begin(&call(&body, accept), |_| ()).unwrap();
        let mut reply = Vec::new();
        write_command(&mut reply, rows);
        for row in 0..rows {
            let cells = fixture.cells(group, row).iter().map(|(id, cell)| (*id, cell.as_slice()));
            let fill = pending.take_cells(row, cells, NOW_MS).unwrap().unwrap();
            write_argument(&mut reply, &fill.block);
        }
        let mut cached = Self { engine, reads, body, accept, reply, done: Vec::new() };
        assert!(cached.read_once() > 100 * rows);
        cached
    }

    /// Bytes of the response.
    fn read_once(&mut self) -> usize {
        let call = call(&self.body, self.accept);
        let waits = self.reads.submit(&self.engine, &call, |_| 1, &mut <[u8]>::len).is_none();
        let asked = self.reads.take(0, <[u8]>::len).unwrap();
        self.reads
            .feed(&self.engine, 0, &self.reply, NOW_MS, &mut <[u8]>::len, &mut self.done)
            .unwrap();
        assert!(waits && asked > 0, "the cache has every row");
        match self.done.pop() {
            Some(Done::Answered(1, length)) => length,
            _ => 0,
        }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..REPEATS {
            self.read_once();
        }
    }
}

/// One request and a store in memory.
pub(crate) struct Stored {
    engine: Engine,
    body: String,
    memory: Memory,
}

struct Memory(HashMap<Vec<u8>, Vec<u8>>);

impl RowSource for &Memory {
    fn object<'s>(
        &'s self,
        key: &[u8],
        cells: &mut Vec<(u16, &'s [u8])>,
    ) -> Result<Option<i64>, RowError> {
        cells.extend(self.0.get(key).map(|cell| (0, cell.as_slice())));
        Ok(None)
    }

    fn events<'s>(
        &'s self,
        _key: &[u8],
        _limit: usize,
        _events: &mut Vec<(i64, &'s [u8])>,
    ) -> Result<(), RowError> {
        Err(RowError::Unavailable)
    }
}

impl Stored {
    pub(crate) fn new(fixture: &Fixture, rows: usize) -> Self {
        let cells = fixture.records.iter().zip(1001..);
        let memory = cells.map(|(cells, id)| (fixture.key(OBJECT, id), cells[0].1.clone()));
        let memory = Memory(memory.collect());
        Self { engine: engine(fixture), body: body(OBJECT, rows), memory }
    }

    pub(crate) fn run(&self) {
        for _ in 0..REPEATS {
            let open = || Ok(&self.memory);
            let read = self.engine.read(&call(&self.body, JSON), open, <[u8]>::len);
            assert!(read.unwrap() > 1000);
        }
    }
}
