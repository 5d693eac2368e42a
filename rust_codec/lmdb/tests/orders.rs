//! 1,000 histories × 20 orders, with repeats and splits, end in the state of a reference model
//! that knows nothing of `apply` (semantics 31).
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a failed test is what we want"
)]

mod support;

use std::collections::BTreeMap;

use headrace_codec::catalog::Catalog;
use headrace_codec::cell::Cell;
use headrace_codec::mutation::MutationKind;
use headrace_lmdb::{Options, ReadTransaction, Store};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::{HISTORY, OBJECT, Owned, catalog, delete, event, key, patch, record};

const HISTORIES: usize = 1_000;
const ORDERS: usize = 20;
const NOW_MS: i64 = 1_700_000_000_000;
const EVENTS_MAX: usize = 3;

/// Write timestamp and Avro body of what a reader sees, by field id, or by event.
type State = BTreeMap<(i64, u64), (i64, Vec<u8>)>;

/// What a key must answer after these mutations in any order.
fn model(mutations: &[Owned], catalog: &Catalog) -> State {
    let is_delete = |kind| matches!(kind, MutationKind::DeleteRow | MutationKind::DeleteHistory);
    let deletes = mutations.iter().filter(|mutation| is_delete(mutation.kind));
    let floor = deletes.map(|mutation| mutation.write_timestamp).max().unwrap_or(i64::MIN);
    let mut slots = BTreeMap::new();
    for mutation in mutations.iter().filter(|mutation| mutation.write_timestamp > floor) {
        let place = match mutation.kind {
            MutationKind::Record => (0, 0),
            MutationKind::Patch(id) => (0, u64::from(id)),
            MutationKind::Event => (mutation.write_timestamp.div_euclid(1000), mutation.digest),
            _ => continue,
        };
        let cell = Cell::open(&mutation.cell).unwrap();
        let rank = (cell.write_timestamp, mutation.cell.clone());
        let standing = slots.entry(place).or_insert_with(|| rank.clone());
        *standing = rank.max(standing.clone());
    }
    let history = slots.keys().any(|(time, _)| *time != 0);
    while history && slots.len() > EVENTS_MAX {
        slots.pop_first();
    }
    visible(slots.into_iter().map(|(place, (_, cell))| (place, cell)), catalog)
}

/// What a reader makes of the cells that stand: fields of an Object, events of a History.
fn visible(slots: impl IntoIterator<Item = ((i64, u64), Vec<u8>)>, catalog: &Catalog) -> State {
    let slots: BTreeMap<_, _> = slots.into_iter().collect();
    let mut state = State::new();
    for (place, bytes) in &slots {
        let cell = Cell::open(bytes).unwrap();
        state.insert(*place, (cell.write_timestamp, cell.body.to_vec()));
    }
    state.remove(&(0, 0));
    if let Some(record) = slots.get(&(0, 0)) {
        let record = Cell::open(record).unwrap();
        let (timestamp, body) = (record.write_timestamp, record.body.to_vec());
        let (_, schema) = catalog.schema(record.fingerprint).unwrap();
        for field in &schema.fields {
            let patched = state.entry((0, u64::from(field.id))).or_insert((i64::MIN, Vec::new()));
            if timestamp > patched.0 {
                *patched = (timestamp, body.clone());
            }
        }
    }
    // A reader answers the fields of the current schema only.
    let current = catalog.group_by_id(OBJECT).unwrap().current();
    state.retain(|(time, id), _| {
        *time != 0 || current.position(u16::try_from(*id).unwrap()).is_some()
    });
    state
}

fn stored(read: &ReadTransaction<'_>, key: &[u8], catalog: &Catalog) -> State {
    let mut slots = BTreeMap::new();
    let mut add = |place: (i64, u64), bytes: &[u8]| {
        slots.insert(place, bytes.to_vec());
    };
    if key.starts_with(&HISTORY.to_be_bytes()) {
        for event in read.events(key, 100).unwrap() {
            let event = event.unwrap();
            add((event.event_time_ms, event.event_id), event.cell);
        }
    } else if let Some(row) = read.object_row(key).unwrap() {
        row.cells().for_each(|(id, bytes)| add((0, u64::from(id)), bytes));
    }
    visible(slots, catalog)
}

/// One mutation; the ranges are small so that equal timestamps, equal bytes and late writes abound.
fn any_mutation(history: bool) -> BoxedStrategy<Owned> {
    let timestamp = (0..6_i64, 0..2_i64).prop_map(|(ms, tie)| (NOW_MS - 10 + ms) * 1000 + tie);
    let body = proptest::collection::vec(0..3_u8, 1);
    let parts = (timestamp, body, 1..=3_u32, 0..10_u8);
    parts
        .prop_map(move |(timestamp, body, choice, dice)| match (history, dice) {
            (true, 0) => delete(HISTORY, 0, timestamp / 1000),
            // The event id decides the tie, as the content digest does.
            (true, _) => event(0, timestamp, u64::try_from(timestamp % 1000).unwrap(), &body),
            (false, 0) => delete(OBJECT, 0, timestamp / 1000),
            (false, 1..=4) => record(OBJECT, 0, timestamp, choice, &body),
            (false, _) => patch(OBJECT, 0, timestamp, u16::try_from(choice).unwrap(), &body),
        })
        .boxed()
}

/// A set of mutations of one key, and for each order a shuffle with repeats, cut into batches.
fn any_case() -> impl Strategy<Value = (Vec<Owned>, Vec<Vec<Vec<Owned>>>)> {
    let mutations = any::<bool>()
        .prop_flat_map(|history| proptest::collection::vec(any_mutation(history), 1..9));
    mutations.prop_flat_map(|mutations| {
        let repeats = proptest::collection::vec(any::<Index>(), 0..4);
        let cuts = proptest::collection::vec(any::<bool>(), 16);
        let all = mutations.clone();
        let order = (repeats, cuts).prop_flat_map(move |(repeats, cuts)| {
            let mut told = all.clone();
            told.extend(repeats.iter().map(|index| index.get(&all).clone()));
            (Just(told).prop_shuffle(), Just(cuts))
        });
        let order = order.prop_map(|(told, cuts)| {
            let mut batches = vec![Vec::new()];
            for (mutation, cut) in told.into_iter().zip(cuts) {
                if cut {
                    batches.push(Vec::new());
                }
                batches.last_mut().unwrap().push(mutation);
            }
            batches
        });
        (Just(mutations), proptest::collection::vec(order, ORDERS))
    })
}

#[test]
fn every_order_of_a_history_ends_in_the_state_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let catalog = catalog();
    let mut runner = TestRunner::deterministic();
    let strategy = any_case();
    let cases: Vec<_> =
        (0..HISTORIES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let placed = |case: usize, order: usize, like: &Owned| {
        let group_id = if like.key == key(HISTORY, 0) { HISTORY } else { OBJECT };
        key(group_id, u64::try_from(case * ORDERS + order).unwrap())
    };
    // The n-th batches of all orders share a transaction: each key still sees its own order and cuts.
    let rounds = cases.iter().flat_map(|case| &case.1).map(Vec::len).max().unwrap();
    for round in 0..rounds {
        let mut batch = Vec::new();
        for (number, (_, orders)) in cases.iter().enumerate() {
            for (order, batches) in orders.iter().enumerate() {
                let told = batches.get(round).into_iter().flatten();
                batch.extend(
                    told.map(|mutation| mutation.with_key(placed(number, order, mutation))),
                );
            }
        }
        store.apply(batch.iter().map(Owned::borrow), &catalog, NOW_MS).unwrap();
    }
    let read = store.read().unwrap();
    for (number, (mutations, orders)) in cases.iter().enumerate() {
        let expected = model(mutations, &catalog);
        for (order, told) in orders.iter().enumerate() {
            let key = placed(number, order, &mutations[0]);
            let found = stored(&read, &key, &catalog);
            assert_eq!(found, expected, "history {number}: {mutations:#?}\nas {told:#?}");
        }
    }
}
