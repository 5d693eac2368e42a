//! One read request over LMDB, from body to response: what the server adds to HTTP.
//!
//! 50,000 rows of 20 fields (7 longs, 6 doubles, 4 texts, 3 booleans); keys are drawn anew for
//! every request, so that neither a plan's keys nor a page is always warm.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is a failed benchmark"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use headrace_codec::catalog::Catalog;
use headrace_codec::command::encode_commands;
use headrace_codec::read::Limits;
use headrace_codec::read::coding::Coding;
use headrace_codec::read::engine::{Engine, ReadCall};
use headrace_codec::read::plan::Accept;
use headrace_lmdb::{Options, Store, row_error};

const NOW_MS: i64 = 1_700_000_000_000;
const ROWS: u64 = 50_000;
const TYPES: [&str; 20] = [
    "Long", "Double", "Text", "Boolean", "Long", "Double", "Text", "Long", "Double", "Boolean",
    "Long", "Double", "Text", "Long", "Double", "Boolean", "Long", "Double", "Text", "Long",
];

/// A linear congruential generator (Knuth, MMIX), so that every run has the same rows and keys.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn value(&mut self, scalar: &str) -> String {
        match scalar {
            "Boolean" => (self.below(2) == 1).to_string(),
            "Text" => {
                let letters =
                    (0..2 + self.below(12)).map(|_| b'a' + u8::try_from(self.below(26)).unwrap());
                format!("\"{}\"", String::from_utf8(letters.collect()).unwrap())
            }
            "Double" => {
                let digits = f64::from(u32::try_from(self.below(1 << 31)).unwrap());
                format!("{:?}", digits / 3_000_017.0)
            }
            _ => {
                let bits = self.below(24);
                self.below(1 << bits).to_string()
            }
        }
    }
}

fn catalog() -> Catalog {
    let fields = TYPES.iter().enumerate().map(|(position, scalar)| {
        let default = match *scalar {
            "Boolean" => "false",
            "Text" => "\"\"",
            "Double" => "0.0",
            _ => "0",
        };
        let (id, name) = (position + 1, format!("field_name_{position}"));
        format!(
            r#"{{"id":{id},"name":"{name}","type":"{scalar}","nullable":false,"default":{default}}}"#
        )
    });
    let fields: Vec<String> = fields.collect();
    let document = format!(
        r#"{{"format":1,"generation":1,"groups":[{{"id":1,"name":"live::user-stats-v1","feature_type":"Object","keys":[{{"name":"user_id","type":"Long"}}],"schemas":[{{"ordinal":1,"fields":[{}]}}],"ttl_ms":null,"max_age_ms":null,"max_events":100,"cache":{{"ttl_ms":0,"local_ttl_ms":0}}}}],"services":[]}}"#,
        fields.join(",")
    );
    Catalog::from_json(document.as_bytes()).unwrap()
}

fn fill(store: &Store, catalog: &Catalog) {
    let mut draws = Draws(7);
    let commands: Vec<String> = (0..ROWS)
        .map(|user_id| {
            let mut command = format!(
                r#"{{"feature_name":"live::user-stats-v1","method":"UPDATE","keys":{{"user_id":{user_id}}},"values":{{"_last_updated_at_ms":{NOW_MS}"#
            );
            for (position, scalar) in TYPES.iter().enumerate() {
                let _ = write!(command, r#","field_name_{position}":{}"#, draws.value(scalar));
            }
            command.push_str("}}");
            command
        })
        .collect();
    let batch = encode_commands(catalog, commands.iter().map(String::as_bytes), NOW_MS);
    assert!(batch.rejections().is_empty(), "{:?}", batch.rejections().first());
    store.apply(batch.mutations(), catalog, NOW_MS).unwrap();
}

fn body(draws: &mut Draws, keys: u64) -> String {
    let fields: Vec<String> =
        (0..20).map(|position| format!("\"field_name_{position}\"")).collect();
    let ids: Vec<String> = (0..keys).map(|_| draws.below(ROWS).to_string()).collect();
    format!(
        r#"{{"reads":[{{"feature_group":"live::user-stats-v1","fields":[{}],"keys":{{"user_id":[{}]}}}}]}}"#,
        fields.join(","),
        ids.join(",")
    )
}

fn read(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Arc::new(catalog());
    let store = Store::open(folder.path(), Options::default()).unwrap();
    fill(&store, &catalog);
    let engine = Engine::new(Limits::default());
    engine.install(catalog);
    let mut draws = Draws(11);
    for (name, accept) in [("json", Accept::Json), ("avro", Accept::Avro)] {
        let mut group = criterion.benchmark_group(name);
        for keys in [1, 10, 100] {
            let bodies: Vec<String> = (0..500).map(|_| body(&mut draws, keys)).collect();
            let mut next = bodies.iter().cycle();
            group.bench_function(format!("{keys} keys"), |bencher| {
                bencher.iter(|| {
                    let call = ReadCall {
                        body: next.next().unwrap().as_bytes(),
                        accept,
                        now_ms: NOW_MS,
                        coding: Coding::Identity,
                        request_id: b"0123456789abcdef",
                        keep_alive: true,
                        reloaded: false,
                    };
                    let open = || store.read().map_err(|error| row_error(&error));
                    let response = engine.read(&call, open, <[u8]>::to_vec).unwrap();
                    assert!(response.starts_with(b"HTTP/1.1 200"));
                    black_box(response)
                });
            });
        }
    }
}

criterion_group!(benches, read);
criterion_main!(benches);
