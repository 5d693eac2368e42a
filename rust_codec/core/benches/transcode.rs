//! Stored Avro → JSON text: ours beside the fastest Rust Avro crate, on the same 100 records.
//!
//! The record is the 20-field one of `loadtest/README.md`: 7 longs, 6 doubles, 4 texts, 3 booleans.
//! One element is one record, or one event of a History of 50.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is a failed benchmark"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headrace_codec::cursor::write_varint;
use headrace_codec::schema::{Field, FieldType, RecordSchema, Scalar};
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::{Options, Transcoder};

const FIELDS: [(&str, Scalar); 20] = [
    ("rides_total", Scalar::Long),
    ("rating_mean", Scalar::Double),
    ("country_code", Scalar::Text),
    ("is_premium", Scalar::Boolean),
    ("rides_week", Scalar::Long),
    ("rating_7d", Scalar::Double),
    ("language", Scalar::Text),
    ("followers", Scalar::Long),
    ("spend_mean", Scalar::Double),
    ("is_verified", Scalar::Boolean),
    ("likes_total", Scalar::Long),
    ("spend_7d", Scalar::Double),
    ("city", Scalar::Text),
    ("level", Scalar::Long),
    ("risk_score", Scalar::Double),
    ("has_photo", Scalar::Boolean),
    ("session_s", Scalar::Long),
    ("distance_km", Scalar::Double),
    ("device", Scalar::Text),
    ("friends", Scalar::Long),
];

fn schema(nullable: bool) -> RecordSchema {
    let fields = FIELDS.iter().zip(1..).map(|((name, scalar), id)| Field {
        id,
        name: (*name).to_owned(),
        field_type: FieldType::Scalar(*scalar),
        nullable,
        default: if nullable { serde_json::Value::Null } else { default(*scalar) },
    });
    RecordSchema::new("live::host", 1, fields.collect()).unwrap()
}

fn default(scalar: Scalar) -> serde_json::Value {
    match scalar {
        Scalar::Boolean => false.into(),
        Scalar::Text => "".into(),
        Scalar::Double => 0.0.into(),
        _ => 0.into(),
    }
}

/// A linear congruential generator (Knuth, MMIX), so that every run has the same records.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn bodies(nullable: bool) -> Vec<Vec<u8>> {
    let mut draws = Draws(7);
    (0..100).map(|_| body(&mut draws, nullable)).collect()
}

fn body(draws: &mut Draws, nullable: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, scalar) in FIELDS {
        if nullable {
            let null = draws.below(10) == 0;
            out.push(if null { 0 } else { 2 });
            if null {
                continue;
            }
        }
        match scalar {
            Scalar::Boolean => out.push(u8::try_from(draws.below(2)).unwrap()),
            Scalar::Text => {
                let length = 2 + draws.below(12);
                write_varint(&mut out, i64::try_from(length).unwrap());
                let letters = (0..length).map(|_| b'a' + u8::try_from(draws.below(26)).unwrap());
                out.extend(letters);
            }
            Scalar::Double => {
                let value = f64::from(u32::try_from(draws.below(1 << 31)).unwrap()) / 3_000_017.0;
                out.extend_from_slice(&value.to_le_bytes());
            }
            _ => {
                let bits = draws.below(24);
                write_varint(&mut out, i64::try_from(draws.below(1 << bits)).unwrap());
            }
        }
    }
    out
}

fn ours(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(100));
    let all: Vec<usize> = (0..FIELDS.len()).collect();
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    for (name, nullable, requested) in [
        ("flat", false, &all[..]),
        ("nullable", true, &all[..]),
        ("reversed", false, &reversed[..]),
        ("3 of 20", false, &all[4..7]),
    ] {
        let (schema, bodies) = (schema(nullable), bodies(nullable));
        let transcoder = Transcoder::new(&schema, &schema, requested).unwrap();
        let (mut out, mut status) = (Vec::with_capacity(1 << 20), RowStatus::default());
        group.bench_function(format!("{name}, rows"), |bencher| {
            bencher.iter(|| {
                out.clear();
                for body in black_box(&bodies) {
                    transcoder.row(body, &mut out, &mut status).unwrap();
                }
                out.len()
            });
        });
        group.bench_function(format!("{name}, objects"), |bencher| {
            bencher.iter(|| {
                out.clear();
                for body in black_box(&bodies) {
                    transcoder.object(body, &mut out, &mut status).unwrap();
                }
                out.len()
            });
        });
    }
    group.finish();
}

fn theirs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(100));
    for (name, nullable) in [("flat", false), ("nullable", true)] {
        let (schema, bodies) = (schema(nullable), bodies(nullable));
        let parsed: serde_avro_fast::Schema = schema.avro.parse().unwrap();
        let mut out = Vec::with_capacity(1 << 20);
        group.bench_function(format!("{name}, objects, serde_avro_fast"), |bencher| {
            bencher.iter(|| {
                out.clear();
                for body in black_box(&bodies) {
                    let mut state =
                        serde_avro_fast::de::DeserializerState::from_slice(body, &parsed);
                    let mut printer = serde_json::Serializer::new(&mut out);
                    serde_transcode::transcode(state.deserializer(), &mut printer).unwrap();
                }
                out.len()
            });
        });
    }
    group.finish();
}

fn history(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history of 50");
    group.throughput(Throughput::Elements(50));
    let (schema, bodies) = (schema(false), bodies(false));
    let requested: Vec<usize> = (0..FIELDS.len()).collect();
    let transcoder =
        Transcoder::with_options(&schema, &schema, &requested, Options::default()).unwrap();
    let (mut out, mut status) = (Vec::with_capacity(1 << 20), RowStatus::default());
    group.bench_function("events", |bencher| {
        bencher.iter(|| {
            out.clear();
            for (time, body) in (1_700_000_000_000_i64..).zip(&black_box(&bodies)[..50]) {
                transcoder.event(time, body, &mut out, &mut status).unwrap();
            }
            out.len()
        });
    });
    group.finish();
}

fn sizes(_: &mut Criterion) {
    let bodies = bodies(false);
    let schema = schema(false);
    let requested: Vec<usize> = (0..FIELDS.len()).collect();
    let transcoder = Transcoder::new(&schema, &schema, &requested).unwrap();
    let mut out = Vec::new();
    for body in &bodies {
        transcoder.object(body, &mut out, &mut RowStatus::default()).unwrap();
    }
    let avro: usize = bodies.iter().map(Vec::len).sum();
    println!("bytes of 100 records: Avro {avro}, JSON {}", out.len());
}

criterion_group!(benches, sizes, ours, theirs, history);
criterion_main!(benches);
