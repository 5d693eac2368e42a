//! A remembered shape never changes an answer.

use std::fmt::Write as _;

use headrace_codec::read::plan::Accept;
use proptest::prelude::*;

use crate::fixture::{Fixture, user};

fn counter(fixture: &Fixture, name: &str) -> u64 {
    let all = fixture.engine.counters().snapshot();
    all.into_iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn other_keys_and_another_deadline_are_the_same_shape() {
    let mut fixture = Fixture::new();
    fixture.put_user(7, &user("MALE", 3, None));
    let body = |deadline: &str, ids: &str| {
        format!(
            r#"{{"deadline_ms":{deadline},"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{ids}]}}}}]}}"#
        )
    };
    fixture.read(&body("50", "1"));
    let answer = fixture.read(&body("49", " 1 ,-7, 7 ")).json();
    assert_eq!(answer["results"][0]["rows"][2][0], "MALE");
    fixture.read(&body("50", ""));
    assert_eq!((counter(&fixture, "plans/hit"), counter(&fixture, "plans/miss")), (2, 1));
    assert_eq!(fixture.read(&body("050", "1")).status(), 400);
    assert_eq!(fixture.read(&body("60001", "1")).status(), 400);
}

#[test]
fn requests_that_differ_only_behind_their_keys_are_told_apart() {
    let fixture = Fixture::new();
    for field in ["gender", "level", "score", "gender", "level", "score"] {
        let body = format!(
            r#"{{"reads":[{{"keys":{{"user_id":[1,2]}},"feature_group":"live::user-stats-v1","fields":["{field}"]}}]}}"#
        );
        let answer = fixture.read(&body).json();
        assert_eq!(answer["results"][0]["fields"][0], field);
    }
    assert_eq!((counter(&fixture, "plans/hit"), counter(&fixture, "plans/miss")), (3, 3));
}

#[test]
fn requests_that_differ_only_between_their_keys_are_all_remembered() {
    let fixture = Fixture::new();
    let groups = ["live::user-stats-v1", "live::rich-history"];
    let (mut bodies, mut id) = (Vec::new(), 0);
    for pattern in 0..64_usize {
        let reads = (0..6).map(|bit| {
            id += 1;
            let group = groups[pattern >> bit & 1];
            format!(r#"{{"feature_group":"{group}","keys":{{"user_id":[{id},{id}]}}}}"#)
        });
        bodies.push(format!(r#"{{"reads":[{}]}}"#, reads.collect::<Vec<_>>().join(",")));
    }
    for body in bodies.iter().chain(&bodies) {
        assert_eq!(fixture.read(body).status(), 200);
    }
    assert_eq!((counter(&fixture, "plans/hit"), counter(&fixture, "plans/miss")), (64, 64));
}

#[test]
fn texts_that_hold_brackets_and_quotes_are_found_again() {
    let mut fixture = Fixture::new();
    fixture.put_route("]", "a\"b", 5);
    let body = |origin: &str, dest: &str| {
        format!(
            r#"{{"reads":[{{"feature_group":"live::route-stats-v1","keys":{{"origin":[{origin}],"dest":[{dest}]}}}},{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[1]}}}}]}}"#
        )
    };
    fixture.read(&body(r#""A""#, r#""B""#));
    for (origin, dest) in [(r#""]""#, r#""[""#), (r#""],""#, r#""keys""#), (r#"" ""#, r#""}""#)] {
        assert_eq!(fixture.read(&body(origin, dest)).status(), 200);
    }
    assert_eq!((counter(&fixture, "plans/hit"), counter(&fixture, "plans/miss")), (3, 1));
    let answer = fixture.read(&body(r#""]""#, r#""a\"b""#)).json();
    assert_eq!(answer["results"][0]["rows"][0][0], 5);
}

#[test]
fn fields_named_keys_do_not_confuse() {
    let document = crate::fixture::DOCUMENT.replace("\"gender\"", "\"keys\"");
    let catalog = headrace_codec::catalog::Catalog::from_json(document.as_bytes()).unwrap();
    let mut fixture = Fixture::new();
    fixture.catalog = std::sync::Arc::new(catalog);
    fixture.engine.install(std::sync::Arc::clone(&fixture.catalog));
    fixture.put_user(1, &user("MALE", 3, None));
    for reads in [
        r#"{"feature_group":"live::user-stats-v1","fields":["keys","level"],"keys":{"user_id":[1]}}"#,
        r#"{"keys":{"user_id":[1]},"fields":["keys","level"],"feature_group":"live::user-stats-v1"}"#,
    ] {
        let twice = format!(r#"{{"reads":[{reads},{reads}]}}"#);
        for _ in 0..2 {
            let answer = fixture.read(&twice).json();
            assert_eq!(answer["results"][1]["rows"][0], serde_json::json!(["MALE", 3]));
        }
    }
    assert_eq!((counter(&fixture, "plans/hit"), counter(&fixture, "plans/miss")), (2, 2));
}

/// Compares a body with the answer of an engine that remembers nothing, after one of its shape.
fn check_remembered(right: &str, bodies: impl Iterator<Item = String>) {
    let warm = Fixture::new();
    assert_eq!(warm.read(right).status(), 200, "{right}");
    for body in bodies {
        let (found, expected) = (warm.read(&body), Fixture::new().read(&body));
        assert_eq!(found.text(), expected.text(), "{body}");
        assert_eq!(found.head, expected.head, "{body}");
    }
}

#[test]
fn a_wrong_key_is_told_alike_from_a_remembered_plan() {
    let longs = |list: &str| {
        format!(
            r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{list}]}}}}]}}"#
        )
    };
    let wrong = [
        "9223372036854775807",
        "9223372036854775808",
        "9999999999999999999",
        "-9223372036854775808",
        "-9223372036854775809",
        "-0",
        "00",
        "-01",
        "1.0",
        "1e1",
        "null",
        "\"1\"",
        "[1]",
        "{}",
        "1,",
        ",1",
        "1 1",
        "-",
        "+1",
        "1]",
        "",
        " ",
        "\u{a0}1",
        "1,\n\t\r 2",
        "true",
    ];
    check_remembered(&longs("1"), wrong.iter().map(|list| longs(list)));
    let integers = |list: &str| longs(list).replace("user-stats-v1", "rich-history");
    let wrong = ["2147483647", "2147483648", "-2147483648", "-2147483649", "1.5"];
    check_remembered(&integers("1"), wrong.iter().map(|list| integers(list)));
    let texts = |list: &str| {
        format!(
            r#"{{"reads":[{{"feature_group":"live::route-stats-v1","keys":{{"origin":[{list}],"dest":["B"]}}}}]}}"#
        )
    };
    let long = format!("\"{}\"", "x".repeat(500));
    let wrong = [
        r#""""#,
        "\"\u{1}\"",
        "\"\n\"",
        r#""\n""#,
        r#""\ud800""#,
        r#""\u00e9""#,
        r#""\x""#,
        "1",
        "null",
        r#""A","B""#,
        r#""A"#,
        r#""]""#,
        r#""\"]""#,
        "\"\u{e9}\"",
        long.as_str(),
    ];
    check_remembered(&texts(r#""A""#), wrong.iter().map(|list| texts(list)));
}

#[test]
fn a_wrong_deadline_is_told_alike_from_a_remembered_plan() {
    let wrong =
        ["1", "60000", "60001", "0", "-1", "05", "5 5", "5:5", "5.0", "5e0", "null", "", " 7 "];
    for place in [true, false] {
        let body = |deadline: &str| {
            let reads =
                r#""reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]"#;
            let deadline = format!(r#""deadline_ms":{deadline}"#);
            if place {
                format!("{{{deadline},{reads}}}")
            } else {
                format!("{{{reads},{deadline}}}")
            }
        };
        check_remembered(&body("50"), wrong.iter().map(|deadline| body(deadline)));
    }
}

#[test]
fn json_and_avro_plans_are_told_apart() {
    let fixture = Fixture::new();
    let body = br#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]}"#;
    for accept in [Accept::Json, Accept::Avro, Accept::Json, Accept::Avro] {
        let response = fixture.read_as(body, accept);
        assert_eq!(response.body.starts_with(b"{"), accept == Accept::Json);
    }
    assert_eq!(counter(&fixture, "plans/hit"), 2);
}

#[test]
fn a_new_catalog_forgets_all_plans() {
    let fixture = Fixture::new();
    let body = r#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]}"#;
    fixture.read(body);
    assert_eq!(fixture.engine.plan_count(), 1);
    let document = crate::fixture::DOCUMENT
        .replace("\"generation\":12", "\"generation\":13")
        .replace("\"NONE\"", "\"NEW\"");
    let catalog = headrace_codec::catalog::Catalog::from_json(document.as_bytes()).unwrap();
    fixture.engine.install(std::sync::Arc::new(catalog));
    assert_eq!(fixture.engine.plan_count(), 0);
    let response = fixture.read(body);
    assert_eq!(response.json()["generation"], 13);
    assert_eq!(response.json()["results"][0]["rows"][0][0], "NEW");
    assert!(response.head.contains("headrace-generation: 13\r\n"));
}

#[test]
fn remembered_shapes_are_bounded() {
    let fixture = Fixture::new();
    for number in 0..9_000 {
        let spaces = " ".repeat(number % 95 + 1);
        let more = " ".repeat(number / 95 + 1);
        let body = format!(
            r#"{{"reads":{spaces}[{more}{{"feature_group":"live::route-stats-v1","keys":{{"origin":["A"],"dest":["B"]}}}}]}}"#
        );
        assert_eq!(fixture.read(&body).status(), 200);
    }
    assert!(fixture.engine.plan_count() <= 4_096, "{}", fixture.engine.plan_count());
    assert!(fixture.engine.plan_count() >= 2_048);
}

/// Bodies that are near to a right one: pieces of one, joined with what may stand between.
fn near_body() -> impl Strategy<Value = String> {
    let id = prop_oneof![
        3 => (-9_i64..9).prop_map(|id| id.to_string()),
        1 => any::<i64>().prop_map(|id| id.to_string()),
        1 => prop::sample::select(vec![
            "-0", "00", "1.0", "null", "\"1\"", "[]", "]", "1 2", "99999999999999999999", "1e0", "",
        ]).prop_map(str::to_owned),
    ];
    let ids = (prop::collection::vec(id, 0..5), prop::sample::select(vec![",", " , ", ",,"]));
    let tail = prop::sample::select(vec![
        "",
        r#","deadline_ms":5"#,
        r#","deadline_ms":05"#,
        r#","strict":true"#,
        r#","layout":"columns""#,
        r#","event_times":true,"deadline_ms":77"#,
        "x",
    ]);
    let texts = prop::collection::vec(
        prop::sample::select(vec![
            r#""JFK""#,
            r#""a]b""#,
            r#""é""#,
            r#""\u00e9""#,
            r#""a\"b""#,
            r#""""#,
            "\"\u{1}\"",
            "7",
        ]),
        0..3,
    );
    (ids, texts, tail, any::<bool>()).prop_map(|((ids, comma), texts, tail, service)| {
        let ids = ids.join(comma);
        let texts = texts.join(",");
        let mut body = String::new();
        let _ = if service {
            write!(
                body,
                r#"{{"service":"room-ranker-v1","keys":{{"user_id":[{ids}],"peer_user_id":[1,2],"from":[{texts}],"to":["B"]}}{tail}}}"#
            )
        } else {
            write!(
                body,
                r#"{{"reads":[{{"feature_group":"live::user-stats-v1","keys":{{"user_id":[{ids}]}}}},{{"keys":{{"origin":[{texts}],"dest":[{texts}]}},"feature_group":"live::route-stats-v1"}}]{tail}}}"#
            )
        };
        body
    })
}

proptest! {
    #[test]
    fn the_answer_is_the_same_from_a_remembered_plan(
        bodies in prop::collection::vec(near_body(), 1..12),
    ) {
        let mut warm = Fixture::new();
        warm.put_user(1, &user("MALE", 3, Some(0.5)));
        for body in &bodies {
            let mut cold = Fixture::new();
            cold.put_user(1, &user("MALE", 3, Some(0.5)));
            let expected = cold.read(body);
            for _ in 0..2 {
                let found = warm.read(body);
                prop_assert_eq!(found.text(), expected.text(), "{}", body);
                prop_assert_eq!(&found.head, &expected.head);
            }
        }
    }

    #[test]
    fn random_bytes_are_a_400(body: Vec<u8>) {
        prop_assert_eq!(Fixture::new().read_as(&body, Accept::Json).status(), 400);
    }
}
