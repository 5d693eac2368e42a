//! A catalog, a store in memory, and one request.

use std::collections::HashMap;
use std::sync::Arc;

use headrace_codec::catalog::Catalog;
use headrace_codec::cell;
use headrace_codec::cursor::write_varint;
use headrace_codec::key::KeyWriter;
use headrace_codec::read::Limits;
use headrace_codec::read::coding::Coding;
use headrace_codec::read::engine::{Engine, ReadCall};
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::{RowError, RowSource, StaleCatalog};
use serde_json::Value;

pub(crate) const NOW_MS: i64 = 1_700_000_000_000;
pub(crate) const USERS: &str = "live::user-stats-v1";
pub(crate) const HISTORY: &str = "live::rich-history";
pub(crate) const ROUTES: &str = "live::route-stats-v1";

/// `live::user-stats-v1` has two schemas: the second added `score`.
pub(crate) const DOCUMENT: &str = r#"{"format":1,"generation":12,"groups":[
{"id":1,"name":"live::user-stats-v1","feature_type":"Object",
 "keys":[{"name":"user_id","type":"Long"}],
 "schemas":[
  {"ordinal":1,"fields":[
   {"id":1,"name":"gender","type":"Text","nullable":false,"default":"NONE"},
   {"id":2,"name":"level","type":"Long","nullable":false,"default":7}]},
  {"ordinal":2,"fields":[
   {"id":1,"name":"gender","type":"Text","nullable":false,"default":"NONE"},
   {"id":2,"name":"level","type":"Long","nullable":false,"default":7},
   {"id":3,"name":"score","type":"Double","nullable":true,"default":null}]}],
 "ttl_ms":1000000,"max_age_ms":60000,"max_events":100,"cache":{"ttl_ms":600000,"local_ttl_ms":0}},
{"id":2,"name":"live::rich-history","feature_type":"History",
 "keys":[{"name":"user_id","type":"Integer"}],
 "schemas":[{"ordinal":1,"fields":[
   {"id":1,"name":"user_gender","type":"Text","nullable":false,"default":"NONE"},
   {"id":2,"name":"ratio","type":"Double","nullable":false,"default":0.5}]}],
 "ttl_ms":1000000,"max_age_ms":null,"max_events":3,"cache":{"ttl_ms":600000,"local_ttl_ms":0}},
{"id":3,"name":"live::route-stats-v1","feature_type":"Object","feast_name":"route_stats",
 "keys":[{"name":"origin","type":"Text"},{"name":"dest","type":"Text"}],
 "schemas":[{"ordinal":1,"fields":[
   {"id":1,"name":"flights","type":"Long","nullable":false,"default":0,"feast_name":"FlightCount"}]}],
 "ttl_ms":null,"max_age_ms":null,"max_events":100,"cache":{"ttl_ms":0,"local_ttl_ms":0}},
{"id":4,"name":"live::kinds","feature_type":"Object",
 "keys":[{"name":"id","type":"Text"}],
 "schemas":[{"ordinal":1,"fields":[
   {"id":1,"name":"at","type":"Timestamp","nullable":false,"default":"1970-01-01T00:00:00Z"},
   {"id":2,"name":"day","type":"Date","nullable":false,"default":"1970-01-02"},
   {"id":3,"name":"days","type":"List<Date>","nullable":false,"default":[]},
   {"id":4,"name":"raw","type":"Bytes","nullable":false,"default":""},
   {"id":5,"name":"ratio","type":"Float","nullable":false,"default":0},
   {"id":6,"name":"whole","type":"Double","nullable":false,"default":0},
   {"id":7,"name":"yes","type":"Boolean","nullable":false,"default":false}]}],
 "ttl_ms":null,"max_age_ms":null,"max_events":100,"cache":{"ttl_ms":0,"local_ttl_ms":0}}],
"services":[
 {"name":"room-ranker-v1","feast_name":"room_ranker","reads":[
  {"feature_group":"live::user-stats-v1","fields":["level"],"alias":"me","keys":{"user_id":"user_id"},"limit":null},
  {"feature_group":"live::user-stats-v1","fields":null,"alias":"peers","keys":{"user_id":"peer_user_id"},"limit":null},
  {"feature_group":"live::rich-history","fields":null,"alias":null,"keys":{"user_id":"user_id"},"limit":2},
  {"feature_group":"live::route-stats-v1","fields":null,"alias":null,"keys":{"origin":"from","dest":"to"},"limit":null}]}]}"#;

/// (field id, cell)
type Cells = Vec<(u16, Vec<u8>)>;

#[derive(Default)]
pub(crate) struct Memory {
    objects: HashMap<Vec<u8>, (Option<i64>, Cells)>,
    histories: HashMap<Vec<u8>, Vec<(i64, Vec<u8>)>>,
    failing: HashMap<Vec<u8>, RowError>,
    pub(crate) closed: bool,
}

impl RowSource for &Memory {
    fn object<'s>(
        &'s self,
        key: &[u8],
        cells: &mut Vec<(u16, &'s [u8])>,
    ) -> Result<Option<i64>, RowError> {
        if let Some(error) = self.failing.get(key) {
            return Err(*error);
        }
        let Some((deleted, found)) = self.objects.get(key) else { return Ok(None) };
        cells.extend(found.iter().map(|(id, cell)| (*id, cell.as_slice())));
        Ok(*deleted)
    }

    fn events<'s>(
        &'s self,
        key: &[u8],
        limit: usize,
        events: &mut Vec<(i64, &'s [u8])>,
    ) -> Result<(), RowError> {
        if let Some(error) = self.failing.get(key) {
            return Err(*error);
        }
        let found = self.histories.get(key).into_iter().flatten();
        events.extend(found.take(limit).map(|(time, cell)| (*time, cell.as_slice())));
        Ok(())
    }
}

pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) memory: Memory,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn parse(response: &[u8]) -> Self {
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (head, body) = response.split_at(end);
        Self { head: String::from_utf8(head.to_vec()).unwrap(), body: body.to_vec() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.head["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Avro bodies, by hand: an oracle of its own.
pub(crate) fn text(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, i64::try_from(value.len()).unwrap());
    out.extend_from_slice(value.as_bytes());
    out
}

pub(crate) fn long(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, value);
    out
}

pub(crate) fn double(value: f64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub(crate) fn some(value: Vec<u8>) -> Vec<u8> {
    [long(1), value].concat()
}

pub(crate) fn user(gender: &str, level: i64, score: Option<f64>) -> Vec<u8> {
    let score = score.map_or_else(|| long(0), |score| some(double(score)));
    [text(gender), long(level), score].concat()
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let engine = Engine::new(Limits::default());
        let catalog = Arc::new(Catalog::from_json(DOCUMENT.as_bytes()).unwrap());
        engine.install(Arc::clone(&catalog));
        Self { engine, catalog, memory: Memory::default() }
    }

    pub(crate) fn key(&self, group: &str, integers: &[i64], texts: &[&str]) -> Vec<u8> {
        let mut key = Vec::new();
        let mut writer = KeyWriter::new(self.catalog.group(group).unwrap(), &mut key);
        for value in integers {
            writer.push_integer(*value).unwrap();
        }
        for value in texts {
            writer.push_text(value).unwrap();
        }
        writer.finish().unwrap();
        key
    }

    /// A sealed cell under the schema of an ordinal.
    pub(crate) fn cell(&self, group: &str, ordinal: usize, time_ms: i64, body: &[u8]) -> Vec<u8> {
        let schema = &self.catalog.group(group).unwrap().schemas[ordinal - 1];
        let mut out = Vec::new();
        cell::seal(&mut out, time_ms * 1000, schema.fingerprint, body);
        out
    }

    pub(crate) fn patch(
        &self,
        group: &str,
        field: &str,
        time_ms: i64,
        body: &[u8],
    ) -> (u16, Vec<u8>) {
        let group = self.catalog.group(group).unwrap();
        let field = group.current().fields.iter().find(|known| known.name == field).unwrap();
        let canonical = field.avro_schema(true);
        let fingerprint = headrace_codec::schema::fingerprint(canonical.as_bytes());
        let mut out = Vec::new();
        cell::seal(&mut out, time_ms * 1000, fingerprint, body);
        (field.id, out)
    }

    pub(crate) fn put_user(&mut self, user_id: i64, body: &[u8]) {
        let cell = self.cell(USERS, 2, NOW_MS - 1000, body);
        self.put_cells(user_id, vec![(0, cell)]);
    }

    pub(crate) fn put_cells(&mut self, user_id: i64, cells: Cells) {
        let key = self.key(USERS, &[user_id], &[]);
        self.memory.objects.insert(key, (None, cells));
    }

    pub(crate) fn put_at(&mut self, key: Vec<u8>, record: Vec<u8>) {
        self.memory.objects.insert(key, (None, vec![(0, record)]));
    }

    pub(crate) fn delete_user(&mut self, user_id: i64, timestamp: i64) {
        let key = self.key(USERS, &[user_id], &[]);
        self.memory.objects.entry(key).or_default().0 = Some(timestamp);
    }

    pub(crate) fn put_route(&mut self, origin: &str, dest: &str, flights: i64) {
        let key = self.key(ROUTES, &[], &[origin, dest]);
        let cell = self.cell(ROUTES, 1, NOW_MS, &long(flights));
        self.memory.objects.insert(key, (None, vec![(0, cell)]));
    }

    /// Events of the history of one user, given newest first as (age in ms, gender, ratio).
    pub(crate) fn put_events(&mut self, user_id: i64, events: &[(i64, &str, f64)]) {
        let sealed = events.iter().map(|(age_ms, gender, ratio)| {
            let time_ms = NOW_MS - age_ms;
            let body = [text(gender), double(*ratio)].concat();
            (time_ms, self.cell(HISTORY, 1, time_ms, &body))
        });
        let sealed = sealed.collect();
        let key = self.key(HISTORY, &[user_id], &[]);
        self.memory.histories.insert(key, sealed);
    }

    /// Turns the last byte of one event of a History.
    pub(crate) fn damage_event(&mut self, user_id: i64, event: usize) {
        let key = self.key(HISTORY, &[user_id], &[]);
        let events = self.memory.histories.get_mut(&key).unwrap();
        *events[event].1.last_mut().unwrap() ^= 1;
    }

    pub(crate) fn fail(&mut self, group: &str, id: i64, error: RowError) {
        let key = self.key(group, &[id], &[]);
        self.memory.failing.insert(key, error);
    }

    pub(crate) fn call(&self, call: &ReadCall<'_>) -> Result<Response, StaleCatalog> {
        let open =
            || if self.memory.closed { Err(RowError::Unavailable) } else { Ok(&self.memory) };
        self.engine.read(call, open, Response::parse)
    }

    pub(crate) fn read_as(&self, body: &[u8], accept: Accept) -> Response {
        let call = ReadCall {
            body,
            accept,
            now_ms: NOW_MS,
            coding: Coding::Identity,
            request_id: b"test-1",
            keep_alive: true,
            reloaded: false,
        };
        let response = self.call(&call).expect("a row of an unknown schema");
        let length = format!("content-length: {}\r\n", response.body.len());
        assert!(response.head.contains(&length), "{}", response.head);
        response
    }

    pub(crate) fn read(&self, body: &str) -> Response {
        self.read_as(body.as_bytes(), Accept::Json)
    }

    /// The only result of a request that is answered whole or in part.
    pub(crate) fn result(&self, body: &str) -> Value {
        let response = self.read(body);
        assert_eq!(response.status(), 200, "{}", response.text());
        let mut answer = response.json();
        assert_eq!(answer["results"].as_array().unwrap().len(), 1);
        answer["results"][0].take()
    }

    /// Code, path and nearest name of the problem that a body ends in.
    pub(crate) fn problem(&self, body: &str) -> (u16, String, String, Value) {
        let response = self.read(body);
        let problem = response.json();
        let word = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(problem["status"], response.status(), "{body}");
        assert!(response.head.contains("content-type: application/problem+json\r\n"));
        assert!(
            !word("type").is_empty() && !word("title").is_empty() && !word("detail").is_empty()
        );
        (response.status(), word("code"), word("path"), problem)
    }
}
