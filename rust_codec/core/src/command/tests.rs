#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails it")]

use super::*;
use crate::cell::Cell;
use crate::format::{BULK_COMMAND_FINGERPRINT, BULK_COMMAND_SCHEMA};
use crate::schema::fingerprint;
use proptest::prelude::*;

const NOW_MS: i64 = 1_700_000_100_000;
const EVENT_MS: i64 = 1_700_000_000_000;

fn catalog() -> Catalog {
    Catalog::from_json(
        br#"{"format":1,"generation":3,"groups":[
        {"id":7,"name":"live::room-stat-v1","feature_type":"Object","max_events":100,
         "keys":[{"name":"room_id","type":"Long"}],"cache":{"ttl_ms":0,"local_ttl_ms":0},
         "schemas":[
           {"ordinal":1,"fields":[
             {"id":1,"name":"level","type":"Integer","nullable":false,"default":0}]},
           {"ordinal":2,"fields":[
             {"id":2,"name":"tag","type":"Text","nullable":true},
             {"id":1,"name":"level","type":"Long","nullable":false,"default":0}]}]},
        {"id":8,"name":"live::room-history","feature_type":"History","max_events":100,
         "keys":[{"name":"room_id","type":"Long"},{"name":"region","type":"Text"}],
         "cache":{"ttl_ms":0,"local_ttl_ms":0},"ttl_ms":200000,
         "schemas":[{"ordinal":1,"fields":[
             {"id":1,"name":"guest","type":"Text","nullable":false,"default":"nobody"},
             {"id":2,"name":"gift","type":"Double","nullable":false,"default":0}]}]}]}"#,
    )
    .unwrap()
}

fn encode(payload: &[u8]) -> CommandBatch {
    encode_commands(&catalog(), std::iter::once(payload), NOW_MS)
}

fn update(values: &str) -> String {
    format!(
        r#"{{"feature_name":"live::room-stat-v1","method":"UPDATE","keys":{{"room_id":5}},"values":{{{values},"_last_updated_at_ms":{EVENT_MS}}}}}"#
    )
}

fn append(values: &str, event_time_ms: i64) -> String {
    format!(
        r#"{{"feature_name":"live::room-history","method":"APPEND","keys":{{"room_id":5,"region":"kr"}},"values":{{"_last_updated_at_ms":{event_time_ms}{values}}}}}"#
    )
}

fn rejected(payload: &str) -> Error {
    let batch = encode(payload.as_bytes());
    assert_eq!((batch.mutation_count(), batch.accepted()), (0, 0), "{payload}");
    batch.rejections().first().unwrap_or_else(|| panic!("accepted: {payload}")).error.clone()
}

fn only(batch: &CommandBatch) -> Mutation<'_> {
    assert_eq!(batch.rejections(), []);
    let mutations: Vec<_> = batch.mutations().collect();
    assert_eq!(mutations.len(), 1);
    mutations[0]
}

#[test]
fn naming_every_field_writes_one_record_cell() {
    let batch = encode(update(r#""level":-3,"tag":"a""#).as_bytes());
    let mutation = only(&batch);
    assert_eq!(mutation.kind, MutationKind::Record);
    assert_eq!(mutation.key, [0, 0, 0, 7, 0x80, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(mutation.expires_at_ms, None);
    let tie = i64::try_from(mutation.digest % 999).unwrap();
    assert_eq!(mutation.write_timestamp, EVENT_MS * 1000 + tie);
    let cell = Cell::open(mutation.cell).unwrap();
    let catalog = catalog();
    let schema = catalog.group("live::room-stat-v1").unwrap().current();
    assert_eq!(
        (cell.write_timestamp, cell.fingerprint),
        (mutation.write_timestamp, schema.fingerprint)
    );
    assert_eq!(cell.body, [2, 2, b'a', 5]);
}

#[test]
fn naming_some_fields_writes_a_patch_each() {
    let batch = encode(update(r#""level":9"#).as_bytes());
    let mutation = only(&batch);
    assert_eq!(mutation.kind, MutationKind::Patch(1));
    let cell = Cell::open(mutation.cell).unwrap();
    assert_eq!(cell.fingerprint, fingerprint(br#""long""#));
    assert_eq!(cell.body, [18]);
    let batch = encode(update(r#""tag":null"#).as_bytes());
    let cell = Cell::open(only(&batch).cell).unwrap();
    assert_eq!(cell.fingerprint, fingerprint(br#"["null","string"]"#));
    assert_eq!(cell.body, [0]);
}

#[test]
fn the_order_of_members_changes_nothing() {
    let straight = encode(update(r#""level":9,"tag":"x""#).as_bytes());
    let shuffled = format!(
        r#" {{ "values" : {{"_last_updated_at_ms":{EVENT_MS},"tag":"\u0078","level":9}},
             "keys":{{"room_id":5}}, "method":"UPDATE", "feature_name":"live::room-stat-v1"}} "#
    );
    let shuffled = encode(shuffled.as_bytes());
    assert_eq!(only(&straight), only(&shuffled));
}

#[test]
fn a_complete_command_and_its_patches_share_one_write_timestamp() {
    // A replay under a newer schema turns a complete UPDATE into patches (semantics 1 and 5).
    let command = update(r#""level":9"#);
    let older = br#"{"format":1,"generation":1,"groups":[
        {"id":7,"name":"live::room-stat-v1","feature_type":"Object","max_events":100,
         "keys":[{"name":"room_id","type":"Long"}],"cache":{"ttl_ms":0,"local_ttl_ms":0},
         "schemas":[{"ordinal":1,"fields":[
             {"id":1,"name":"level","type":"Integer","nullable":false,"default":0}]}]}]}"#;
    let older = Catalog::from_json(older).unwrap();
    let before = encode_commands(&older, std::iter::once(command.as_bytes()), NOW_MS);
    let after = encode(command.as_bytes());
    assert_eq!(only(&before).kind, MutationKind::Record);
    assert_eq!(only(&before).write_timestamp, only(&after).write_timestamp);
    assert_eq!(only(&before).digest, only(&after).digest);
}

#[test]
fn an_event_holds_defaults_where_fields_are_omitted_and_digests_only_what_is_named() {
    let batch = encode(append(r#","gift":1.5"#, EVENT_MS).as_bytes());
    let mutation = only(&batch);
    assert_eq!(mutation.kind, MutationKind::Event);
    assert_eq!(mutation.expires_at_ms, Some(EVENT_MS + 200_000));
    let body = [&[12][..], b"nobody", &1.5_f64.to_le_bytes()].concat();
    assert_eq!(Cell::open(mutation.cell).unwrap().body, body);
    let whole = encode(append(r#","gift":1.5,"guest":"nobody""#, EVENT_MS).as_bytes());
    assert_ne!(only(&whole).digest, mutation.digest);
}

#[test]
fn a_delete_stands_above_every_value_of_its_millisecond() {
    let command = format!(
        r#"{{"feature_name":"live::room-stat-v1","method":"DELETE","keys":{{"room_id":5}},"values":{{"_last_updated_at_ms":{EVENT_MS}}}}}"#
    );
    let batch = encode(command.as_bytes());
    let mutation = only(&batch);
    assert_eq!(mutation.kind, MutationKind::DeleteRow);
    assert_eq!(mutation.write_timestamp, EVENT_MS * 1000 + 999);
    assert!(mutation.cell.is_empty());
    let history = command
        .replace("room-stat-v1", "room-history")
        .replace("\"room_id\":5", "\"room_id\":5,\"region\":\"kr\"");
    assert_eq!(only(&encode(history.as_bytes())).kind, MutationKind::DeleteHistory);
    let with_value = command.replace("\"values\":{", "\"values\":{\"level\":1,");
    assert_eq!(rejected(&with_value).kind, Kind::UnknownMember);
}

#[test]
fn a_command_that_arrives_expired_is_counted_and_writes_nothing() {
    let late = append(r#","gift":1"#, NOW_MS - 200_000);
    let batch = encode(late.as_bytes());
    assert_eq!((batch.accepted(), batch.expired(), batch.mutation_count()), (1, 1, 0));
    assert_eq!(batch.touched_keys(), Vec::<&[u8]>::new());
    assert_eq!(batch.coordinates().count(), 1);
    let in_time = append(r#","gift":1"#, NOW_MS - 199_999);
    assert_eq!(encode(in_time.as_bytes()).expired(), 0);
}

#[test]
fn the_event_time_must_be_near_the_clock() {
    let ahead = NOW_MS + FUTURE_EVENT_TIME_MAX_MS;
    assert!(encode(append(r#","gift":1"#, ahead).as_bytes()).rejections().is_empty());
    for (event_time, kind) in [
        ((ahead + 1).to_string(), Kind::FutureEventTime),
        ((EVENT_MS * 1000).to_string(), Kind::OutOfRange),
        ("-1".to_owned(), Kind::OutOfRange),
        ("1e12".to_owned(), Kind::NoEventTime),
        (format!("{EVENT_MS}.0"), Kind::NoEventTime),
        (format!("\"{EVENT_MS}\""), Kind::NoEventTime),
        ("null".to_owned(), Kind::NoEventTime),
        ("9223372036854775808".to_owned(), Kind::OutOfRange),
    ] {
        let command = update(r#""level":1"#).replace(&EVENT_MS.to_string(), &event_time);
        let error = rejected(&command);
        assert_eq!(error.kind, kind, "{event_time}: {error}");
        assert_eq!(error.path(), "values._last_updated_at_ms");
    }
    let none = update(r#""level":1"#).replace("_last_updated_at_ms\":1700000000000", "level_2\":1");
    assert_eq!(rejected(&none).kind, Kind::UnknownField);
    let none = update(r#""level":1"#).replace(",\"_last_updated_at_ms\":1700000000000", "");
    assert_eq!(rejected(&none).kind, Kind::NoEventTime);
}

/// What is replaced in a good command by what; the error's kind, path and sentence.
const REFUSED: [(&str, &str, Kind, &str, &str); 19] = [
    (
        "room-stat",
        "rom-stat",
        Kind::UnknownGroup,
        "feature_name",
        "unknown feature group `live::rom-stat-v1`; did you mean `live::room-stat-v1`?",
    ),
    (
        "\"level\"",
        "\"levle\"",
        Kind::UnknownField,
        "values.levle",
        "unknown field `levle`; did you mean `level`?",
    ),
    (
        "\"level\"",
        "\"room_id\"",
        Kind::UnknownField,
        "values.room_id",
        "`room_id` is a key field: it belongs in `keys`",
    ),
    (
        "\"level\":1",
        "\"level\":true",
        Kind::WrongType,
        "values.level",
        "a Long was expected, got a boolean",
    ),
    (
        "\"level\":1",
        "\"level\":null",
        Kind::NullNotAllowed,
        "values.level",
        "the field is not nullable",
    ),
    (
        "\"level\":1",
        "\"level\":1,\"level\":1",
        Kind::DuplicateMember,
        "values.level",
        "member `level` stands twice",
    ),
    (
        "\"level\":1",
        "\"level\":1,\"l\\u0065vel\":1",
        Kind::DuplicateMember,
        "values.level",
        "member `level` stands twice",
    ),
    ("\"level\":1,", "", Kind::NoValues, "values", "UPDATE names no value field"),
    ("UPDATE", "update", Kind::Method, "method", "unknown method `update`; did you mean `UPDATE`?"),
    (
        "UPDATE",
        "APPEND",
        Kind::Method,
        "method",
        "`live::room-stat-v1` is an Object: it takes UPDATE and DELETE",
    ),
    (
        "\"method\":\"UPDATE\",",
        "",
        Kind::Method,
        "",
        "the command has no `method`: UPDATE, APPEND or DELETE",
    ),
    (
        "\"feature_name\":\"live::room-stat-v1\",",
        "",
        Kind::UnknownGroup,
        "",
        "the command has no `feature_name`: domain::name",
    ),
    ("\"keys\":{\"room_id\":5},", "", Kind::Key, "", "the command has no `keys`"),
    ("{\"room_id\":5}", "{}", Kind::Key, "keys", "key field `room_id` is missing"),
    (
        "{\"room_id\":5}",
        "{\"room_idd\":5}",
        Kind::Key,
        "keys.room_idd",
        "unknown key field `room_idd`; did you mean `room_id`?",
    ),
    (
        "\"room_id\":5",
        "\"room_id\":\"5\"",
        Kind::Key,
        "keys.room_id",
        "a Long was expected, got a string",
    ),
    (
        "\"room_id\":5",
        "\"room_id\":5,\"room_id\":5",
        Kind::DuplicateMember,
        "keys.room_id",
        "member `room_id` stands twice",
    ),
    (
        "\"method\"",
        "\"methods\":1,\"method\"",
        Kind::UnknownMember,
        "methods",
        "unknown member `methods`; did you mean `method`?",
    ),
    (
        "\"method\"",
        "\"method\":\"UPDATE\",\"method\"",
        Kind::DuplicateMember,
        "method",
        "member `method` stands twice",
    ),
];

#[test]
fn what_cannot_be_applied_says_what_where_and_the_nearest_name() {
    let good = update(r#""level":1"#);
    for (from, to, kind, path, sentence) in REFUSED {
        let command = good.replacen(from, to, 1);
        let error = rejected(&command);
        assert_eq!((error.kind, error.path().as_str()), (kind, path), "{command}: {error}");
        assert_eq!(error.message, sentence);
    }
    let history = append("", EVENT_MS).replace("APPEND", "UPDATE");
    assert_eq!(
        rejected(&history).message,
        "`live::room-history` is a History: it takes APPEND and DELETE"
    );
    assert_eq!(rejected(&append("", EVENT_MS)).kind, Kind::NoValues);
    let empty = append(",\"gift\":1", EVENT_MS).replace("\"kr\"", "\"\"");
    assert_eq!(
        (rejected(&empty).kind, rejected(&empty).path().as_str()),
        (Kind::Key, "keys.region")
    );
}

#[test]
fn errors_point_at_their_byte() {
    let command = update(r#""level":true"#);
    assert_eq!(rejected(&command).offset, command.find("true"));
    let command = command.replace("live::room-stat-v1", "live::other");
    assert_eq!(rejected(&command).offset, command.find("\"live"));
}

#[test]
fn one_bad_command_does_not_disturb_its_neighbours() {
    let (good, other) = (update(r#""level":1"#), update(r#""level":2,"tag":"b""#));
    let payloads: [&[u8]; 5] =
        [good.as_bytes(), b"{", other.as_bytes(), b"\xC3\x01", good.as_bytes()];
    let batch = encode_commands(&catalog(), payloads.into_iter(), NOW_MS);
    assert_eq!(batch.accepted(), 3);
    let refused: Vec<_> =
        batch.rejections().iter().map(|each| (each.index, each.error.kind)).collect();
    assert_eq!(refused, [(1, Kind::Json), (3, Kind::Corrupt)]);
    assert_eq!(batch.mutations().map(|mutation| mutation.index).collect::<Vec<_>>(), [0, 2, 4]);
    assert_eq!(batch.touched_keys().len(), 1);
    for mutation in batch.mutations() {
        assert!(Cell::open(mutation.cell).is_ok());
    }
    let alone = encode(other.as_bytes());
    assert_eq!(batch.mutations().nth(1).unwrap().cell, only(&alone).cell);
}

#[test]
fn an_oversize_command_is_refused_before_it_is_read() {
    let command = update(&format!(r#""tag":"{}""#, "a".repeat(COMMAND_BYTES_MAX)));
    assert_eq!(rejected(&command).kind, Kind::TooLarge);
}

fn bulk(method: Method, key: &[u8], record: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    let feature_name = match method {
        Method::Append => "live::room-history",
        _ => "live::room-stat-v1",
    };
    write_bulk(
        &BulkCommand { feature_name, method, key, event_time_ms: EVENT_MS, record },
        &mut out,
    );
    out
}

fn record(ordinal: usize, body: &[u8]) -> Vec<u8> {
    let catalog = catalog();
    let schema = &catalog.group("live::room-stat-v1").unwrap().schemas[ordinal - 1];
    [&SINGLE_OBJECT_MARKER[..], &schema.fingerprint.to_le_bytes(), body].concat()
}

const KEY: [u8; 12] = [0, 0, 0, 7, 0x80, 0, 0, 0, 0, 0, 0, 5];

#[test]
fn the_bulk_fingerprint_is_that_of_its_schema() {
    let canonical = concat!(
        r#"{"name":"headrace.BulkCommand","type":"record","fields":["#,
        r#"{"name":"feature_name","type":"string"},"#,
        r#"{"name":"method","type":{"name":"headrace.Method","type":"enum","symbols":["UPDATE","APPEND","DELETE"]}},"#,
        r#"{"name":"key","type":"bytes"},{"name":"event_time_ms","type":"long"},"#,
        r#"{"name":"record","type":["null","bytes"]}]}"#,
    );
    assert_eq!(fingerprint(canonical.as_bytes()), BULK_COMMAND_FINGERPRINT);
    assert!(serde_json::from_str::<serde_json::Value>(BULK_COMMAND_SCHEMA).is_ok());
}

#[test]
fn a_bulk_command_is_the_same_write_as_its_json() {
    let text = encode(update(r#""level":-3,"tag":"a""#).as_bytes());
    let bulk = encode(&bulk(Method::Update, &KEY, Some(&record(2, &[2, 2, b'a', 5]))));
    assert_eq!(only(&text), only(&bulk));
}

#[test]
fn a_bulk_record_keeps_the_schema_of_its_writer() {
    let batch = encode(&bulk(Method::Update, &KEY, Some(&record(1, &[5]))));
    let mutation = only(&batch);
    assert_eq!(mutation.kind, MutationKind::Record);
    let catalog = catalog();
    let first = &catalog.group("live::room-stat-v1").unwrap().schemas[0];
    assert_eq!(Cell::open(mutation.cell).unwrap().fingerprint, first.fingerprint);
    let json = encode(update(r#""level":-3"#).as_bytes());
    assert_eq!(only(&json).digest, mutation.digest);
}

#[test]
fn bulk_commands_that_cannot_be_applied_are_refused() {
    let good = record(2, &[2, 2, b'a', 5]);
    let foreign = [&SINGLE_OBJECT_MARKER[..], &[0; 8], &[0]].concat();
    let other_key = [&[0, 0, 0, 8][..], &KEY[4..]].concat();
    let cases: [(Vec<u8>, Kind, &str); 9] = [
        (bulk(Method::Update, &KEY, None), Kind::NoValues, "record"),
        (bulk(Method::Delete, &KEY, Some(&good)), Kind::UnknownMember, "record"),
        (bulk(Method::Append, &KEY, Some(&good)), Kind::Key, "key"),
        (bulk(Method::Update, &other_key, Some(&good)), Kind::Key, "key"),
        (bulk(Method::Update, &KEY[..8], Some(&good)), Kind::Corrupt, "key.room_id"),
        (bulk(Method::Update, &KEY, Some(&foreign)), Kind::UnknownSchema, "record"),
        (
            bulk(Method::Update, &KEY, Some(&record(2, &[2, 2, b'a']))),
            Kind::Corrupt,
            "record.level",
        ),
        (bulk(Method::Update, &KEY, Some(&record(2, &[4, 5]))), Kind::Corrupt, "record.tag"),
        (bulk(Method::Update, &KEY, Some(&record(2, &[0, 5, 0]))), Kind::Corrupt, "record"),
    ];
    for (payload, kind, path) in cases {
        let batch = encode(&payload);
        let error = &batch.rejections()[0].error;
        assert_eq!((error.kind, error.path().as_str()), (kind, path), "{error}");
    }
    let mut future = Vec::new();
    let command = BulkCommand {
        feature_name: "live::room-stat-v1",
        method: Method::Delete,
        key: &KEY,
        event_time_ms: NOW_MS + FUTURE_EVENT_TIME_MAX_MS + 1,
        record: None,
    };
    write_bulk(&command, &mut future);
    assert_eq!(encode(&future).rejections()[0].error.kind, Kind::FutureEventTime);
    assert_eq!(only(&encode(&bulk(Method::Delete, &KEY, None))).kind, MutationKind::DeleteRow);
}

#[test]
fn a_command_in_either_encoding_has_the_partition_key_of_its_row() {
    let catalog = catalog();
    let text = update(r#""level":"not looked at""#);
    for payload in [text.into_bytes(), bulk(Method::Update, &KEY, Some(b"not looked at"))] {
        let mut key = Vec::new();
        partition_key(&catalog, &payload, &mut key).unwrap();
        assert_eq!(key, KEY);
    }
    for payload in [&b"{}"[..], b"", b"[1]", b"\xC3\x01", &[b'['; 100]] {
        assert!(partition_key(&catalog, payload, &mut Vec::new()).is_err());
    }
}

proptest! {
    #[test]
    fn no_truncation_and_no_changed_byte_panics(at in 0_usize..200, byte: u8) {
        let text = update(r#""level":-3,"tag":"\u00e9""#).into_bytes();
        let avro = bulk(Method::Update, &KEY, Some(&record(2, &[2, 2, b'a', 5])));
        for payload in [text, avro] {
            let cut = payload.len().min(at);
            let batch = encode(&payload[..cut]);
            prop_assert_eq!(batch.rejections().len(), usize::from(cut < payload.len()));
            let mut changed = payload;
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            let batch = encode(&changed);
            prop_assert_eq!(batch.accepted() + batch.rejections().len(), 1);
        }
    }

    #[test]
    fn random_payloads_are_refused_and_never_panic(bytes: Vec<u8>) {
        prop_assert_eq!(encode(&bytes).rejections().len(), 1);
        let marked = [&SINGLE_OBJECT_MARKER[..], &BULK_COMMAND_FINGERPRINT.to_le_bytes(), &bytes].concat();
        prop_assert_eq!(encode(&marked).rejections().len(), 1);
        let inside = record(2, &bytes);
        prop_assert_eq!(encode(&bulk(Method::Update, &KEY, Some(&inside))).rejections().len()
            + encode(&bulk(Method::Update, &KEY, Some(&inside))).accepted(), 1);
    }

    #[test]
    fn a_command_replayed_later_is_the_same_write(level: i64, tag: Option<String>) {
        let values = format!(r#""level":{level},"tag":{}"#, serde_json::to_string(&tag).unwrap());
        let command = update(&values);
        let first = encode(command.as_bytes());
        let later_ms = NOW_MS + 1_000_000_000;
        let again = encode_commands(&catalog(), std::iter::once(command.as_bytes()), later_ms);
        prop_assert_eq!(only(&first), only(&again));
    }
}
