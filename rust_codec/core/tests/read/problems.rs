//! Every mistake of a caller is told with its code and its place, and is never a 5xx.

use std::sync::Arc;

use headrace_codec::read::Limits;
use headrace_codec::read::engine::Engine;
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::RowError;

use crate::fixture::Fixture;

fn users(keys: &str) -> String {
    format!(r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{keys}}}]}}"#)
}

fn routes(keys: &str) -> String {
    format!(r#"{{"reads":[{{"feature_group":"live::route-stats-v1","keys":{keys}}}]}}"#)
}

fn service(keys: &str) -> String {
    format!(r#"{{"service":"room-ranker-v1","keys":{keys}}}"#)
}

fn with(member: &str) -> String {
    format!(
        r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[1]}}}}],{member}}}"#
    )
}

fn read_with(member: &str) -> String {
    format!(
        r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[1]}},{member}}}]}}"#
    )
}

/// (body, status, code, path)
type Case<'a> = (&'a str, u16, &'a str, &'a str);

fn check(cases: &[Case<'_>]) {
    let fixture = Fixture::new();
    for (body, status, code, path) in cases {
        let (found_status, found_code, found_path, problem) = fixture.problem(body);
        assert_eq!(
            (found_status, found_code.as_str(), found_path.as_str()),
            (*status, *code, *path),
            "{body}\n{problem}"
        );
    }
}

#[test]
fn a_mistaken_body_is_told_with_its_code_and_place() {
    check(&[
        ("", 400, "MALFORMED_JSON", ""),
        ("[]", 400, "WRONG_TYPE", ""),
        ("null", 400, "WRONG_TYPE", ""),
        ("{}", 400, "MISSING_MEMBER", ""),
        (r#"{"reads":[]}"#, 400, "MISSING_MEMBER", "reads"),
        (r#"{"reads":{}}"#, 400, "WRONG_TYPE", "reads"),
        (r#"{"reads":[1]}"#, 400, "WRONG_TYPE", "reads[0]"),
        (r#"{"reads":[{}]}"#, 400, "MISSING_MEMBER", "reads[0]"),
        (r#"{"service":"room-ranker-v1"}"#, 400, "MISSING_MEMBER", ""),
        (r#"{"keys":{"user_id":[1]}}"#, 400, "MISSING_MEMBER", ""),
        (&with(r#""service":"room-ranker-v1""#), 400, "MISSING_MEMBER", ""),
        (&with(r#""keys":{}"#), 400, "UNKNOWN_MEMBER", "keys"),
        (&(with(r#""strict":true"#) + "x"), 400, "MALFORMED_JSON", ""),
    ]);
}

#[test]
fn a_mistaken_option_is_told_with_its_code_and_place() {
    check(&[
        (&with(r#""stritc":true"#), 400, "UNKNOWN_MEMBER", "stritc"),
        (&with(r#""strict":true,"strict":true"#), 400, "DUPLICATE_MEMBER", "strict"),
        (&with(r#""strict":1"#), 400, "WRONG_TYPE", "strict"),
        (&with(r#""strict":null"#), 400, "WRONG_TYPE", "strict"),
        (&with(r#""layout":"row""#), 400, "BAD_OPTION", "layout"),
        (&with(r#""missing":null"#), 400, "WRONG_TYPE", "missing"),
        (&with(r#""deadline_ms":0"#), 400, "OUT_OF_RANGE", "deadline_ms"),
        (&with(r#""deadline_ms":60001"#), 400, "OUT_OF_RANGE", "deadline_ms"),
        (&with(r#""deadline_ms":1.5"#), 400, "WRONG_TYPE", "deadline_ms"),
    ]);
}

#[test]
fn a_mistaken_name_is_told_with_its_code_and_place() {
    check(&[
        (&read_with(r#""feilds":[]"#), 400, "UNKNOWN_MEMBER", "reads[0].feilds"),
        (&read_with(r#""fields":[]"#), 400, "MISSING_MEMBER", "reads[0].fields"),
        (&read_with(r#""fields":["lvel"]"#), 400, "UNKNOWN_FIELD", "reads[0].fields[0]"),
        (&read_with(r#""fields":["user_id"]"#), 400, "UNKNOWN_FIELD", "reads[0].fields[0]"),
        (&read_with(r#""fields":["level","level"]"#), 400, "DUPLICATE_FIELD", "reads[0].fields[1]"),
        (&read_with(r#""fields":["level",7]"#), 400, "WRONG_TYPE", "reads[0].fields[1]"),
        (&read_with(r#""fields":"level""#), 400, "WRONG_TYPE", "reads[0].fields"),
        (&read_with(r#""keys":{}"#), 400, "DUPLICATE_MEMBER", "reads[0].keys"),
        (&read_with(r#""limit":1"#), 400, "BAD_LIMIT", "reads[0].limit"),
        (
            r#"{"reads":[{"feature_group":"live::user-stat-v1","keys":{}}]}"#,
            404,
            "UNKNOWN_GROUP",
            "reads[0].feature_group",
        ),
        (r#"{"service":"room-ranker-v2","keys":{}}"#, 404, "UNKNOWN_SERVICE", "service"),
    ]);
}

#[test]
fn an_asterisk_inside_the_list_of_fields_is_told_where_it_belongs() {
    for body in [read_with(r#""fields":["*"]"#), read_with(r#""fields":["level","*"]"#)] {
        let (status, code, path, problem) = Fixture::new().problem(&body);
        assert_eq!((status, code.as_str()), (400, "UNKNOWN_FIELD"), "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.ends_with(r#"write `"fields":"*"`, or leave `fields` out"#), "{detail}");
        assert!(problem.get("nearest").is_none(), "{problem}");
    }
}

#[test]
fn a_mistaken_key_is_told_with_its_code_and_place() {
    check(&[
        (&users("[]"), 400, "WRONG_TYPE", "reads[0].keys"),
        (&users("{}"), 400, "MISSING_KEY", "reads[0].keys"),
        (&users(r#"{"user_id":1}"#), 400, "WRONG_TYPE", "reads[0].keys.user_id"),
        (&users(r#"{"user_id":[1,null]}"#), 400, "NULL_NOT_ALLOWED", "reads[0].keys.user_id[1]"),
        (&users(r#"{"user_id":[1001.0]}"#), 400, "WRONG_TYPE", "reads[0].keys.user_id[0]"),
        (&users(r#"{"user_id":[1e3]}"#), 400, "WRONG_TYPE", "reads[0].keys.user_id[0]"),
        (&users(r#"{"user_id":["1001"]}"#), 400, "WRONG_TYPE", "reads[0].keys.user_id[0]"),
        (&users(r#"{"user_id":[true]}"#), 400, "WRONG_TYPE", "reads[0].keys.user_id[0]"),
        (&users(r#"{"user_id":[[1]]}"#), 400, "WRONG_TYPE", "reads[0].keys.user_id[0]"),
        (&users(r#"{"user_id":[01]}"#), 400, "MALFORMED_JSON", "reads[0].keys.user_id"),
        (&users(r#"{"user_id":[1,]}"#), 400, "MALFORMED_JSON", "reads[0].keys.user_id"),
        (
            &users(r#"{"user_id":[9223372036854775808]}"#),
            400,
            "OUT_OF_RANGE",
            "reads[0].keys.user_id[0]",
        ),
        (&users(r#"{"user_id":[1],"usr":[1]}"#), 400, "UNKNOWN_KEY", "reads[0].keys.usr"),
        (
            &users(r#"{"user_id":[1],"user_id":[1]}"#),
            400,
            "DUPLICATE_MEMBER",
            "reads[0].keys.user_id",
        ),
        (&routes(r#"{"origin":["A"],"dest":["B","C"]}"#), 400, "RAGGED_KEYS", "reads[0].keys"),
        (&routes(r#"{"origin":["JFK"]}"#), 400, "MISSING_KEY", "reads[0].keys"),
        (&routes(r#"{"origin":[1],"dest":["A"]}"#), 400, "WRONG_TYPE", "reads[0].keys.origin[0]"),
        (&routes(r#"{"origin":[""],"dest":["A"]}"#), 400, "BAD_KEY", "reads[0].keys.origin[0]"),
        (&routes(r#"{"origin":["A","B"],"dest":["C"]}"#), 400, "RAGGED_KEYS", "reads[0].keys"),
        (
            &routes(&format!(r#"{{"origin":["A"],"dest":["{}"]}}"#, "x".repeat(480))),
            400,
            "BAD_KEY",
            "reads[0].keys.dest[0]",
        ),
        (
            &routes(&format!(r#"{{"origin":["A","{}"],"dest":["B","C"]}}"#, "x".repeat(481))),
            400,
            "BAD_KEY",
            "reads[0].keys.origin[1]",
        ),
        (
            r#"{"reads":[{"feature_group":"live::rich-history","keys":{"user_id":[2147483648]}}]}"#,
            400,
            "OUT_OF_RANGE",
            "reads[0].keys.user_id[0]",
        ),
    ]);
}

#[test]
fn a_mistaken_key_of_a_service_is_told_with_its_code_and_place() {
    check(&[
        (&service(r#"{"user_id":[1]}"#), 400, "MISSING_KEY", "keys"),
        (
            &service(r#"{"user_id":[1],"peer_user_id":[1],"from":["A"],"to":["B"],"x":[1]}"#),
            400,
            "UNKNOWN_KEY",
            "keys.x",
        ),
        (
            &service(r#"{"user_id":[1],"peer_user_id":[1],"from":["A","B"],"to":["A","B","C"]}"#),
            400,
            "RAGGED_KEYS",
            "keys",
        ),
        (
            &service(&format!(
                r#"{{"user_id":[1],"peer_user_id":[1],"from":["{}"],"to":["A","{}"]}}"#,
                "x".repeat(440),
                "y".repeat(40),
            )),
            400,
            "BAD_KEY",
            "keys.from[0]",
        ),
        (
            &service(r#"{"user_id":[2147483648],"peer_user_id":[1],"from":["A"],"to":["B"]}"#),
            400,
            "OUT_OF_RANGE",
            "keys.user_id[0]",
        ),
    ]);
}

#[test]
fn a_mistyped_name_is_answered_with_the_nearest_one() {
    let fixture = Fixture::new();
    for (body, nearest) in [
        (with(r#""stritc":true"#), "strict"),
        (with(r#""layout":"column""#), "columns"),
        (read_with(r#""limt":1"#), "limit"),
        (read_with(r#""fields":["lvel"]"#), "level"),
        (users(r#"{"user_idd":[1]}"#), "user_id"),
        (service(r#"{"peer_id":[1]}"#), "user_id"),
        (
            r#"{"reads":[{"feature_group":"live::user-stat-v1","keys":{}}]}"#.to_owned(),
            "live::user-stats-v1",
        ),
        (r#"{"service":"room-ranker-v2","keys":{}}"#.to_owned(), "room-ranker-v1"),
    ] {
        assert_eq!(fixture.problem(&body).3["nearest"], nearest, "{body}");
    }
}

#[test]
fn offsets_point_at_what_is_wrong() {
    let fixture = Fixture::new();
    for (body, wrong) in [
        (with(r#" "stritc":true"#), r#""stritc""#),
        (read_with(r#""fields":["level", "lvel"]"#), r#""lvel""#),
        (users(r#"{"user_id":[1, 2.5]}"#), "2.5"),
        (users(r#"{"user_id":[1],  "usr":[2]}"#), r#""usr""#),
        (with(r#""deadline_ms":  90000"#), "90000"),
    ] {
        let offset = fixture.problem(&body).3["offset"].as_u64().unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert!(body[offset..].starts_with(wrong), "{body} at {offset}");
    }
}

#[test]
fn limits_of_keys_reads_rows_and_events_are_kept() {
    let fixture = Fixture::new();
    let list = |count: usize| (0..count).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let read = |count: usize| {
        let ids = list(count);
        format!(r#"{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{ids}]}}}}"#)
    };
    let reads = |reads: usize, keys: usize| {
        format!(r#"{{"reads":[{}]}}"#, vec![read(keys); reads].join(","))
    };
    assert_eq!(fixture.read(&reads(1, 1000)).status(), 200);
    let (status, code, path, _) = fixture.problem(&reads(1, 1001));
    assert_eq!((status, code.as_str()), (400, "TOO_MANY_KEYS"));
    assert_eq!(path, "reads[0].keys.user_id");
    assert_eq!(fixture.read(&reads(64, 1)).status(), 200);
    assert_eq!(fixture.problem(&reads(65, 1)).1, "TOO_MANY_READS");
    assert_eq!(fixture.read(&reads(4, 1000)).status(), 200);
    let (_, code, path, _) = fixture.problem(&reads(5, 801));
    assert_eq!((code.as_str(), path.as_str()), ("TOO_MANY_ROWS", "reads[4].keys"));
    let history = |limit: &str| {
        format!(
            r#"{{"reads":[{{"feature_group":"live::rich-history","limit":{limit},"keys":{{"user_id":[1]}}}}]}}"#
        )
    };
    assert_eq!(fixture.read(&history("3")).status(), 200);
    for limit in ["4", "0", "-1", "9223372036854775807"] {
        assert_eq!(fixture.problem(&history(limit)).1, "BAD_LIMIT", "{limit}");
    }
    assert_eq!(fixture.problem(&history("2.0")).1, "WRONG_TYPE");
}

#[test]
fn hostile_bodies_are_refused() {
    let fixture = Fixture::new();
    let digits = "9".repeat(10_000);
    let deep = "[".repeat(100_000);
    let bodies: Vec<Vec<u8>> = vec![
        b"\xff\xfe{}".to_vec(),
        b"{\"reads\":\"\xed\xa0\x80\"}".to_vec(),
        users(r#"{"user_id":["\ud800"]}"#).into_bytes(),
        users(&format!(r#"{{"user_id":[{digits}]}}"#)).into_bytes(),
        users(&format!(r#"{{"user_id":[{digits}.5e99]}}"#)).into_bytes(),
        with(&format!(r#""deadline_ms":{digits}"#)).into_bytes(),
        with(&format!(r#""strict":{deep}"#)).into_bytes(),
        users(&format!(r#"{{"user_id":[{deep}"#)).into_bytes(),
        deep.into_bytes(),
        "{\"a\":".repeat(50_000).into_bytes(),
        format!(r#"{{"{}":1}}"#, "x".repeat(900_000)).into_bytes(),
        vec![0; 1000],
        vec![b' '; 1000],
        b"\xef\xbb\xbf{}".to_vec(),
    ];
    for body in bodies {
        let response = fixture.read_as(&body, Accept::Json);
        assert_eq!(response.status(), 400, "{:?}", body.get(..40));
        assert!(response.body.len() < 1000);
    }
}

#[test]
fn without_a_catalog_the_answer_is_a_503() {
    let mut fixture = Fixture::new();
    fixture.engine = Engine::new(Limits::default());
    let (status, code, _, _) = fixture.problem(&users(r#"{"user_id":[1]}"#));
    assert_eq!((status, code.as_str()), (503, "NO_CATALOG"));
    fixture.engine.install(Arc::clone(&fixture.catalog));
    assert_eq!(fixture.read(&users(r#"{"user_id":[1]}"#)).status(), 200);
}

#[test]
fn a_mistake_is_told_before_the_store_is_asked() {
    let mut fixture = Fixture::new();
    fixture.memory.closed = true;
    fixture.fail(crate::fixture::USERS, 1, RowError::Unavailable);
    assert_eq!(fixture.problem(&users(r#"{"user_id":["1"]}"#)).0, 400);
}
