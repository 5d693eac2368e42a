//! Fold, blocks and transcoding on one small group, by hand.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is a failed test"
)]

use std::borrow::Cow;

use headrace_codec::block::{self, Block, Event};
use headrace_codec::catalog::{Catalog, Group};
use headrace_codec::cell;
use headrace_codec::cursor::write_varint;
use headrace_codec::error::Kind;
use headrace_codec::fold::{Folded, fold};
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::{Options, Transcoder, Unwritten};

const DOCUMENT: &str = r#"{"format":1,"generation":1,"groups":[{
  "id":7,"name":"live::host-v1","feature_type":"Object","ttl_ms":1000,"max_age_ms":null,
  "max_events":100,"cache":{"ttl_ms":0,"local_ttl_ms":0},
  "keys":[{"name":"host","type":"Long"}],
  "schemas":[
    {"ordinal":1,"fields":[
      {"id":1,"name":"level","type":"Integer","nullable":false,"default":0},
      {"id":2,"name":"gone","type":"Text","nullable":false,"default":""}]},
    {"ordinal":2,"fields":[
      {"id":3,"name":"tags","type":"List<Text>","nullable":true,"default":null},
      {"id":1,"name":"level","type":"Long","nullable":false,"default":-1},
      {"id":4,"name":"score","type":"Double","nullable":false,"default":0.5}]}]}]}"#;

fn catalog() -> Catalog {
    Catalog::from_json(DOCUMENT.as_bytes()).unwrap()
}

fn sealed(write_timestamp: i64, fingerprint: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cell::seal(&mut out, write_timestamp, fingerprint, body);
    out
}

fn old_record(group: &Group, time_ms: i64, level: i64) -> Vec<u8> {
    let mut body = Vec::new();
    write_varint(&mut body, level);
    body.extend_from_slice(b"\x04no");
    sealed(time_ms * 1000, group.schemas[0].fingerprint, &body)
}

fn current_record(group: &Group, time_ms: i64, level: i64, score: f64) -> Vec<u8> {
    let mut body = vec![2, 4, 2, b'a', 4, b'"', b'b', 0];
    write_varint(&mut body, level);
    body.extend_from_slice(&score.to_le_bytes());
    sealed(time_ms * 1000, group.current().fingerprint, &body)
}

fn score_patch(group: &Group, time_ms: i64, score: f64) -> Vec<u8> {
    sealed(time_ms * 1000, group.current().patch_fingerprints[2], &score.to_le_bytes())
}

fn shown(folded: &Folded<'_>) -> (String, Vec<usize>) {
    let transcoder = Transcoder::new(&folded.schema, &folded.schema, &[2, 1, 0]).unwrap();
    let (mut out, mut status) = (Vec::new(), RowStatus::default());
    let written = folded.written.as_deref();
    transcoder.folded_row(&folded.body, written, &mut out, &mut status).unwrap();
    (String::from_utf8(out).unwrap(), status.defaulted.positions().collect())
}

#[test]
fn one_current_record_is_borrowed_and_shown_whole() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let record = current_record(group, 5, 9, -0.0);
    let folded = fold(group, [(0, record.as_slice())], None, 6).unwrap().unwrap();
    assert!(matches!(folded.body, Cow::Borrowed(_)));
    assert_eq!(shown(&folded), (r#"[-0.0,9,["a","\"b"]]"#.to_owned(), vec![]));
}

#[test]
fn an_old_record_speaks_only_for_its_own_fields() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let record = old_record(group, 5, 9);
    let patch = score_patch(group, 4, 2.5);
    let folded = fold(group, [(0, &*record), (4, &*patch)], None, 6).unwrap().unwrap();
    assert_eq!(shown(&folded), ("[2.5,9,null]".to_owned(), vec![2]));
    assert_eq!((folded.newest_event_time_ms, folded.oldest_event_time_ms), (5, 4));
}

#[test]
fn expired_and_deleted_cells_fold_away() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let (record, patch) = (current_record(group, 5, 9, 1.0), score_patch(group, 7, 2.5));
    let cells = [(0, &*record), (4, &*patch)];
    let folded = fold(group, cells, None, 1005).unwrap().unwrap();
    assert_eq!(shown(&folded), ("[2.5,-1,null]".to_owned(), vec![1, 2]));
    assert_eq!(fold(group, cells, None, 1007).unwrap(), None);
    let deleted = fold(group, cells, Some(5 * 1000 + 999), 10).unwrap().unwrap();
    assert_eq!(shown(&deleted).0, "[2.5,-1,null]");
    assert_eq!(fold(group, cells, Some(7 * 1000 + 999), 10).unwrap(), None);
}

#[test]
fn a_foreign_fingerprint_asks_for_a_newer_catalog() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let foreign = sealed(1000, 42, &[0]);
    for field_id in [0, 1, 99] {
        let error = fold(group, [(field_id, &*foreign)], None, 2).unwrap_err();
        assert_eq!(error.kind, Kind::UnknownSchema);
    }
}

#[test]
fn a_block_gives_back_the_folded_record_for_its_own_key_only() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let patch = score_patch(group, 4, 2.5);
    let folded = fold(group, [(4, &*patch)], None, 6).unwrap().unwrap();
    let bytes = block::seal_object(77, &folded);
    let Ok(Block::Object(opened)) = Block::open(&bytes, 77, group) else { unreachable!() };
    assert_eq!(opened.body, &*folded.body);
    assert_eq!(Some(opened.written), folded.written.as_deref());
    assert_eq!(opened.newest_event_time_ms, 4);
    assert_eq!(Block::open(&bytes, 78, group).unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn history_blocks_keep_events_in_order_and_empty_ones_are_absent() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let events = [
        Event { event_time_ms: 9, fingerprint: 1, body: b"newer" },
        Event { event_time_ms: 3, fingerprint: 2, body: b"" },
    ];
    let bytes = block::seal_history(5, events).unwrap();
    let Ok(Block::History(opened)) = Block::open(&bytes, 5, group) else { unreachable!() };
    assert_eq!(opened.events().collect::<Vec<_>>(), events);
    assert_eq!((opened.newest_event_time_ms, opened.oldest_event_time_ms), (9, 3));
    let empty = block::seal_history(5, []).unwrap();
    assert_eq!(Block::open(&empty, 5, group), Ok(Block::Absent));
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_block_is_detected() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let record = current_record(group, 5, 9, -0.0);
    let folded = fold(group, [(0, record.as_slice())], None, 6).unwrap().unwrap();
    let event = Event { event_time_ms: 9, fingerprint: 1, body: b"body" };
    let history = block::seal_history(5, [event, event]).unwrap();
    for bytes in [block::seal_absent(5), block::seal_object(5, &folded), history] {
        assert!(Block::open(&bytes, 5, group).is_ok());
        for length in 0..bytes.len() {
            assert!(Block::open(&bytes[..length], 5, group).is_err(), "length {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::open(&flipped, 5, group).is_err(), "bit {bit}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(Block::open(&longer, 5, group).is_err());
    }
}

#[test]
fn layouts_and_options_change_the_form_and_never_the_values() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let (old, new) = (&group.schemas[0], group.current());
    let options = Options { int64_as_text: true, unwritten: Unwritten::Null, ..Options::default() };
    let transcoder = Transcoder::with_options(old, new, &[1, 2, 1], options).unwrap();
    let body = b"\x12\x04no";
    let (mut out, mut status) = (Vec::new(), RowStatus::default());
    transcoder.event(1234, body, &mut out, &mut status).unwrap();
    out.push(b' ');
    transcoder.object(body, &mut out, &mut status).unwrap();
    out.push(b' ');
    transcoder.missing_row(&mut out);
    let expected = concat!(
        r#"[1234,"9",null,"9"] {"level":"9","score":null,"level":"9"}"#,
        " [null,null,null]"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(status.defaulted.positions().collect::<Vec<_>>(), [1]);
    let (mut values, mut ends) = (Vec::new(), Vec::new());
    transcoder.values(body, None, &mut values, &mut ends, &mut status).unwrap();
    assert_eq!((values.as_slice(), ends), (&b"\"9\"null\"9\""[..], vec![3, 7, 10]));
}

#[test]
fn numbers_that_are_not_finite_become_null_and_are_marked() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let transcoder = Transcoder::new(group.current(), group.current(), &[1, 2]).unwrap();
    for score in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (mut out, mut status) = (Vec::new(), RowStatus::default());
        let body = [&[0, 2][..], &score.to_le_bytes()].concat();
        transcoder.row(&body, &mut out, &mut status).unwrap();
        assert_eq!(out, b"[1,null]");
        assert_eq!(status.not_finite.positions().collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn a_torn_body_leaves_the_answer_as_it_was() {
    let catalog = catalog();
    let group = catalog.group("live::host-v1").unwrap();
    let transcoder = Transcoder::new(group.current(), group.current(), &[2, 0]).unwrap();
    let body = [&[2, 2, 2, b'a', 0, 2][..], &1.0_f64.to_le_bytes()].concat();
    let mut out = b"kept".to_vec();
    for length in 0..body.len() {
        let outcome = transcoder.row(&body[..length], &mut out, &mut RowStatus::default());
        assert_eq!(outcome.unwrap_err().kind, Kind::Corrupt, "length {length}");
        assert_eq!(out, b"kept");
    }
    transcoder.row(&body, &mut out, &mut RowStatus::default()).unwrap();
    assert_eq!(out, br#"kept[1.0,["a"]]"#);
}
