//! A request in phases answers what one call answers, from the store and from its own fills.

use std::collections::HashMap;

use headrace_codec::read::coding::Coding;
use headrace_codec::read::engine::ReadCall;
use headrace_codec::read::pending::{ABSENT_TTL_MAX_MS, Pending};
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::{RowError, RowSource, StaleCatalog};
use proptest::prelude::*;

use crate::fixture::{Fixture, HISTORY, NOW_MS, Response, USERS, double, long, some, text, user};

type Blocks = HashMap<Vec<u8>, Vec<u8>>;

fn call(body: &str, accept: Accept, reloaded: bool) -> ReadCall<'_> {
    let (body, request_id) = (body.as_bytes(), b"test-1");
    ReadCall {
        body,
        accept,
        coding: Coding::Identity,
        now_ms: NOW_MS,
        request_id,
        keep_alive: true,
        reloaded,
    }
}

fn begin(fixture: &Fixture, body: &str) -> Pending {
    let begun = fixture.engine.begin(&call(body, Accept::Json, false), <[u8]>::to_vec);
    begun.expect("a request that is right")
}

fn wanted(pending: &Pending) -> Vec<(usize, Vec<u8>, Option<u32>)> {
    pending.wanted().map(|row| (row.slot, row.key.to_vec(), row.events)).collect()
}

/// Reads every wanted row from the fixture's store; the blocks that may fill a cache.
fn take_store(fixture: &Fixture, pending: &mut Pending) -> Result<Blocks, StaleCatalog> {
    let source = &fixture.memory;
    let mut blocks = Blocks::new();
    for (slot, key, events) in wanted(pending) {
        let mut cells = Vec::new();
        let read = match events {
            None => (&source).object(&key, &mut cells).map(drop),
            Some(limit) => {
                let mut found = Vec::new();
                let limit = usize::try_from(limit).unwrap();
                let read = (&source).events(&key, limit, &mut found);
                cells.extend(found.into_iter().map(|(_, cell)| (0, cell)));
                read
            }
        };
        if read.is_err() {
            pending.take_unavailable(slot);
            continue;
        }
        let fill = pending.take_cells(slot, cells, NOW_MS)?;
        blocks.extend(fill.filter(|fill| fill.ttl_ms > 0).map(|fill| (key, fill.block)));
    }
    Ok(blocks)
}

/// Takes what a cache has; how many rows it had.
fn take_cache(pending: &mut Pending, blocks: &Blocks) -> usize {
    let rows = wanted(pending).into_iter();
    rows.filter(|(slot, key, _)| {
        blocks.get(key).is_some_and(|block| pending.take_block(*slot, block, NOW_MS))
    })
    .count()
}

fn finish(fixture: &Fixture, pending: Pending) -> Response {
    fixture.engine.finish_pending(pending, Response::parse).expect("no row of an unknown schema")
}

fn users(ids: &str) -> String {
    format!(
        r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{ids}]}}}}]}}"#
    )
}

#[test]
fn what_was_told_of_a_row_is_not_wanted_any_more() {
    let fixture = Fixture::new();
    let mut pending = begin(&fixture, &users("1,2,3"));
    assert_eq!(wanted(&pending).len(), 3);
    pending.take_unavailable(0);
    pending.take_unavailable(99);
    pending.take_cells(1, [], NOW_MS).unwrap();
    assert_eq!(wanted(&pending).iter().map(|row| row.0).collect::<Vec<_>>(), [2]);
    assert_eq!(pending.wanted_count(), 1);
}

#[test]
fn what_no_tier_gave_is_unavailable() {
    let fixture = Fixture::new();
    let mut pending = begin(&fixture, &users("1,2"));
    pending.take_cells(0, [], NOW_MS).unwrap();
    let answer = finish(&fixture, pending).json();
    assert_eq!(answer["results"][0]["statuses"][0]["status"], "MISSING");
    assert_eq!(answer["results"][0]["statuses"][1]["status"], "UNAVAILABLE");
    assert_eq!(finish(&fixture, begin(&fixture, &users("1,2"))).status(), 503);
}

#[test]
fn a_refused_request_is_answered_at_once() {
    let fixture = Fixture::new();
    let body = users("1.5");
    let refused = fixture.engine.begin(&call(&body, Accept::Json, false), Response::parse);
    assert_eq!(refused.unwrap_err().text(), fixture.read(&body).text());
}

#[test]
fn the_deadline_of_the_body_is_told() {
    let fixture = Fixture::new();
    let body = users("1").replace("}]}", r#"}],"deadline_ms":35}"#);
    for _ in 0..2 {
        assert_eq!(begin(&fixture, &body).deadline_ms, Some(35));
    }
    assert_eq!(begin(&fixture, &users("1")).deadline_ms, None);
}

#[test]
fn every_flipped_bit_and_truncation_of_a_block_is_a_miss() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, Some(0.5)));
    let mut pending = begin(&fixture, &users("1"));
    let blocks = take_store(&fixture, &mut pending).unwrap();
    let block = blocks.values().next().unwrap();
    let mut other = begin(&fixture, &users("1"));
    for bit in 0..block.len() * 8 {
        let mut flipped = block.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!other.take_block(0, &flipped, NOW_MS), "bit {bit}");
    }
    for length in 0..block.len() {
        assert!(!other.take_block(0, &block[..length], NOW_MS), "{length} bytes");
    }
    assert_eq!(other.wanted_count(), 1);
    assert!(other.take_block(0, block, NOW_MS));
}

#[test]
fn another_keys_block_is_a_miss() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let mut pending = begin(&fixture, &users("1"));
    let block = take_store(&fixture, &mut pending).unwrap().into_values().next().unwrap();
    assert!(!begin(&fixture, &users("2")).take_block(0, &block, NOW_MS));
}

#[test]
fn a_block_with_an_expired_cell_is_a_miss_and_fills_no_longer_than_that_cell_lives() {
    let mut fixture = Fixture::new();
    let old = fixture.cell(USERS, 2, NOW_MS - 999_999, &user("MALE", 3, None));
    let level = fixture.patch(USERS, "level", NOW_MS, &long(9));
    let cells = [(0, old.as_slice()), (level.0, level.1.as_slice())];
    let mut pending = begin(&fixture, &users("1"));
    let fill = pending.take_cells(0, cells, NOW_MS).unwrap().unwrap();
    assert_eq!(fill.ttl_ms, 1);
    assert!(begin(&fixture, &users("1")).take_block(0, &fill.block, NOW_MS));
    assert!(!begin(&fixture, &users("1")).take_block(0, &fill.block, NOW_MS + 1));
    fixture.put_cells(1, vec![]);
}

#[test]
fn an_absent_row_is_cached_for_a_minute_at_most() {
    let fixture = Fixture::new();
    let mut pending = begin(&fixture, &users("1"));
    let fill = pending.take_cells(0, [], NOW_MS).unwrap().unwrap();
    assert_eq!(fill.ttl_ms, ABSENT_TTL_MAX_MS);
    assert!(begin(&fixture, &users("1")).take_block(0, &fill.block, NOW_MS));
}

#[test]
fn a_history_is_read_whole_so_that_its_block_serves_every_limit() {
    let mut fixture = Fixture::new();
    fixture.put_events(1, &[(10, "A", 0.5), (20, "B", 1.5), (30, "C", 2.5)]);
    let body = |limit| {
        format!(
            r#"{{"reads":[{{"feature_group":"live::rich-history","limit":{limit},"keys":{{"user_id":[1]}}}}]}}"#
        )
    };
    let mut pending = begin(&fixture, &body(1));
    assert_eq!(wanted(&pending)[0].2, Some(3));
    let blocks = take_store(&fixture, &mut pending).unwrap();
    for limit in 1..=3 {
        let mut pending = begin(&fixture, &body(limit));
        assert_eq!(take_cache(&mut pending, &blocks), 1);
        assert_eq!(finish(&fixture, pending).text(), fixture.read(&body(limit)).text());
    }
}

#[test]
fn a_row_of_an_unknown_schema_asks_for_the_newest_catalog() {
    let fixture = Fixture::new();
    let mut foreign = Vec::new();
    headrace_codec::cell::seal(&mut foreign, NOW_MS * 1000, 0xDEAD, &user("MALE", 3, None));
    let body = users("1,2");
    let mut pending = begin(&fixture, &body);
    let taken = pending.take_cells(0, [(0, foreign.as_slice())], NOW_MS);
    assert_eq!(taken, Err(StaleCatalog));
    let again = call(&body, Accept::Json, true);
    let mut pending = fixture.engine.begin(&again, <[u8]>::to_vec).unwrap();
    assert_eq!(pending.take_cells(0, [(0, foreign.as_slice())], NOW_MS), Ok(None));
    pending.take_cells(1, [], NOW_MS).unwrap();
    let answer = finish(&fixture, pending).json();
    assert_eq!(answer["results"][0]["statuses"][0]["status"], "UNAVAILABLE");
}

#[derive(Debug, Clone)]
enum Stored {
    Nothing,
    Record(usize, i64),
    Patched(i64, i64),
    Torn,
    Down,
}

fn stored() -> impl Strategy<Value = Stored> {
    let age_ms = prop::sample::select(vec![0, 1_000, 60_000, 60_001, 999_999, 1_000_000]);
    prop_oneof![
        Just(Stored::Nothing),
        (1_usize..3, age_ms.clone()).prop_map(|(ordinal, age)| Stored::Record(ordinal, age)),
        (age_ms.clone(), age_ms).prop_map(|(record, patch)| Stored::Patched(record, patch)),
        Just(Stored::Torn),
        Just(Stored::Down),
    ]
}

fn put(fixture: &mut Fixture, id: i64, stored: &Stored) {
    let newest = user("MALE", id, Some(f64::NAN));
    let oldest = [text("OLD"), long(id)].concat();
    match stored {
        Stored::Nothing => {}
        Stored::Record(ordinal, age) => {
            let body = if *ordinal == 1 { &oldest } else { &newest };
            let cell = fixture.cell(USERS, *ordinal, NOW_MS - age, body);
            fixture.put_cells(id, vec![(0, cell)]);
        }
        Stored::Patched(record, patch) => {
            let cell = fixture.cell(USERS, 1, NOW_MS - record, &oldest);
            let level = fixture.patch(USERS, "level", NOW_MS - patch, &long(99));
            let score = fixture.patch(USERS, "score", NOW_MS - 5, &some(double(0.5)));
            fixture.put_cells(id, vec![(0, cell), level, score]);
        }
        Stored::Torn => fixture.put_cells(id, vec![(0, b"torn".to_vec())]),
        Stored::Down => fixture.fail(USERS, id, RowError::Unavailable),
    }
}

proptest! {
    #[test]
    fn the_answer_is_that_of_one_call_from_the_store_and_from_the_cache(
        rows in prop::collection::vec(stored(), 1..8),
        events in 0_usize..4,
        limit in 1_usize..4,
        options in prop::sample::select(vec![
            "", r#","layout":"columns""#, r#","event_times":true"#, r#","missing":"null""#,
            r#","strict":true"#,
        ]),
        avro: bool,
    ) {
        let mut fixture = Fixture::new();
        for (id, stored) in rows.iter().enumerate() {
            put(&mut fixture, i64::try_from(id).unwrap(), stored);
        }
        let all = [(10, "A", 0.5), (20, "B", f64::NAN), (1_000_000, "C", 2.5)];
        fixture.put_events(0, &all[..events]);
        fixture.fail(HISTORY, 9, RowError::Unavailable);
        let ids: Vec<String> = (0..rows.len()).map(|id| id.to_string()).collect();
        let body = format!(
            r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{}]}}}},{{"feature_group":"live::rich-history","limit":{limit},"keys":{{"user_id":[0,1,9]}}}}]{options}}}"#,
            ids.join(",")
        );
        let accept = if avro { Accept::Avro } else { Accept::Json };
        let expected = fixture.read_as(body.as_bytes(), accept);
        let asked = call(&body, accept, false);
        let mut pending = fixture.engine.begin(&asked, <[u8]>::to_vec).unwrap();
        let blocks = take_store(&fixture, &mut pending).unwrap();
        let found = finish(&fixture, pending);
        prop_assert_eq!(&found.head, &expected.head);
        prop_assert_eq!(&found.body, &expected.body);
        let mut cached = fixture.engine.begin(&asked, <[u8]>::to_vec).unwrap();
        prop_assert_eq!(take_cache(&mut cached, &blocks), blocks.len());
        take_store(&fixture, &mut cached).unwrap();
        prop_assert_eq!(&finish(&fixture, cached).body, &expected.body);
    }
}

#[test]
fn a_request_of_feasts_in_phases_answers_what_one_call_answers() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let body =
        r#"{"features":["live::user-stats-v1:level"],"entities":{"user_id":[1,9],"x":[0,0]}}"#;
    let begun = fixture.engine.begin(&call(body, Accept::Feast, false), <[u8]>::to_vec);
    let mut pending = begun.expect("a request that is right");
    // Another one in between has buffers of its own.
    assert_eq!(fixture.read(&users("5,6,7")).status(), 200);
    take_store(&fixture, &mut pending).unwrap();
    let late = finish(&fixture, pending);
    let at_once = fixture.read_as(body.as_bytes(), Accept::Feast);
    assert_eq!((&late.head, late.text()), (&at_once.head, at_once.text()));
    assert!(late.head.contains("headrace-warning: not used: x\r\n"));
}
