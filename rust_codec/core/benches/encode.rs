//! Time per command: 20 fields (7 longs, 6 doubles, 4 texts, 3 booleans), complete and partial, as
//! JSON and as bulk Avro. `cargo bench -p headrace-codec --bench encode`.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    reason = "a benchmark stops at its first surprise"
)]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headrace_codec::catalog::Catalog;
use headrace_codec::cell::Cell;
use headrace_codec::command::{BulkCommand, Method, encode_commands, write_bulk};
use headrace_codec::format::CELL_HEADER_BYTES;
use headrace_codec::json::Reader;

const COMMANDS: usize = 256;
const EVENT_MS: u64 = 1_700_000_000_000;
const NOW_MS: i64 = 1_700_000_100_000;

const FIELDS: [(&str, &str, &str); 20] = [
    ("trips_7d", "Long", "0"),
    ("trips_30d", "Long", "0"),
    ("is_active", "Boolean", "false"),
    ("rating_mean", "Double", "0"),
    ("rating_deviation", "Double", "0"),
    ("country_code", "Text", "\"XX\""),
    ("level", "Long", "0"),
    ("gender", "Text", "\"\""),
    ("fare_mean", "Double", "0"),
    ("fare_max", "Double", "0"),
    ("is_verified", "Boolean", "false"),
    ("sessions", "Long", "0"),
    ("last_room_id", "Long", "0"),
    ("language", "Text", "\"\""),
    ("accept_ratio", "Double", "0"),
    ("cancel_ratio", "Double", "0"),
    ("followers", "Long", "0"),
    ("following", "Long", "0"),
    ("segment", "Text", "\"\""),
    ("has_guest", "Boolean", "false"),
];

fn catalog() -> Catalog {
    let mut fields = String::new();
    for (position, (name, field_type, default)) in FIELDS.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let id = position + 1;
        let _ = write!(
            fields,
            r#"{comma}{{"id":{id},"name":"{name}","type":"{field_type}","nullable":false,"default":{default}}}"#
        );
    }
    let document = format!(
        r#"{{"format":1,"generation":1,"groups":[{{"id":7,"name":"live::driver-stats-v1","feature_type":"Object",
        "keys":[{{"name":"driver_id","type":"Long"}}],"schemas":[{{"ordinal":1,"fields":[{fields}]}}],
        "max_events":100,"cache":{{"ttl_ms":0,"local_ttl_ms":0}}}}]}}"#
    );
    Catalog::from_json(document.as_bytes()).expect("the document is well formed")
}

/// A value of the field for one row; numbers spread as they do in practice.
fn value(field_type: &str, row: u64, position: u64) -> String {
    let spread = (row * 31 + position) * 2_654_435_761 % 1_000_003;
    match field_type {
        "Long" => spread.to_string(),
        "Double" => format!("{}.{:04}", spread % 100, spread / 100),
        "Boolean" => spread.is_multiple_of(2).to_string(),
        _ => format!("\"text-{}\"", spread % 5000),
    }
}

fn command(row: u64, fields: usize) -> Vec<u8> {
    let mut values = String::new();
    for (position, (name, field_type, _)) in FIELDS.iter().enumerate().take(fields) {
        let value = value(field_type, row, position as u64);
        let _ = write!(values, r#""{name}":{value},"#);
    }
    let event_time_ms = EVENT_MS + row;
    format!(
        r#"{{"feature_name":"live::driver-stats-v1","method":"UPDATE","keys":{{"driver_id":{row}}},"values":{{{values}"_last_updated_at_ms":{event_time_ms}}}}}"#
    )
    .into_bytes()
}

fn commands(fields: usize) -> Vec<Vec<u8>> {
    (0..COMMANDS as u64).map(|row| command(row, fields)).collect()
}

fn bulk(catalog: &Catalog, payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let batch = encode_commands(catalog, payloads.iter().map(Vec::as_slice), NOW_MS);
    assert_eq!((batch.accepted(), batch.mutation_count()), (COMMANDS, COMMANDS));
    let write = |mutation: headrace_codec::mutation::Mutation<'_>| {
        let cell = Cell::open(mutation.cell).expect("it was just sealed");
        let mut out = Vec::new();
        let command = BulkCommand {
            feature_name: "live::driver-stats-v1",
            method: Method::Update,
            key: mutation.key,
            event_time_ms: cell.event_time_ms(),
            record: mutation.cell.get(CELL_HEADER_BYTES..),
        };
        write_bulk(&command, &mut out);
        out
    };
    batch.mutations().map(write).collect()
}

fn encode(criterion: &mut Criterion) {
    let catalog = catalog();
    let complete = commands(FIELDS.len());
    let cases = [
        ("json, 20 of 20 fields", complete.clone()),
        ("json, 3 of 20 fields", commands(3)),
        ("bulk avro, 20 fields", bulk(&catalog, &complete)),
    ];
    let mut group = criterion.benchmark_group("commands");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for (name, payloads) in &cases {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let payloads = payloads.iter().map(Vec::as_slice);
                black_box(encode_commands(&catalog, payloads, NOW_MS))
            });
        });
    }
    group.bench_function("json, read and dropped", |bencher| {
        bencher.iter(|| {
            for payload in &complete {
                let mut reader = Reader::new(payload).expect("it is UTF-8");
                reader.skip().expect("it is JSON");
                black_box(reader.offset());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
