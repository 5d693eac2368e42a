//! Fixed work, one function a case, for a counter of instructions: `headrace.loadtest.instructions`
//! runs this under callgrind and compares what each function took with the committed baseline.
//!
//! Everything is made and run once before it is counted: plans are known, buffers have their size.
//! Prints how many records, events, commands or requests each function stands for. With the argument
//! `times` it prints instead the least time that each of them took in many rounds, which a busy machine
//! moves little.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    reason = "a count stops at its first surprise"
)]

use std::hint::black_box;
use std::time::Instant;

use headrace_codec::block::seal_object;
use headrace_codec::catalog::Catalog;
use headrace_codec::command::encode_commands;
use headrace_codec::fold::fold;
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::Transcoder;

use heads::Heads;
use reads::{Cached, Stored};
use records::{FIELDS, bodies, schema, vector_schema, vectors};

#[path = "../../core/benches/records/mod.rs"]
mod records;

mod heads;
mod reads;
mod rows;

/// Bodies and what prints them.
struct Printing {
    transcoder: Transcoder,
    bodies: Vec<Vec<u8>>,
    out: Vec<u8>,
    status: RowStatus,
}

impl Printing {
    fn record(nullable: bool, requested: &[usize]) -> Self {
        let schema = schema(nullable);
        let transcoder = Transcoder::new(&schema, &schema, requested).unwrap();
        let (out, status) = (Vec::with_capacity(1 << 20), RowStatus::default());
        Self { transcoder, bodies: bodies(nullable), out, status }
    }

    fn vector() -> Self {
        let schema = vector_schema();
        let transcoder = Transcoder::new(&schema, &schema, &[0]).unwrap();
        let (out, status) = (Vec::with_capacity(1 << 20), RowStatus::default());
        Self { transcoder, bodies: vectors(), out, status }
    }

    fn rows(&mut self) {
        self.out.clear();
        for body in black_box(&self.bodies) {
            self.transcoder.row(body, &mut self.out, &mut self.status).unwrap();
        }
    }

    fn objects(&mut self) {
        self.out.clear();
        for body in black_box(&self.bodies) {
            self.transcoder.object(body, &mut self.out, &mut self.status).unwrap();
        }
    }

    fn events(&mut self) {
        self.out.clear();
        for (time, body) in (rows::NOW_MS..).zip(black_box(&self.bodies)) {
            self.transcoder.event(time, body, &mut self.out, &mut self.status).unwrap();
        }
    }
}

/// A function of its own for each case: never inlined, and never merged with one of equal code,
/// because it shows its name.
macro_rules! cases {
    ($($case:ident($($subject:ident: $kind:ty),*) $work:block)*) => {
        $(
            #[inline(never)]
            fn $case($($subject: $kind),*) {
                black_box(stringify!($case));
                $work
            }
        )*
    };
}

cases! {
    objects(printing: &mut Printing) { printing.objects() }
    rows_of_values(printing: &mut Printing) { printing.rows() }
    rows_of_nullable_values(printing: &mut Printing) { printing.rows() }
    rows_in_another_order(printing: &mut Printing) { printing.rows() }
    rows_of_three_of_twenty(printing: &mut Printing) { printing.rows() }
    events_of_a_history(printing: &mut Printing) { printing.events() }
    vectors_of_128(printing: &mut Printing) { printing.rows() }
    commands_encoded(catalog: &Catalog, payloads: &[Vec<u8>]) {
        let payloads = black_box(payloads).iter().map(Vec::as_slice);
        black_box(encode_commands(catalog, payloads, rows::NOW_MS));
    }
    rows_folded_and_sealed(fixture: &rows::Fixture) {
        for cells in black_box(&fixture.patched) {
            let cells = cells.iter().map(|(id, cell)| (*id, cell.as_slice()));
            let folded = fold(fixture.group(), cells, None, rows::NOW_MS).unwrap().unwrap();
            black_box(seal_object(7, &folded));
        }
    }
    cached_read_of_1_row(cached: &mut Cached) { cached.run() }
    cached_read_of_10_rows(cached: &mut Cached) { cached.run() }
    cached_read_of_100_rows(cached: &mut Cached) { cached.run() }
    cached_read_of_100_rows_as_avro(cached: &mut Cached) { cached.run() }
    cached_read_of_a_history(cached: &mut Cached) { cached.run() }
    stored_read_of_10_rows(stored: &Stored) { stored.run() }
    heads_known_again(heads: &Heads) { heads.run(&heads.plain) }
    heads_known_again_under_other_ids(heads: &Heads) { heads.run(&heads.identified) }
}

/// The least nanoseconds of many rounds, per unit.
fn time(case: &str, units: usize, mut work: impl FnMut()) {
    let round = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let least = (0..5_000).map(round).min().unwrap_or_default();
    println!("{:10.1}  {case}", least.as_secs_f64() * 1e9 / units as f64);
}

/// Runs a case once to warm it up, then as the counter sees it, and tells its units.
macro_rules! count {
    ($($case:ident($($subject:expr),*) of $units:expr;)*) => {
        $( $case($($subject),*); )*
        if std::env::args().any(|argument| argument == "times") {
            $( time(stringify!($case), $units, || $case($($subject),*)); )*
            return;
        }
        $( $case($($subject),*); )*
        println!("{{");
        $( println!("\"{}\": {},", stringify!($case), $units); )*
        println!("\"\": 0}}");
    };
}

fn main() {
    let all: Vec<usize> = (0..FIELDS.len()).collect();
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    let (mut flat, mut nullable) = (Printing::record(false, &all), Printing::record(true, &all));
    let mut other_order = Printing::record(false, &reversed);
    let mut three = Printing::record(false, &all[4..7]);
    let mut vectors = Printing::vector();
    let fixture = rows::Fixture::new();
    let payloads = rows::payloads();
    let cached = |rows, accept| Cached::new(&fixture, rows::OBJECT, rows, accept);
    let (mut one, mut ten) = (cached(1, reads::JSON), cached(10, reads::JSON));
    let (mut hundred, mut avro) = (cached(100, reads::JSON), cached(100, reads::AVRO));
    let mut history = Cached::new(&fixture, rows::HISTORY, 1, reads::JSON);
    let stored = Stored::new(&fixture, 10);
    let heads = Heads::new();
    count! {
        objects(&mut flat) of 100;
        rows_of_values(&mut flat) of 100;
        rows_of_nullable_values(&mut nullable) of 100;
        rows_in_another_order(&mut other_order) of 100;
        rows_of_three_of_twenty(&mut three) of 100;
        events_of_a_history(&mut flat) of 100;
        vectors_of_128(&mut vectors) of 100;
        commands_encoded(&fixture.catalog, &payloads) of 100;
        rows_folded_and_sealed(&fixture) of 100;
        cached_read_of_1_row(&mut one) of reads::REPEATS;
        cached_read_of_10_rows(&mut ten) of reads::REPEATS;
        cached_read_of_100_rows(&mut hundred) of reads::REPEATS;
        cached_read_of_100_rows_as_avro(&mut avro) of reads::REPEATS;
        cached_read_of_a_history(&mut history) of reads::REPEATS;
        stored_read_of_10_rows(&stored) of reads::REPEATS;
        heads_known_again(&heads) of heads::REQUESTS;
        heads_known_again_under_other_ids(&heads) of heads::REQUESTS;
    }
}
