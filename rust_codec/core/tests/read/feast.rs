//! `POST /get-online-features`: Feast's request and answer, rule by rule (semantics 16).

use std::sync::Arc;

use headrace_codec::catalog::Catalog;
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::RowError;
use serde_json::{Value, json};

use crate::fixture::{
    DOCUMENT, Fixture, HISTORY, NOW_MS, Response, USERS, double, long, text, user,
};

const KINDS: &str = "live::kinds";
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// One second before now, which is when fixtures put users.
const USER_TIME: &str = "2023-11-14T22:13:19Z";

fn ask(fixture: &Fixture, body: &Value) -> Response {
    fixture.read_as(body.to_string().as_bytes(), Accept::Feast)
}

fn answered(fixture: &Fixture, body: &Value) -> Value {
    let response = ask(fixture, body);
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.head.contains("content-type: application/json\r\n"));
    response.json()
}

/// The result of one name.
fn column(answer: &Value, name: &str) -> Value {
    let names = answer["metadata"]["feature_names"].as_array().unwrap();
    let position = names.iter().position(|known| known == name).unwrap();
    answer["results"][position].clone()
}

fn features(references: &[&str], entities: &Value) -> Value {
    json!({"features": references, "entities": entities})
}

/// Status, Feast's class and the message of a refusal; the class is empty for a JSON object.
fn refused(fixture: &Fixture, body: &Value) -> (u16, String, String) {
    let response = ask(fixture, body);
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    assert!(response.head.contains("content-type: application/json\r\n"));
    match response.json() {
        Value::String(detail) => {
            let detail: Value = serde_json::from_str(&detail).unwrap();
            assert_eq!(detail["module"], "feast.errors");
            (response.status(), word(&detail["class"]), word(&detail["message"]))
        }
        problem => (response.status(), String::new(), word(&problem["code"])),
    }
}

#[test]
fn an_answer_is_column_major_with_join_keys_first() {
    let mut fixture = Fixture::new();
    fixture.put_user(1001, &user("MALE", 863, None));
    let body = r#"{"features":["live__user-stats-v1:level"],"entities":{"user_id":[1001,9999]}}"#;
    let response = fixture.read_as(body.as_bytes(), Accept::Feast);
    assert_eq!(
        response.text(),
        concat!(
            r#"{"results":[{"values":[1001,9999],"statuses":["PRESENT","PRESENT"],"#,
            r#""event_timestamps":["1970-01-01T00:00:00Z","1970-01-01T00:00:00Z"]},"#,
            r#"{"values":[863,null],"statuses":["PRESENT","NOT_FOUND"],"#,
            r#""event_timestamps":["2023-11-14T22:13:19Z","1970-01-01T00:00:00Z"]}],"#,
            r#""metadata":{"feature_names":["user_id","level"]}}"#
        )
    );
    assert!(response.head.contains("x-request-id: test-1\r\n"));
    assert!(response.head.contains("headrace-generation: 12\r\n"));
    assert!(!response.head.contains("headrace-warning"));
}

#[test]
fn features_of_several_groups_stand_in_request_order() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, Some(0.5)));
    fixture.put_events(1, &[(5, "F", 1.0), (9, "M", 2.0)]);
    let references =
        ["live::user-stats-v1:score", "live::rich-history:ratio", "live__user-stats-v1:level"];
    let answer = answered(&fixture, &features(&references, &json!({"user_id": [1, 1]})));
    assert_eq!(answer["metadata"]["feature_names"], json!(["user_id", "score", "ratio", "level"]));
    let values: Vec<&Value> =
        answer["results"].as_array().unwrap().iter().map(|result| &result["values"]).collect();
    assert_eq!(
        values,
        [&json!([1, 1]), &json!([0.5, 0.5]), &json!([[1.0, 2.0], [1.0, 2.0]]), &json!([3, 3])]
    );
    assert_eq!(answer["results"][2]["event_timestamps"][0], "2023-11-14T22:13:19.995Z");
}

#[test]
fn a_reference_splits_at_its_last_colon_and_takes_declared_names() {
    let mut fixture = Fixture::new();
    fixture.put_route("ICN", "JFK", 14);
    let keys = json!({"dest": ["JFK"], "origin": ["ICN"]});
    for (reference, name) in [
        ("route_stats:FlightCount", "FlightCount"),
        ("live::route-stats-v1:FlightCount", "FlightCount"),
        ("live__route-stats-v1:flights", "flights"),
    ] {
        let mut body = features(&[reference], &keys);
        let answer = answered(&fixture, &body);
        assert_eq!(answer["metadata"]["feature_names"], json!(["dest", "origin", name]));
        assert_eq!(column(&answer, name)["values"], json!([14]));
        assert_eq!(column(&answer, "origin")["values"], json!(["ICN"]));
        body["full_feature_names"] = true.into();
        let full = format!("route_stats__{name}");
        assert_eq!(column(&answered(&fixture, &body), &full)["values"], json!([14]));
    }
}

#[test]
fn a_service_is_found_under_both_names_and_wins_over_features() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    fixture.put_user(2, &user("FEMALE", 8, None));
    fixture.put_route("ICN", "JFK", 14);
    let entities = json!({"user_id": [1], "peer_user_id": [2], "from": ["ICN"], "to": ["JFK"]});
    for name in ["room_ranker", "room-ranker-v1"] {
        let answer = answered(
            &fixture,
            &json!({"feature_service": name, "features": ["no:such"], "entities": entities,
                    "full_feature_names": true}),
        );
        assert_eq!(column(&answer, "me__level")["values"], json!([3]));
        assert_eq!(column(&answer, "peers__level")["values"], json!([8]));
        assert_eq!(column(&answer, "peers__gender")["values"], json!(["FEMALE"]));
        assert_eq!(column(&answer, "live__rich-history__ratio")["statuses"], json!(["NOT_FOUND"]));
        assert_eq!(column(&answer, "route_stats__FlightCount")["values"], json!([14]));
    }
}

#[test]
fn names_that_could_not_be_told_apart_are_refused() {
    let fixture = Fixture::new();
    let entities = json!({"user_id": [1], "peer_user_id": [2], "from": ["ICN"], "to": ["JFK"]});
    let service = json!({"feature_service": "room_ranker", "entities": entities});
    let twice = features(
        &["live::user-stats-v1:level", "live__user-stats-v1:level"],
        &json!({"user_id": [1]}),
    );
    for body in [service, twice] {
        let (status, class, message) = refused(&fixture, &body);
        assert_eq!((status, class.as_str()), (400, "FeatureNameCollisionError"));
        assert!(message.contains("`level`"), "{message}");
    }
}

#[test]
fn null_missing_and_default_are_three_things() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let patch = fixture.patch(USERS, "level", NOW_MS - 1000, &long(4));
    fixture.put_cells(2, vec![patch]);
    let references = ["live::user-stats-v1:score", "live::user-stats-v1:gender"];
    let answer = answered(&fixture, &features(&references, &json!({"user_id": [1, 2, 3]})));
    let score = column(&answer, "score");
    assert_eq!(score["values"], json!([null, null, null]));
    assert_eq!(score["statuses"], json!(["NULL_VALUE", "NULL_VALUE", "NOT_FOUND"]));
    assert_eq!(score["event_timestamps"], json!([USER_TIME, USER_TIME, NO_TIME]));
    let gender = column(&answer, "gender");
    assert_eq!(gender["values"], json!(["MALE", "NONE", null]));
    assert_eq!(gender["statuses"], json!(["PRESENT", "PRESENT", "NOT_FOUND"]));
}

#[test]
fn ttl_and_max_age_are_honoured() {
    let mut fixture = Fixture::new();
    for (id, age_ms) in [(1, 60_001), (2, 1_000_001)] {
        let cell = fixture.cell(USERS, 2, NOW_MS - age_ms, &user("MALE", 3, None));
        fixture.put_cells(id, vec![(0, cell)]);
    }
    let asked = features(&["live::user-stats-v1:level"], &json!({"user_id": [1, 2]}));
    let level = column(&answered(&fixture, &asked), "level");
    assert_eq!(level["values"], json!([null, null]));
    assert_eq!(level["statuses"], json!(["OUTSIDE_MAX_AGE", "NOT_FOUND"]));
    assert_eq!(level["event_timestamps"], json!(["2023-11-14T22:12:19.999Z", NO_TIME]));
}

#[test]
fn nan_is_a_null_with_a_status_and_the_rest_stands() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, Some(f64::NAN)));
    let references = ["live::user-stats-v1:score", "live::user-stats-v1:level"];
    let answer = answered(&fixture, &features(&references, &json!({"user_id": [1]})));
    assert_eq!(column(&answer, "score")["values"], json!([null]));
    assert_eq!(column(&answer, "score")["statuses"], json!(["INVALID"]));
    assert_eq!(column(&answer, "level")["statuses"], json!(["PRESENT"]));
    fixture.put_events(1, &[(5, "F", 1.0), (9, "M", f64::INFINITY)]);
    let ratio = features(&["live::rich-history:ratio"], &json!({"user_id": [1]}));
    let ratio = column(&answered(&fixture, &ratio), "ratio");
    assert_eq!((&ratio["values"], &ratio["statuses"]), (&json!([null]), &json!(["INVALID"])));
}

#[test]
fn values_print_so_that_feast_infers_their_types() {
    let mut fixture = Fixture::new();
    let key = fixture.key(KINDS, &[], &["k"]);
    let days = [long(2), long(1), long(-1), long(0)].concat();
    let body = [
        long(1_700_000_000_999_999),
        long(19_000),
        days,
        text("f"),
        1.5_f32.to_le_bytes().to_vec(),
        double(2.0),
        vec![1],
    ];
    let cell = fixture.cell(KINDS, 1, NOW_MS, &body.concat());
    fixture.put_at(key, cell);
    let names = ["at", "day", "days", "raw", "ratio", "whole", "yes"];
    let references: Vec<String> = names.iter().map(|name| format!("{KINDS}:{name}")).collect();
    let body = json!({"features": references, "entities": {"id": ["k"]}}).to_string();
    let response = fixture.read_as(body.as_bytes(), Accept::Feast);
    for value in [
        "[1700000000]",
        "[1641600000]",
        "[[86400,-86400]]",
        "[\"Zg==\"]",
        "[1.5]",
        "[2.0]",
        "[true]",
    ] {
        assert!(response.text().contains(&format!("\"values\":{value},")), "{}", response.text());
    }
}

#[test]
fn long_keys_and_values_are_exact_and_the_same_on_the_remembered_path() {
    let mut fixture = Fixture::new();
    let (id, level) = (9_007_199_254_740_993, i64::MIN + 1);
    fixture.put_user(id, &user("MALE", level, None));
    fixture.put_user(7, &user("MALE", 9_007_199_254_740_995, None));
    for (id, level) in [(id, level), (7, 9_007_199_254_740_995), (id, level)] {
        let body = format!(
            r#"{{"entities": {{"user_id": [{id}]}}, "features": ["live::user-stats-v1:level"]}}"#
        );
        let response = fixture.read_as(body.as_bytes(), Accept::Feast);
        assert!(response.text().starts_with(&format!(r#"{{"results":[{{"values":[{id}],"#)));
        assert!(response.text().contains(&format!(r#"{{"values":[{level}],"#)));
    }
    assert_eq!(fixture.engine.plan_count(), 1);
    let hits = |name: &str| {
        fixture.engine.counters().snapshot().iter().find(|(n, _)| n == name).unwrap().1
    };
    assert_eq!((hits("plans/hit"), hits("plans/miss")), (2, 1));
}

#[test]
fn bodies_of_feast_and_of_ours_never_share_a_plan() {
    let fixture = Fixture::new();
    let feast = features(&["live::user-stats-v1:level"], &json!({"user_id": [1]}));
    answered(&fixture, &feast);
    assert_eq!(fixture.read(&feast.to_string()).status(), 400);
    let ours = r#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]}"#;
    assert_eq!(fixture.read(ours).status(), 200);
    assert_eq!(fixture.read_as(ours.as_bytes(), Accept::Feast).status(), 400);
}

#[test]
fn what_is_not_used_is_named_in_a_header_that_it_cannot_split() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let mut asked = features(
        &["live::user-stats-v1:level"],
        &json!({"user_id": [1], "a_city": ["x"], "b\r\nset-cookie: é": [1]}),
    );
    asked["query_string"] = "x".into();
    let response = ask(&fixture, &asked);
    assert_eq!(response.status(), 200);
    assert_eq!(response.json()["metadata"]["feature_names"], json!(["user_id", "level"]));
    let warning = response.head.lines().find(|line| line.starts_with("headrace-warning: "));
    assert_eq!(warning, Some("headrace-warning: not used: query_string, a_city, b??set-cookie:??"));
    asked["entities"][&"x".repeat(5_000)] = json!([1]);
    assert!(ask(&fixture, &asked).head.len() < 512);
}

#[test]
fn a_warning_does_not_outlive_its_request() {
    let fixture = Fixture::new();
    let plain = features(&["live::user-stats-v1:level"], &json!({"user_id": [1]}));
    let mut extra = plain.clone();
    extra["entities"]["city"] = json!([1]);
    assert!(ask(&fixture, &extra).head.contains("headrace-warning"));
    assert!(!ask(&fixture, &plain).head.contains("headrace-warning"));
    assert!(!ask(&fixture, &json!({})).head.contains("headrace-warning"));
}

#[test]
fn versions_are_told_when_asked_for() {
    let fixture = Fixture::new();
    let mut asked = features(
        &["live::user-stats-v1:level", "live::rich-history:ratio"],
        &json!({"user_id": [1]}),
    );
    asked["include_feature_view_version_metadata"] = true.into();
    assert_eq!(
        answered(&fixture, &asked)["metadata"]["feature_view_metadata"],
        json!([{"name": "live__user-stats-v1", "version": 2}, {"name": "live__rich-history", "version": 1}])
    );
}

#[test]
fn a_row_that_cannot_be_served_fails_the_whole_answer() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let asked = features(&["live::user-stats-v1:level"], &json!({"user_id": [1, 2]}));
    for error in [RowError::Unavailable, RowError::Corrupt] {
        fixture.fail(USERS, 2, error);
        let response = ask(&fixture, &asked);
        assert_eq!(response.status(), 503, "{}", response.text());
        assert!(response.head.contains("retry-after: 1\r\n"));
        assert_eq!(response.json()["code"], "STRICT_PARTIAL");
    }
    fixture.put_events(3, &[(5, "F", 1.0), (9, "M", 2.0)]);
    fixture.damage_event(3, 1);
    let history = features(&["live::rich-history:ratio"], &json!({"user_id": [3]}));
    assert_eq!(ask(&fixture, &history).status(), 503);
    assert!(fixture.catalog.group(HISTORY).is_some());
}

#[test]
fn mistakes_are_4xx_with_the_class_of_feast_that_fits() {
    let fixture = Fixture::new();
    let level = ["live::user-stats-v1:level"];
    let user_ids = |ids: Value| features(&level, &json!({"user_id": ids}));
    for (body, status, class, part) in [
        (
            features(&["live::nobody:x"], &json!({"id": [1]})),
            404,
            "FeatureViewNotFoundException",
            "`live::nobody`",
        ),
        (
            features(&["live::user-stats-v1:lvel"], &json!({"user_id": [1]})),
            404,
            "SpecifiedFeaturesNotPresentError",
            "the nearest is `level`",
        ),
        (
            json!({"feature_service": "room_rankr", "entities": {}}),
            404,
            "FeatureServiceNotFoundException",
            "room_rankr",
        ),
        (
            features(&level, &json!({})),
            400,
            "RequestDataNotFoundInEntityRowsException",
            "`user_id`",
        ),
        (
            features(&["route_stats:flights"], &json!({"origin": ["ICN"]})),
            400,
            "RequestDataNotFoundInEntityRowsException",
            "`dest`",
        ),
        (user_ids(json!([])), 400, "RequestDataNotFoundInEntityRowsException", "empty"),
        (user_ids(json!([null])), 400, "", "NULL_NOT_ALLOWED"),
        (user_ids(json!(["abc"])), 400, "", "WRONG_TYPE"),
        (user_ids(json!([1.0])), 400, "", "WRONG_TYPE"),
        (user_ids(json!(7)), 400, "", "WRONG_TYPE"),
        (features(&level, &json!({"user_id": [1, 2], "city": ["x"]})), 400, "", "RAGGED_KEYS"),
        (
            features(&["route_stats:flights"], &json!({"origin": ["a", "b"], "dest": ["a"]})),
            400,
            "",
            "RAGGED_KEYS",
        ),
        (json!({"features": level}), 400, "", "MISSING_MEMBER"),
        (json!({"entities": {"user_id": [1]}}), 400, "", "MISSING_MEMBER"),
        (features(&[], &json!({"user_id": [1]})), 400, "", "MISSING_MEMBER"),
        (features(&["level"], &json!({"user_id": [1]})), 400, "", "BAD_OPTION"),
        (json!([]), 400, "", "WRONG_TYPE"),
        (json!({"features": "x", "entities": {}}), 400, "", "WRONG_TYPE"),
        (json!({"features": level, "entities": null}), 400, "", "WRONG_TYPE"),
    ] {
        let (found_status, found_class, message) = refused(&fixture, &body);
        assert_eq!((found_status, found_class.as_str()), (status, class), "{body}\n{message}");
        assert!(message.contains(part), "{body}\n{message}");
    }
}

#[test]
fn reads_of_one_request_need_equally_many_keys_across_groups() {
    let fixture = Fixture::new();
    let asked = features(
        &["live::user-stats-v1:level", "route_stats:flights"],
        &json!({"user_id": [1, 2], "origin": ["a"], "dest": ["b"]}),
    );
    let (status, _, code) = refused(&fixture, &asked);
    assert_eq!((status, code.as_str()), (400, "RAGGED_KEYS"));
}

#[test]
fn members_that_stand_twice_and_broken_json_are_told_as_objects() {
    let fixture = Fixture::new();
    for body in
        [r#"{"entities":{},"entities":{}}"#, "{", "", "{\"entities\":{\"a\":[1],\"a\":[1]}}"]
    {
        let response = fixture.read_as(body.as_bytes(), Accept::Feast);
        assert_eq!(response.status(), 400);
        assert!(response.json().is_object());
    }
}

/// `live::kinds` and a second key of `live::route-stats-v1` under names that others use as numbers.
fn with_one_name_of_two_types() -> Fixture {
    let mut fixture = Fixture::new();
    let document = DOCUMENT
        .replace(
            r#""keys":[{"name":"id","type":"Text"}]"#,
            r#""keys":[{"name":"user_id","type":"Text"}]"#,
        )
        .replace(r#"{"name":"dest","type":"Text"}"#, r#"{"name":"user_id","type":"Long"}"#)
        .replace(
            r#""keys":{"origin":"from","dest":"to"}"#,
            r#""keys":{"origin":"user_id","user_id":"to"}"#,
        );
    fixture.catalog = Arc::new(Catalog::from_json(document.as_bytes()).unwrap());
    fixture.engine.install(Arc::clone(&fixture.catalog));
    fixture
}

#[test]
fn one_join_key_as_text_to_one_group_and_a_number_to_another_is_refused() {
    let fixture = with_one_name_of_two_types();
    let text_of = json!({"user_id": ["7"], "origin": ["s"]});
    let number_of = json!({"user_id": [7], "origin": ["s"]});
    let (kinds, users) = ("live::kinds:ratio", "live::user-stats-v1:level");
    let (routes, history) = ("route_stats:FlightCount", "live::rich-history:user_gender");
    for (references, said) in [
        ([kinds, users], "Text to `live__kinds` and Long to `live__user-stats-v1`"),
        ([users, kinds], "Long to `live__user-stats-v1` and Text to `live__kinds`"),
        ([kinds, routes], "Text to `live__kinds` and Long to `route_stats`"),
        ([history, kinds], "Integer to `live__rich-history` and Text to `live__kinds`"),
    ] {
        for entities in [&text_of, &number_of] {
            let response = ask(&fixture, &features(&references, entities));
            let problem = response.json();
            assert_eq!((response.status(), &problem["code"]), (400, &json!("WRONG_TYPE")));
            assert_eq!(problem["path"], "entities.user_id");
            assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        }
    }
}

#[test]
fn a_service_with_one_request_key_of_two_types_is_refused_on_both_routes() {
    let fixture = with_one_name_of_two_types();
    let keys = json!({"user_id": [1], "peer_user_id": [2], "to": [3]});
    let feast =
        json!({"feature_service": "room_ranker", "entities": keys, "full_feature_names": true});
    let ours = json!({"service": "room-ranker-v1", "keys": keys});
    for (body, accept, path, groups) in [
        (feast, Accept::Feast, "entities.user_id", ["live__user-stats-v1", "route_stats"]),
        (ours, Accept::Json, "keys.user_id", ["live::user-stats-v1", "live::route-stats-v1"]),
    ] {
        let response = fixture.read_as(body.to_string().as_bytes(), accept);
        let problem = response.json();
        assert_eq!((response.status(), &problem["code"]), (400, &json!("WRONG_TYPE")), "{problem}");
        assert_eq!(problem["path"], path);
        let [number, text] = groups;
        let said = format!("Long to `{number}` and Text to `{text}`");
        assert!(problem["detail"].as_str().unwrap().contains(&said), "{problem}");
    }
}

#[test]
fn an_integer_and_a_long_of_one_name_are_read_by_one_column_of_the_narrower() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    for references in [
        ["live::user-stats-v1:level", "live::rich-history:ratio"],
        ["live::rich-history:ratio", "live::user-stats-v1:level"],
    ] {
        let answer = answered(&fixture, &features(&references, &json!({"user_id": [1]})));
        assert_eq!(column(&answer, "level")["values"], json!([3]));
        let wide = features(&references, &json!({"user_id": [1_i64 << 31]}));
        assert_eq!(refused(&fixture, &wide).2, "OUT_OF_RANGE");
    }
}
