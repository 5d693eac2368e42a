//! Stored Avro → JSON text: ours beside the fastest Rust Avro crate, on the same 100 records.
//!
//! One element is one record of [`records`], or one event of a History of 50. This is the transcode
//! alone: bodies in, text appended to a buffer that is kept, no cell header, no checksum, no call from
//! Python. `record/flat, rows` and `record/flat, objects` beside `record/flat, objects,
//! serde_avro_fast` in one run are the figures that the codec is held to (130 and 175 ns, a third of
//! the other). `headrace.loadtest.codec_bench` tells what the same record costs a Python caller.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is a failed benchmark"
)]

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use headrace_codec::schema::{Field, RecordSchema};
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::Transcoder;

use records::{FIELDS, bodies, schema, vector_schema, vectors};

mod records;

/// Times the printing of every body, one after another into one buffer.
fn print(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    bodies: &[Vec<u8>],
    mut print_one: impl FnMut(&[u8], &mut Vec<u8>, &mut RowStatus),
) {
    let (mut out, mut status) = (Vec::with_capacity(1 << 20), RowStatus::default());
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            for body in black_box(bodies) {
                print_one(body, &mut out, &mut status);
            }
            out.len()
        });
    });
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
        print(&mut group, &format!("{name}, rows"), &bodies, |body, out, status| {
            transcoder.row(body, out, status).unwrap();
        });
        print(&mut group, &format!("{name}, objects"), &bodies, |body, out, status| {
            transcoder.object(body, out, status).unwrap();
        });
    }
    group.finish();
}

/// Records of 500 fields: of 20 spread over them, what exceeds a record of 20 is the price of 480 that
/// are passed over; 100 in reverse, beside the walk that takes every body.
fn wide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("500 fields");
    let narrow = schema(false);
    let fields = narrow.fields.iter().cycle().zip(1..=500).map(|(field, id)| Field {
        id,
        name: format!("{}_{id}", field.name),
        ..field.clone()
    });
    let schema = RecordSchema::new("live::wide", 1, fields.collect()).unwrap();
    let bodies: Vec<Vec<u8>> = bodies(false).chunks(25).map(<[Vec<u8>]>::concat).collect();
    group.throughput(Throughput::Elements(bodies.len() as u64));
    let spread: Vec<usize> = (0..20).map(|nth| nth * 25 + nth % 20).collect();
    let reversed: Vec<usize> = (0..100).map(|nth| 499 - nth * 5).collect();
    let new = |order: &[usize]| Transcoder::new(&schema, &schema, order).unwrap();
    for (name, transcoder) in [
        ("20 spread", new(&spread)),
        ("100 reversed", new(&reversed)),
        ("100 reversed, plain walk", new(&reversed).plainly()),
    ] {
        print(&mut group, &format!("{name}, rows"), &bodies, |body, out, status| {
            transcoder.row(body, out, status).unwrap();
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
    let transcoder = Transcoder::new(&schema, &schema, &requested).unwrap();
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

fn vector(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vector of 128");
    group.throughput(Throughput::Elements(100));
    let (schema, bodies) = (vector_schema(), vectors());
    let transcoder = Transcoder::new(&schema, &schema, &[0]).unwrap();
    print(&mut group, "rows", &bodies, |body, out, status| {
        transcoder.row(body, out, status).unwrap();
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

criterion_group!(benches, sizes, ours, theirs, wide, history, vector);
criterion_main!(benches);
