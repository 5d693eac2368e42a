//! The Avro answer passes stored bodies through (semantics 13).

use headrace_codec::cursor::Cursor;
use headrace_codec::read::envelope;
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::RowError;

use crate::fixture::{Fixture, NOW_MS, USERS, double, long, text, user};

/// A result, decoded by hand after the schema in `envelope`.
#[derive(Debug, Default, PartialEq)]
struct Found {
    group: String,
    alias: Option<String>,
    rows: Vec<Vec<(i64, i64, Vec<u8>)>>,
    schemas: Vec<String>,
    statuses: Vec<(i64, i64, Vec<String>)>,
}

fn array<T>(cursor: &mut Cursor<'_>, mut item: impl FnMut(&mut Cursor<'_>) -> T) -> Vec<T> {
    let mut items = Vec::new();
    loop {
        match cursor.varint().unwrap() {
            0 => return items,
            count => (0..count).for_each(|_| items.push(item(cursor))),
        }
    }
}

fn string(cursor: &mut Cursor<'_>) -> String {
    let length = cursor.length().unwrap();
    String::from_utf8(cursor.take(length).unwrap().to_vec()).unwrap()
}

fn record(cursor: &mut Cursor<'_>) -> (i64, i64, Vec<u8>) {
    let (time, schema) = (cursor.varint().unwrap(), cursor.varint().unwrap());
    let length = cursor.length().unwrap();
    (time, schema, cursor.take(length).unwrap().to_vec())
}

fn decode(body: &[u8]) -> (i64, Vec<Found>) {
    let mut cursor = Cursor::new(body);
    let generation = cursor.varint().unwrap();
    let results = array(&mut cursor, |cursor| Found {
        group: string(cursor),
        alias: (cursor.varint().unwrap() == 1).then(|| string(cursor)),
        rows: array(cursor, |cursor| match cursor.varint().unwrap() {
            0 => vec![],
            1 => vec![record(cursor)],
            _ => array(cursor, record),
        }),
        schemas: array(cursor, string),
        statuses: array(cursor, |cursor| {
            let (row, status) = (cursor.varint().unwrap(), cursor.varint().unwrap());
            (row, status, array(cursor, string))
        }),
    });
    cursor.finish().unwrap();
    (generation, results)
}

fn fingerprint(fixture: &Fixture, ordinal: usize) -> String {
    let schema = &fixture.catalog.group(USERS).unwrap().schemas[ordinal - 1];
    format!("{:016x}", schema.fingerprint)
}

#[test]
fn stored_bodies_pass_through_with_their_fingerprints() {
    let mut fixture = Fixture::new();
    let new = user("MALE", 3, Some(f64::NAN));
    let old = [text("FEMALE"), long(4)].concat();
    fixture.put_user(1, &new);
    let cell = fixture.cell(USERS, 1, NOW_MS, &old);
    fixture.put_cells(2, vec![(0, cell)]);
    fixture.fail(USERS, 4, RowError::Corrupt);
    let body =
        br#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1,2,3,4,1]}}]}"#;
    let response = fixture.read_as(body, Accept::Avro);
    assert!(response.head.contains("content-type: application/vnd.headrace.avro\r\n"));
    let (generation, results) = decode(&response.body);
    assert_eq!(generation, 12);
    let expected = Found {
        group: USERS.to_owned(),
        alias: None,
        rows: vec![
            vec![(NOW_MS - 1000, 0, new.clone())],
            vec![(NOW_MS, 1, old)],
            vec![],
            vec![],
            vec![(NOW_MS - 1000, 0, new)],
        ],
        schemas: vec![fingerprint(&fixture, 2), fingerprint(&fixture, 1)],
        statuses: vec![(1, 1, vec!["score".to_owned()]), (2, 4, vec![]), (3, 6, vec![])],
    };
    assert_eq!(results, [expected]);
}

#[test]
fn a_folded_record_is_of_the_current_schema() {
    let mut fixture = Fixture::new();
    let record = fixture.cell(USERS, 1, NOW_MS - 2000, &[text("MALE"), long(3)].concat());
    let level = fixture.patch(USERS, "level", NOW_MS - 1000, &long(9));
    fixture.put_cells(1, vec![(0, record), level]);
    let body = br#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]}"#;
    let (_, results) = decode(&fixture.read_as(body, Accept::Avro).body);
    assert_eq!(results[0].rows, [vec![(NOW_MS - 1000, 0, user("MALE", 9, None))]]);
    assert_eq!(results[0].schemas, [fingerprint(&fixture, 2)]);
    assert_eq!(results[0].statuses, [(0, 1, vec!["score".to_owned()])]);
}

#[test]
fn a_history_row_is_an_array_of_events() {
    let mut fixture = Fixture::new();
    fixture.put_events(1, &[(10, "A", 0.5), (20, "B", 1.5)]);
    let body = br#"{"reads":[{"feature_group":"live::rich-history","keys":{"user_id":[1,2]}}]}"#;
    let (_, results) = decode(&fixture.read_as(body, Accept::Avro).body);
    let event = |age, gender, ratio| (NOW_MS - age, 0, [text(gender), double(ratio)].concat());
    assert_eq!(results[0].rows, [vec![event(10, "A", 0.5), event(20, "B", 1.5)], vec![]]);
    assert_eq!(results[0].statuses, [(1, 4, vec![])]);
}

#[test]
fn a_narrower_field_list_is_refused_and_a_whole_one_is_not() {
    let fixture = Fixture::new();
    let read = |fields: &str| {
        let body = format!(
            r#"{{"reads":[{{"feature_group":"live::user-stats-v1","fields":{fields},"keys":{{"user_id":[1]}}}}]}}"#
        );
        fixture.read_as(body.as_bytes(), Accept::Avro)
    };
    assert_eq!(read(r#"["score","level","gender"]"#).status(), 200);
    let refused = read(r#"["level"]"#);
    assert_eq!((refused.status(), &refused.json()["code"]), (400, &"AVRO_WHOLE_RECORDS".into()));
    assert_eq!(refused.json()["path"], "reads[0].fields");
}

#[test]
fn a_service_answers_with_whole_records_and_aliases() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let body = br#"{"service":"room-ranker-v1","keys":{"user_id":[1],"peer_user_id":[2],"from":["A"],"to":["B"]}}"#;
    let (_, results) = decode(&fixture.read_as(body, Accept::Avro).body);
    assert_eq!(results[0].alias.as_deref(), Some("me"));
    assert_eq!(results[0].rows[0][0].2, user("MALE", 3, None));
    assert_eq!(results[2].alias, None);
}

#[test]
fn the_schema_of_the_answer_is_json() {
    let schema: serde_json::Value = serde_json::from_str(envelope::SCHEMA).unwrap();
    assert_eq!(schema["name"], "ReadResponse");
}
