//! What the JSON answer says of rows (product 4, semantics 3, 8, 10-12, 20).

use headrace_codec::read::Limits;
use headrace_codec::read::answer::{Json, Room, Writer};
use headrace_codec::read::coding::Coding;
use headrace_codec::read::counters::Counters;
use headrace_codec::read::engine::ReadCall;
use headrace_codec::read::plan::{Accept, Plan};
use headrace_codec::read::request::Request;
use headrace_codec::read::row::{Event, Row, RowError, StaleCatalog};
use serde_json::{Value, json};

use crate::fixture::{Fixture, HISTORY, NOW_MS, USERS, double, long, some, text, user};

fn read_users(options: &str, fields: &str, ids: &str) -> String {
    format!(
        r#"{{"reads":[{{"feature_group":"live::user-stats-v1"{fields},"keys":{{"user_id":[{ids}]}}}}]{options}}}"#
    )
}

fn read_history(options: &str, limit: &str, ids: &str) -> String {
    format!(
        r#"{{"reads":[{{"feature_group":"live::rich-history"{limit},"keys":{{"user_id":[{ids}]}}}}]{options}}}"#
    )
}

#[test]
fn rows_stand_in_request_order_with_the_fields_in_the_order_asked_for() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, Some(0.25)));
    fixture.put_user(2, &user("FEMALE", -9_007_199_254_740_993, None));
    let body = read_users("", r#","fields":["level","gender"]"#, "2,1,2");
    assert_eq!(
        fixture.read(&body).text(),
        r#"{"generation":12,"results":[{"feature_group":"live::user-stats-v1","fields":["level","gender"],"rows":[[-9007199254740993,"FEMALE"],[3,"MALE"],[-9007199254740993,"FEMALE"]],"statuses":[]}]}"#
    );
}

#[test]
fn all_value_fields_in_schema_order_are_meant_by_none_and_by_a_star() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, Some(0.25)));
    for fields in ["", r#","fields":"*""#] {
        let result = fixture.result(&read_users("", fields, "1"));
        assert_eq!(result["fields"], json!(["gender", "level", "score"]));
        assert_eq!(result["rows"], json!([["MALE", 3, 0.25]]));
    }
}

#[test]
fn a_missing_row_has_defaults_and_says_so() {
    let fixture = Fixture::new();
    let result = fixture.result(&read_users("", "", "5"));
    assert_eq!(result["rows"], json!([["NONE", 7, null]]));
    assert_eq!(result["statuses"], json!([{"row": 0, "status": "MISSING"}]));
}

#[test]
fn a_missing_row_has_nulls_where_nulls_are_asked_for() {
    let mut fixture = Fixture::new();
    let old = fixture.cell(USERS, 1, NOW_MS, &[text("MALE"), long(3)].concat());
    fixture.put_cells(1, vec![(0, old)]);
    let result = fixture.result(&read_users(r#","missing":"null""#, "", "5,1"));
    assert_eq!(result["rows"], json!([[null, null, null], ["MALE", 3, null]]));
}

#[test]
fn a_field_that_the_writer_lacked_is_defaulted() {
    let mut fixture = Fixture::new();
    let old = fixture.cell(USERS, 1, NOW_MS, &[text("MALE"), long(3)].concat());
    fixture.put_cells(1, vec![(0, old)]);
    let result = fixture.result(&read_users("", "", "1"));
    assert_eq!(result["rows"], json!([["MALE", 3, null]]));
    let expected = json!([{"row": 0, "status": "DEFAULTED", "fields": ["score"]}]);
    assert_eq!(result["statuses"], expected);
}

#[test]
fn a_status_of_every_field_asked_for_names_none() {
    let mut fixture = Fixture::new();
    let level = fixture.patch(USERS, "level", NOW_MS, &long(9));
    fixture.put_cells(1, vec![level]);
    let result = fixture.result(&read_users("", r#","fields":["gender"]"#, "1"));
    assert_eq!(result["rows"], json!([["NONE"]]));
    assert_eq!(result["statuses"], json!([{"row": 0, "status": "DEFAULTED"}]));
}

#[test]
fn newer_patches_stand_over_the_record() {
    let mut fixture = Fixture::new();
    let record = fixture.cell(USERS, 2, NOW_MS - 2000, &user("MALE", 3, None));
    let level = fixture.patch(USERS, "level", NOW_MS - 1000, &long(9));
    let score = fixture.patch(USERS, "score", NOW_MS - 3000, &some(double(1.5)));
    fixture.put_cells(1, vec![(0, record), level, score]);
    let result = fixture.result(&read_users(r#","event_times":true"#, "", "1"));
    assert_eq!(result["rows"], json!([["MALE", 9, null]]));
    assert_eq!(result["event_times"], json!([NOW_MS - 1000]));
    assert_eq!(result["statuses"], json!([]));
}

#[test]
fn what_expired_or_was_deleted_is_missing() {
    let mut fixture = Fixture::new();
    let expired = fixture.cell(USERS, 2, NOW_MS - 1_000_000, &user("MALE", 3, None));
    fixture.put_cells(1, vec![(0, expired)]);
    fixture.put_user(2, &user("MALE", 3, None));
    fixture.delete_user(2, (NOW_MS - 1000) * 1000 + 999);
    fixture.put_user(3, &user("MALE", 3, None));
    fixture.delete_user(3, (NOW_MS - 1001) * 1000 + 999);
    fixture.put_user(4, &user("MALE", 3, None));
    fixture.delete_user(4, (NOW_MS - 1000) * 1000);
    let result = fixture.result(&read_users(r#","event_times":true"#, "", "1,2,3,4"));
    let missing = |row| json!({"row": row, "status": "MISSING"});
    assert_eq!(result["statuses"], json!([missing(0), missing(1), missing(3)]));
    assert_eq!(result["event_times"], json!([null, null, NOW_MS - 1000, null]));
}

#[test]
fn a_row_older_than_max_age_is_served_and_stale() {
    let mut fixture = Fixture::new();
    let cell = fixture.cell(USERS, 2, NOW_MS - 60_001, &user("MALE", 3, Some(f64::NAN)));
    fixture.put_cells(1, vec![(0, cell)]);
    let cell = fixture.cell(USERS, 2, NOW_MS - 60_000, &user("MALE", 3, Some(1.0)));
    fixture.put_cells(2, vec![(0, cell)]);
    let result = fixture.result(&read_users("", "", "1,2"));
    assert_eq!(result["rows"], json!([["MALE", 3, null], ["MALE", 3, 1.0]]));
    let expected = json!([
        {"row": 0, "status": "STALE", "fields": ["gender", "level"]},
        {"row": 0, "status": "NOT_FINITE", "fields": ["score"]},
    ]);
    assert_eq!(result["statuses"], expected);
}

#[test]
fn a_history_row_is_its_events_newest_first() {
    let mut fixture = Fixture::new();
    fixture.put_events(1, &[(10, "A", 0.5), (20, "B", 1.5), (30, "C", 2.5)]);
    let result = fixture.result(&read_history(r#","event_times":true"#, r#","limit":2"#, "1,2"));
    assert_eq!(result["fields"], json!(["_event_time_ms", "user_gender", "ratio"]));
    let events = json!([[NOW_MS - 10, "A", 0.5], [NOW_MS - 20, "B", 1.5]]);
    assert_eq!(result["rows"], json!([events, []]));
    assert_eq!(result["statuses"], json!([{"row": 1, "status": "MISSING"}]));
    assert_eq!(result["event_times"], json!([NOW_MS - 10, null]));
}

#[test]
fn expired_events_are_left_out() {
    let mut fixture = Fixture::new();
    fixture.put_events(1, &[(10, "A", 0.5), (1_000_000, "B", 1.5)]);
    fixture.put_events(2, &[(2_000_000, "A", 0.5)]);
    let result = fixture.result(&read_history("", "", "1,2"));
    assert_eq!(result["rows"], json!([[[NOW_MS - 10, "A", 0.5]], []]));
    assert_eq!(result["statuses"], json!([{"row": 1, "status": "MISSING"}]));
}

#[test]
fn columns_hold_one_array_a_field() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, Some(0.25)));
    fixture.fail(USERS, 3, RowError::Unavailable);
    let result = fixture.result(&read_users(r#","layout":"columns""#, "", "1,2,3"));
    assert_eq!(
        result["columns"],
        json!([["MALE", "NONE", null], [3, 7, null], [0.25, null, null]])
    );
    assert_eq!(result["rows"], json!(null));
    let expected = json!([{"row": 1, "status": "MISSING"}, {"row": 2, "status": "UNAVAILABLE"}]);
    assert_eq!(result["statuses"], expected);
}

#[test]
fn columns_of_a_history_hold_one_list_a_row() {
    let mut fixture = Fixture::new();
    fixture.put_events(1, &[(10, "A", 0.5), (20, "B", 1.5)]);
    fixture.put_events(4, &[(30, "C", 2.5)]);
    fixture.fail(HISTORY, 3, RowError::Corrupt);
    let result = fixture.result(&read_history(r#","layout":"columns""#, "", "1,2,3,4"));
    assert_eq!(
        result["columns"],
        json!([
            [[NOW_MS - 10, NOW_MS - 20], [], null, [NOW_MS - 30]],
            [["A", "B"], [], null, ["C"]],
            [[0.5, 1.5], [], null, [2.5]],
        ])
    );
}

#[test]
fn longs_are_strings_where_that_is_asked_for() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", i64::MAX, None));
    let result = fixture.result(&read_users(r#","int64_as_text":true"#, "", "1,2"));
    assert_eq!(result["rows"], json!([["MALE", "9223372036854775807", null], ["NONE", "7", null]]));
}

#[test]
fn a_row_that_could_not_be_read_is_nulls_and_never_a_default() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    fixture.fail(USERS, 2, RowError::Unavailable);
    let result = fixture.result(&read_users("", "", "1,2"));
    assert_eq!(result["rows"][1], json!([null, null, null]));
    assert_eq!(result["statuses"], json!([{"row": 1, "status": "UNAVAILABLE"}]));
}

#[test]
fn every_flipped_bit_of_a_stored_cell_is_corrupt_and_never_another_value() {
    let mut fixture = Fixture::new();
    let cell = fixture.cell(USERS, 2, NOW_MS, &user("MALE", 3, Some(0.25)));
    for bit in 0..cell.len() * 8 {
        let mut flipped = cell.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fixture.put_cells(1, vec![(0, flipped)]);
        let result = fixture.result(&read_users(r#","event_times":true"#, "", "1,2"));
        assert_eq!(result["rows"][0], json!([null, null, null]), "bit {bit}");
        assert_eq!(result["statuses"][0], json!({"row": 0, "status": "CORRUPT"}));
        assert_eq!(result["event_times"], json!([null, null]));
    }
}

#[test]
fn a_body_that_is_none_of_its_schema_is_corrupt_in_both_layouts() {
    let mut fixture = Fixture::new();
    let short = fixture.cell(USERS, 2, NOW_MS, &text("MALE"));
    fixture.put_cells(1, vec![(0, short)]);
    fixture.put_user(2, &user("MALE", 3, None));
    let rows = fixture.result(&read_users(r#","event_times":true"#, "", "1,2"));
    assert_eq!(rows["rows"], json!([[null, null, null], ["MALE", 3, null]]));
    assert_eq!(rows["event_times"], json!([null, NOW_MS - 1000]));
    let columns = fixture.result(&read_users(r#","layout":"columns""#, "", "1,2"));
    assert_eq!(columns["columns"], json!([[null, "MALE"], [null, 3], [null, null]]));
    for result in [rows, columns] {
        assert_eq!(result["statuses"], json!([{"row": 0, "status": "CORRUPT"}]));
    }
}

#[test]
fn one_damaged_event_makes_its_row_corrupt() {
    let mut fixture = Fixture::new();
    let events = [(10, "A", 0.5), (20, "B", 1.5), (30, "C", 2.5)];
    fixture.put_events(1, &events[..1]);
    fixture.put_events(2, &events);
    fixture.damage_event(2, 1);
    let result = fixture.result(&read_history("", "", "1,2"));
    assert_eq!(result["rows"], json!([[[NOW_MS - 10, "A", 0.5]], null]));
    assert_eq!(result["statuses"], json!([{"row": 1, "status": "CORRUPT"}]));
}

#[test]
fn an_event_of_a_schema_that_was_not_planned_leaves_nothing_of_its_row() {
    let fixture = Fixture::new();
    let body = [text("A"), double(0.5)].concat();
    let events = [0, 9].map(|schema| Event { event_time_ms: NOW_MS, schema, body: &body });
    for (layout, place, expected) in [
        ("rows", "rows", json!([null, [[NOW_MS, "A", 0.5]]])),
        ("columns", "columns", json!([[null, [NOW_MS]], [null, ["A"]], [null, [0.5]]])),
    ] {
        let asked = read_history(&format!(r#","layout":"{layout}""#), "", "1,2");
        let limits = Limits::default();
        let request = Request::parse(asked.as_bytes(), &limits).unwrap();
        let (catalog, counters) = (&fixture.catalog, Counters::default());
        let plan = Plan::compile(catalog, &request, Accept::Json, &limits, &counters).unwrap();
        let (mut out, mut room) = (Vec::new(), Room::default());
        let mut writer = Json::new(&mut out, &mut room, &plan, NOW_MS);
        writer.begin(&plan);
        writer.begin_read(&plan.reads[0], 2);
        writer.row(&plan.reads[0], 0, &Row::Events(&events));
        writer.row(&plan.reads[0], 1, &Row::Events(&events[..1]));
        writer.end_read(&plan.reads[0]);
        writer.end();
        let answer: Value = serde_json::from_slice(&out).unwrap();
        let result = &answer["results"][0];
        assert_eq!(result[place], expected);
        assert_eq!(result["statuses"], json!([{"row": 0, "status": "CORRUPT"}]));
    }
}

#[test]
fn nothing_served_at_all_is_a_503_that_says_when_to_come_back() {
    let mut fixture = Fixture::new();
    fixture.fail(USERS, 1, RowError::Unavailable);
    let (status, code, _, _) = fixture.problem(&read_users("", "", "1,1"));
    assert_eq!((status, code.as_str()), (503, "UNAVAILABLE"));
    assert!(fixture.read(&read_users("", "", "1")).head.contains("\r\nretry-after: 1\r\n"));
    fixture.memory.closed = true;
    assert_eq!(fixture.read(&read_users("", "", "2")).status(), 503);
    assert_eq!(fixture.read(&read_users("", "", "")).status(), 200);
}

#[test]
fn strict_turns_unavailable_and_corrupt_into_503_and_nothing_else() {
    let mut fixture = Fixture::new();
    let stale = fixture.cell(USERS, 1, NOW_MS - 100_000, &[text("MALE"), long(3)].concat());
    fixture.put_cells(1, vec![(0, stale)]);
    let strict = r#","strict":true"#;
    assert_eq!(fixture.read(&read_users(strict, "", "1,2")).status(), 200);
    for error in [RowError::Unavailable, RowError::Corrupt] {
        fixture.fail(USERS, 3, error);
        assert_eq!(fixture.read(&read_users("", "", "1,3")).status(), 200);
        let (status, code, _, _) = fixture.problem(&read_users(strict, "", "1,3"));
        assert_eq!((status, code.as_str()), (503, "STRICT_PARTIAL"));
    }
}

#[test]
fn a_service_reads_one_group_twice_and_broadcasts_single_keys() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    fixture.put_events(1, &[(10, "A", 0.5), (20, "B", 1.5), (30, "C", 2.5)]);
    fixture.put_route("JFK", "SFO", 11);
    fixture.put_route("JFK", "LAX", 12);
    let answer = fixture
        .read(
            r#"{"service":"room-ranker-v1","keys":{"user_id":[1],"peer_user_id":[2,1,3],
                "from":["JFK"],"to":["LAX","SFO"]}}"#,
        )
        .json();
    let results = &answer["results"];
    assert_eq!(results[0]["as"], "me");
    assert_eq!(results[0]["rows"], json!([[3]]));
    assert_eq!(results[1]["as"], "peers");
    assert_eq!(results[1]["rows"][1], json!(["MALE", 3, null]));
    assert_eq!(results[1]["rows"].as_array().unwrap().len(), 3);
    assert_eq!(results[2].get("as"), None);
    assert_eq!(results[2]["rows"][0].as_array().unwrap().len(), 2);
    assert_eq!(results[3]["rows"], json!([[12], [11]]));
}

#[test]
fn a_row_of_an_unknown_schema_asks_for_the_newest_catalog_once() {
    let mut fixture = Fixture::new();
    let mut foreign = Vec::new();
    headrace_codec::cell::seal(&mut foreign, NOW_MS * 1000, 0xDEAD, &user("MALE", 3, None));
    let patch = (0_u16.wrapping_add(9), fixture.patch(USERS, "level", NOW_MS, &long(1)).1);
    for cells in [vec![(0, foreign.clone())], vec![(0, foreign), patch]] {
        fixture.put_cells(1, cells);
        let body = read_users("", "", "1,2");
        let call = ReadCall {
            body: body.as_bytes(),
            accept: Accept::Json,
            now_ms: NOW_MS,
            coding: Coding::Identity,
            request_id: b"test-1",
            keep_alive: true,
            reloaded: false,
        };
        assert_eq!(fixture.call(&call).map(|_| ()), Err(StaleCatalog));
        let answer = fixture.call(&ReadCall { reloaded: true, ..call }).unwrap().json();
        let statuses = &answer["results"][0]["statuses"];
        assert_eq!(statuses[0], json!({"row": 0, "status": "UNAVAILABLE"}));
    }
}

#[test]
fn rows_and_requests_are_counted() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    fixture.fail(USERS, 3, RowError::Unavailable);
    fixture.read(&read_users("", "", "1,1,2,3"));
    fixture.read(&read_users("", "", "1"));
    fixture.read("{}");
    let counters: std::collections::BTreeMap<_, _> =
        fixture.engine.counters().snapshot().into_iter().collect();
    let count = |name: &str| counters[name];
    assert_eq!(count("rows/OK/live::user-stats-v1"), 3);
    assert_eq!(count("rows/MISSING/live::user-stats-v1"), 1);
    assert_eq!(count("rows/UNAVAILABLE/live::user-stats-v1"), 1);
    assert_eq!(count("requests/partial"), 1);
    assert_eq!(count("requests/whole"), 1);
    assert_eq!(count("requests/refused"), 1);
    assert_eq!((count("plans/hit"), count("plans/miss")), (1, 2));
}

#[test]
fn rows_of_a_request_that_is_read_again_count_once() {
    let mut fixture = Fixture::new();
    let mut foreign = Vec::new();
    headrace_codec::cell::seal(&mut foreign, NOW_MS * 1000, 0xDEAD, b"");
    fixture.put_cells(1, vec![(0, foreign)]);
    let read =
        |id| format!(r#"{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{id}]}}}}"#);
    let body = format!(r#"{{"reads":[{},{}]}}"#, read(7), read(1));
    let (body, request_id) = (body.as_bytes(), b"test-1");
    let accept = Accept::Json;
    let once = ReadCall {
        body,
        accept,
        coding: Coding::Identity,
        now_ms: NOW_MS,
        request_id,
        keep_alive: true,
        reloaded: false,
    };
    assert_eq!(fixture.call(&once).map(|_| ()), Err(StaleCatalog));
    fixture.call(&ReadCall { reloaded: true, ..once }).unwrap();
    let counters = fixture.engine.counters().snapshot();
    let count = |wanted: &str| counters.iter().find(|(name, _)| name == wanted).unwrap().1;
    assert_eq!(count("rows/MISSING/live::user-stats-v1"), 1);
    assert_eq!(count("rows/UNAVAILABLE/live::user-stats-v1"), 1);
    assert_eq!((count("requests/stale_catalog"), count("requests/partial")), (1, 1));
}
