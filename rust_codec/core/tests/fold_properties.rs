//! Fold is a pure function of the set of cells (semantics 1-3, 31).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is a failed test"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use headrace_codec::catalog::Group;
use headrace_codec::cell::Cell;
use headrace_codec::error::Error;
use headrace_codec::fold::{fold, supersedes};
use headrace_codec::schema::{Field, FieldType, Scalar};
use proptest::prelude::*;
use support::{Value, Values, any_value, body_of, default_value, encode, field, group, sealed};

const TTL_MS: i64 = 50;
const NOW_MS: i64 = 100;

const LONG: FieldType = FieldType::Scalar(Scalar::Long);
const TEXTS: FieldType = FieldType::List(Scalar::Text);

/// Three schemas: fields come, go, move, widen and become nullable.
fn schemas() -> Vec<Vec<Field>> {
    let integer = FieldType::Scalar(Scalar::Integer);
    let text = FieldType::Scalar(Scalar::Text);
    vec![
        vec![field(1, integer, false), field(2, text, true)],
        vec![field(2, text, true), field(3, TEXTS, true), field(1, integer, false)],
        vec![field(1, LONG, true), field(3, TEXTS, true), field(4, LONG, false)],
    ]
}

/// A cell as a test sees it: what it says, beside its bytes.
#[derive(Debug, Clone)]
struct Made {
    field_id: u16,
    write_timestamp: i64,
    says: Vec<(u16, Value)>,
    bytes: Vec<u8>,
}

fn any_cell() -> impl Strategy<Value = Made> {
    // Few distinct times, so that cells often meet at the same millisecond and tie.
    let stamp = (40_i64..60, 0_i64..3).prop_map(|(ms, tie)| ms * 1000 + tie);
    (0_usize..3, stamp, any::<prop::sample::Index>(), any::<bool>()).prop_flat_map(
        |(ordinal, write_timestamp, pick, whole)| {
            let fields = schemas()[ordinal].clone();
            let chosen = if whole { fields } else { vec![pick.get(&fields).clone()] };
            let values: Vec<_> =
                chosen.iter().map(|it| any_value(it.field_type, it.nullable)).collect();
            values.prop_map(move |values| make(ordinal, write_timestamp, &chosen, &values, whole))
        },
    )
}

fn make(
    ordinal: usize,
    write_timestamp: i64,
    fields: &[Field],
    values: &[Value],
    whole: bool,
) -> Made {
    let group = group(&schemas(), Some(TTL_MS));
    let schema = &group.schemas[ordinal];
    let says = fields.iter().map(|field| field.id).zip(values.iter().cloned()).collect();
    let (field_id, bytes) = if whole {
        (0, sealed(write_timestamp, schema.fingerprint, &body_of(fields, values)))
    } else {
        let print = schema.patch_fingerprints[schema.position(fields[0].id).unwrap()];
        let mut body = Vec::new();
        encode(&values[0], &fields[0], &mut body);
        (fields[0].id, sealed(write_timestamp, print, &body))
    };
    Made { field_id, write_timestamp, says, bytes }
}

/// Times, and each field's value where it was written.
type Outcome = Option<(i64, i64, Vec<bool>, Vec<Value>)>;

fn folded<'a>(
    group: &Group,
    cells: impl IntoIterator<Item = &'a Made>,
    deleted: Option<i64>,
) -> Result<Outcome, Error> {
    let cells = cells.into_iter().map(|cell| (cell.field_id, cell.bytes.as_slice()));
    let Some(folded) = fold(group, cells, deleted, NOW_MS)? else { return Ok(None) };
    let written = (0..folded.schema.fields.len()).map(|it| folded.is_written(it)).collect();
    let values = Values::of(&folded.schema, &folded.body)?;
    Ok(Some((folded.newest_event_time_ms, folded.oldest_event_time_ms, written, values)))
}

/// What a store keeps: one cell a place.
fn stored<'a>(cells: impl IntoIterator<Item = &'a Made>) -> Vec<&'a Made> {
    let mut places: BTreeMap<u16, &Made> = BTreeMap::new();
    for cell in cells {
        let standing = places.entry(cell.field_id).or_insert(cell);
        if supersedes(&Cell::open(&cell.bytes).unwrap(), &Cell::open(&standing.bytes).unwrap()) {
            *standing = cell;
        }
    }
    places.into_values().collect()
}

/// The reference: what each current field's newest live cell says, by scanning.
fn reference(group: &Group, cells: &[Made], deleted: Option<i64>) -> Outcome {
    let live: Vec<&Made> = stored(cells)
        .into_iter()
        .filter(|cell| cell.write_timestamp.div_euclid(1000) + TTL_MS > NOW_MS)
        .filter(|cell| deleted.is_none_or(|deleted| cell.write_timestamp > deleted))
        .collect();
    let times = || live.iter().map(|cell| cell.write_timestamp.div_euclid(1000));
    let (newest, oldest) = (times().max()?, times().min()?);
    let mut written = Vec::new();
    let mut values = Vec::new();
    for field in &group.current().fields {
        let spoken = live.iter().filter_map(|cell| {
            let (_, value) = cell.says.iter().find(|(id, _)| *id == field.id)?;
            Some((cell.write_timestamp, value))
        });
        let latest = spoken.max_by_key(|(write_timestamp, _)| *write_timestamp);
        written.push(latest.is_some());
        values.push(match latest {
            Some((_, Value::Integer(value))) => Value::Long(i64::from(*value)),
            Some((_, value)) => value.clone(),
            None if field.nullable => Value::Null,
            None => default_value(field.field_type),
        });
    }
    Some((newest, oldest, written, values))
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for place in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(place, count - 1);
            all.push(longer);
        }
    }
    all
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn all_orders_of_up_to_five_cells_fold_alike(
        cells in proptest::collection::vec(any_cell(), 1..6),
        deleted in proptest::option::of(45_000_i64..60_000),
    ) {
        let group = group(&schemas(), Some(TTL_MS));
        let wanted = folded(&group, &cells, deleted).unwrap();
        for order in permutations(cells.len()) {
            let shuffled = order.iter().map(|index| &cells[*index]);
            prop_assert_eq!(&folded(&group, shuffled, deleted).unwrap(), &wanted);
        }
    }

    #[test]
    fn fifty_orders_of_many_cells_with_repeats_and_splits_fold_alike(
        cells in proptest::collection::vec(any_cell(), 6..14),
        seed in any::<u64>(),
    ) {
        let group = group(&schemas(), Some(TTL_MS));
        let wanted = folded(&group, &cells, None).unwrap();
        let mut state = seed | 1;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % limit
        };
        for _ in 0..50 {
            let mut order: Vec<&Made> = cells.iter().collect();
            order.push(&cells[below(cells.len())]);
            for end in (1..order.len()).rev() {
                order.swap(end, below(end + 1));
            }
            // A store may have merged any part of them before.
            let (early, late) = order.split_at(below(order.len()));
            let merged = stored(early.iter().copied()).into_iter().chain(late.iter().copied());
            prop_assert_eq!(&folded(&group, merged, None).unwrap(), &wanted);
        }
    }

    #[test]
    fn fold_agrees_with_a_scan_of_what_each_cell_says(
        mut cells in proptest::collection::vec(any_cell(), 0..10),
        deleted in proptest::option::of(45_000_i64..60_000),
    ) {
        // The scan knows no tie-break between a record and a patch: give each its own timestamp.
        let mut seen = std::collections::BTreeSet::new();
        cells.retain(|cell| seen.insert(cell.write_timestamp));
        let group = group(&schemas(), Some(TTL_MS));
        let wanted = reference(&group, &cells, deleted);
        prop_assert_eq!(folded(&group, &cells, deleted).unwrap(), wanted);
    }
}

#[test]
fn every_flipped_bit_and_truncation_of_a_cell_fails_the_fold() {
    let group = group(&schemas(), None);
    let values = [Value::Null, Value::List(vec![Value::Text("a".to_owned())]), Value::Long(-1)];
    let fields = schemas()[2].clone();
    let cell = make(2, 50_000, &fields, &values, true);
    for bit in 0..cell.bytes.len() * 8 {
        let mut bytes = cell.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(fold(&group, [(0, &*bytes)], None, NOW_MS).is_err(), "bit {bit}");
    }
    for length in 0..cell.bytes.len() {
        assert!(fold(&group, [(0, &cell.bytes[..length])], None, NOW_MS).is_err(), "{length}");
    }
}

#[test]
fn a_stored_null_of_a_field_that_no_longer_takes_it_counts_as_never_written() {
    let text = FieldType::Scalar(Scalar::Text);
    let history = [vec![field(1, text, true)], vec![field(1, text, false)]];
    let group: Arc<Group> = group(&history, None);
    let cell = sealed(1000, group.schemas[0].fingerprint, &[0]);
    let folded = fold(&group, [(0, &*cell)], None, NOW_MS).unwrap().unwrap();
    assert!(!folded.is_written(0));
    assert_eq!(Values::of(&folded.schema, &folded.body).unwrap(), [default_value(text)]);
}
