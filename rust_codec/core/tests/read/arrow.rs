//! The Arrow answer is a valid stream whatever is stored, and its parts lie where they should.

use std::io::Cursor;

use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use headrace_codec::read::coding::Coding;
use headrace_codec::read::plan::Accept;
use headrace_codec::read::row::RowError;
use proptest::prelude::*;

use crate::fixture::{Fixture, HISTORY, NOW_MS, Response, USERS, user};

const KINDS: &str = "live::kinds";

/// The only batch of a stream that the `arrow` crate reads and finds nothing wrong with.
fn batch(response: &Response) -> RecordBatch {
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.head.contains("content-type: application/vnd.apache.arrow.stream\r\n"));
    let mut reader = StreamReader::try_new(Cursor::new(&response.body), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    for column in batch.columns() {
        column.to_data().validate_full().unwrap();
    }
    batch
}

fn statuses(batch: &RecordBatch) -> Vec<String> {
    let column = batch.column_by_name("_status").unwrap();
    let words = arrow_array::cast::as_dictionary_array::<arrow_array::types::Int8Type>(column);
    let words = words.downcast_dict::<arrow_array::StringArray>().unwrap();
    words.into_iter().map(|word| word.unwrap().to_owned()).collect()
}

fn read(fixture: &Fixture, group: &str, key: &str, keys: &str) -> Response {
    let body =
        format!(r#"{{"reads":[{{"feature_group":"{group}","keys":{{"{key}":[{keys}]}}}}]}}"#);
    fixture.read_as(body.as_bytes(), Accept::Arrow)
}

#[test]
fn every_message_and_every_buffer_is_aligned_to_64_bytes() {
    let mut fixture = Fixture::new();
    fixture.put_user(1, &user("MALE", 3, None));
    let body = read(&fixture, USERS, "user_id", "1,2,3").body;
    let (end, mut at, mut messages) = (body.len() - 8, 0, 0);
    while at < end {
        assert_eq!((at % 64, &body[at..at + 4]), (0, &[0xFF; 4][..]), "message {messages}");
        let length = u32::from_le_bytes(body[at + 4..at + 8].try_into().unwrap());
        let start = at + 8 + usize::try_from(length).unwrap();
        let message = arrow_ipc::root_as_message(&body[at + 8..start]).unwrap();
        let buffers = message.header_as_record_batch().and_then(|batch| batch.buffers());
        for buffer in buffers.into_iter().flatten() {
            assert_eq!(buffer.offset() % 64, 0);
            assert!(buffer.offset() + buffer.length() <= message.bodyLength());
        }
        at = start + usize::try_from(message.bodyLength()).unwrap();
        messages += 1;
    }
    assert_eq!((at, messages), (end, 3)); // schema, words of statuses, rows
    assert_eq!(body[end..], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
}

#[test]
fn a_damaged_event_leaves_nothing_of_its_row() {
    let mut fixture = Fixture::new();
    fixture.put_events(1, &[(10, "A", 0.5), (20, "B", 1.5)]);
    fixture.put_events(2, &[(10, "C", 0.5), (20, "D", 1.5)]);
    fixture.damage_event(1, 1);
    fixture.fail(HISTORY, 3, RowError::Unavailable);
    let batch = batch(&read(&fixture, HISTORY, "user_id", "2,1,3,2"));
    assert_eq!(statuses(&batch), ["OK", "CORRUPT", "UNAVAILABLE", "OK"]);
    let events = arrow_array::cast::as_list_array(batch.column_by_name("_events").unwrap());
    assert_eq!((events.value_length(0), events.value_length(3)), (2, 2));
    assert!(events.is_null(1) && events.is_null(2));
    assert_eq!(events.values().len(), 4);
}

#[test]
fn a_request_id_of_any_length_stands_in_the_schema() {
    let fixture = Fixture::new();
    let named = |request_id: &[u8]| {
        let body = br#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]}"#;
        let call = headrace_codec::read::engine::ReadCall {
            body,
            accept: Accept::Arrow,
            now_ms: NOW_MS,
            coding: Coding::Identity,
            request_id,
            keep_alive: true,
            reloaded: false,
        };
        let batch = batch(&fixture.call(&call).unwrap());
        batch.schema().metadata()["headrace.request_id"].clone()
    };
    for length in [1, 2, 3, 4, 63, 64] {
        let id = "x".repeat(length);
        assert_eq!(named(id.as_bytes()), id);
    }
    assert_eq!(named(b"not a request id"), "");
    assert_eq!(named(&[b'x'; 65]), "");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    /// A sealed cell with any body: the row is CORRUPT, as in JSON, or what the body happens to say.
    #[test]
    fn any_stored_bytes_end_in_a_valid_stream(
        users in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 1..5),
        kinds in prop::collection::vec(prop::collection::vec(0_u8..20, 0..40), 1..5),
    ) {
        let mut fixture = Fixture::new();
        for (id, body) in users.iter().enumerate() {
            fixture.put_user(i64::try_from(id).unwrap(), body);
        }
        for (id, body) in kinds.iter().enumerate() {
            let cell = fixture.cell(KINDS, 1, NOW_MS, body);
            fixture.put_at(fixture.key(KINDS, &[], &[&format!("k{id}")]), cell);
        }
        let found = batch(&read(&fixture, USERS, "user_id", "0,1,2,3,4"));
        prop_assert_eq!(found.num_rows(), 5);
        let found = batch(&read(&fixture, KINDS, "id", r#""k0","k1","k2","k3","k4""#));
        prop_assert_eq!(found.num_rows(), 5);
        let body = r#"{"reads":[{"feature_group":"live::kinds","keys":{"id":["k0","k1","k2","k3","k4"]}}]}"#;
        let printed = fixture.read(body).json();
        let corrupt = |row: usize| {
            let entries = printed["results"][0]["statuses"].as_array().unwrap();
            entries.iter().any(|entry| entry["row"] == row && entry["status"] == "CORRUPT")
        };
        for (row, (status, body)) in statuses(&found).iter().zip(&kinds).enumerate() {
            prop_assert_eq!(status == "CORRUPT", corrupt(row), "{} of {:?}", status, body);
            prop_assert!(["OK", "CORRUPT"].contains(&status.as_str()), "{status} of {body:?}");
        }
    }
}
