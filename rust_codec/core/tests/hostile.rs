//! Random, torn and swollen bytes at every entry point: an error or an answer, never a panic, and
//! never more output than the input can stand for.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is a failed test"
)]

mod support;

use std::sync::{Arc, LazyLock};

use headrace_codec::block::{self, Block};
use headrace_codec::catalog::Group;
use headrace_codec::cell::Cell;
use headrace_codec::cursor::write_varint;
use headrace_codec::error::Kind;
use headrace_codec::fold::{fold, upgrade};
use headrace_codec::format::{LIST_ITEMS_MAX, TEXT_BYTES_MAX};
use headrace_codec::schema::{Field, FieldType, Scalar};
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::Transcoder;
use proptest::prelude::*;
use support::{SCALARS, Values, any_record, body_of, field, group, schema, sealed};

/// One field of every type, each nullable and not.
fn everything() -> Vec<Field> {
    let scalars = SCALARS.map(FieldType::Scalar);
    let lists = SCALARS.map(FieldType::List);
    let all = scalars.into_iter().chain(lists).chain([FieldType::Vector(3)]);
    all.flat_map(|it| [(it, false), (it, true)])
        .zip(1_u16..)
        .map(|((field_type, nullable), id)| field(id, field_type, nullable))
        .collect()
}

/// The group of [`everything`], then one of each of its fields alone.
static GROUPS: LazyLock<Vec<Arc<Group>>> = LazyLock::new(|| {
    let alone = everything().into_iter().map(|field| vec![field]);
    std::iter::once(everything()).chain(alone).map(|fields| group(&[fields], Some(1))).collect()
});

/// Longest JSON text of one body byte: a one-byte timestamp prints up to 33 characters.
const TEXT_PER_BYTE: usize = 34;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let group = &GROUPS[0];
        prop_assert!(Cell::open(&bytes).is_err());
        prop_assert!(Block::open_of_any_key(&bytes, group).is_err());
        prop_assert!(fold(group, [(0, &*bytes)], None, 0).is_err());
    }

    #[test]
    fn random_bodies_under_a_good_checksum_are_an_error_or_an_answer(
        body in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..5], 0..300),
        pick in any::<prop::sample::Index>(),
    ) {
        for group in [&GROUPS[0], pick.get(&GROUPS)] {
            let current = group.current();
            let transcoder = Transcoder::new(current, current, &[0]).unwrap();
            let (mut out, mut status) = (Vec::new(), RowStatus::default());
            let outcome = transcoder.row(&body, &mut out, &mut status);
            prop_assert_eq!(outcome.is_ok(), Values::of(current, &body).is_ok());
            prop_assert!(out.len() <= body.len() * TEXT_PER_BYTE + 64);
            prop_assert!(outcome.is_ok() || out.is_empty());
            let cell = sealed(1, current.fingerprint, &body);
            let patch = sealed(2, current.patch_fingerprints[0], &body);
            let _ = fold(group, [(0, &*cell), (1, &*patch)], None, 0);
            let _ = upgrade(group, current.fingerprint, &body, Some(&[0]));
        }
    }

    #[test]
    fn a_good_body_with_bytes_changed_is_an_error_or_an_answer(
        (fields, values) in any_record(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = body_of(&fields, &values);
        if !body.is_empty() {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let schema = schema(fields);
        let requested: Vec<usize> = (0..schema.fields.len()).collect();
        let transcoder = Transcoder::new(&schema, &schema, &requested).unwrap();
        let (mut out, mut status) = (Vec::new(), RowStatus::default());
        let outcome = transcoder.row(&body, &mut out, &mut status);
        prop_assert_eq!(outcome.is_ok(), Values::of(&schema, &body).is_ok());
        if outcome.is_ok() {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        }
    }

    #[test]
    fn blocks_of_random_events_open_or_fail(
        count in any::<u16>(),
        rest in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        // A History block sealed over rubbish: the checksum holds, the layout may not.
        let group = &GROUPS[0];
        let event = block::Event { event_time_ms: 1, fingerprint: 2, body: &rest };
        let mut bytes = block::seal_history(9, [event]).unwrap();
        bytes[30..32].copy_from_slice(&count.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..2]), &bytes[6..]);
        bytes[2..6].copy_from_slice(&checksum.to_le_bytes());
        let opened = Block::open(&bytes, 9, group);
        prop_assert_eq!(opened.is_ok(), count == 1);
    }
}

fn refusal(field_type: FieldType, body: &[u8]) -> Kind {
    let schema = schema(vec![field(1, field_type, false)]);
    let transcoder = Transcoder::new(&schema, &schema, &[0]).unwrap();
    let mut out = Vec::new();
    let error = transcoder.row(body, &mut out, &mut RowStatus::default()).unwrap_err();
    assert_eq!(Values::of(&schema, body).unwrap_err().kind, error.kind);
    assert!(error.offset.is_some());
    assert!(out.is_empty());
    error.kind
}

fn varint(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, value);
    out
}

#[test]
fn a_list_that_claims_more_items_than_bytes_is_refused_before_any_work() {
    let body = [varint(i64::MAX), vec![0; 64]].concat();
    assert_eq!(refusal(FieldType::List(Scalar::Boolean), &body), Kind::Corrupt);
    let body = [varint(i64::MIN), vec![0; 64]].concat();
    assert_eq!(refusal(FieldType::List(Scalar::Boolean), &body), Kind::Corrupt);
}

#[test]
fn a_list_beyond_the_item_limit_is_refused_even_in_many_blocks() {
    let block = [varint(30_000), vec![0; 30_000]].concat();
    let body = [block.repeat(3), vec![0]].concat();
    const { assert!(3 * 30_000 > LIST_ITEMS_MAX) };
    assert_eq!(refusal(FieldType::List(Scalar::Boolean), &body), Kind::Corrupt);
}

#[test]
fn a_text_beyond_the_limit_is_refused() {
    let length = i64::try_from(TEXT_BYTES_MAX + 1).unwrap();
    let body = [varint(length), vec![b'a'; TEXT_BYTES_MAX + 1]].concat();
    assert_eq!(refusal(FieldType::Scalar(Scalar::Text), &body), Kind::Corrupt);
}

#[test]
fn text_that_is_not_utf_8_is_refused_wherever_it_stands() {
    for bad in [&b"\xFF"[..], b"\xC3", b"\xED\xA0\x80", b"\xF4\x90\x80\x80", b"\xC0\xAF"] {
        for place in [0, 7, 15, 16, 31, 40] {
            let mut text = vec![b'a'; place];
            text.extend_from_slice(bad);
            let body = [varint(i64::try_from(text.len()).unwrap()), text].concat();
            assert_eq!(refusal(FieldType::Scalar(Scalar::Text), &body), Kind::Corrupt);
        }
    }
}

#[test]
fn a_vector_of_another_length_is_refused() {
    for items in [0_i64, 2, 4] {
        let floats = vec![0; usize::try_from(items).unwrap() * 4];
        let body = if items == 0 { vec![0] } else { [varint(items), floats, vec![0]].concat() };
        assert_eq!(refusal(FieldType::Vector(3), &body), Kind::Corrupt, "{items}");
    }
}

#[test]
fn numbers_that_are_too_long_for_their_type_are_refused() {
    let long = FieldType::Scalar(Scalar::Long);
    assert_eq!(refusal(long, &[0xFF; 11]), Kind::Corrupt);
    let ten_bytes_too_many_bits = [&[0xFF; 9][..], &[2]].concat();
    assert_eq!(refusal(long, &ten_bytes_too_many_bits), Kind::Corrupt);
    let body = varint(i64::from(i32::MAX) + 1);
    assert_eq!(refusal(FieldType::Scalar(Scalar::Integer), &body), Kind::Corrupt);
    assert_eq!(refusal(FieldType::Scalar(Scalar::Date), &body), Kind::Corrupt);
    assert_eq!(refusal(FieldType::Scalar(Scalar::Boolean), &[2]), Kind::Corrupt);
}

#[test]
fn array_blocks_with_a_byte_size_read_as_the_specification_says() {
    let schema = schema(vec![field(1, FieldType::List(Scalar::Long), false)]);
    let body =
        [varint(-2), varint(2), varint(1), varint(2), varint(1), varint(3), vec![0]].concat();
    let transcoder = Transcoder::new(&schema, &schema, &[0]).unwrap();
    let mut out = Vec::new();
    transcoder.row(&body, &mut out, &mut RowStatus::default()).unwrap();
    assert_eq!(out, b"[[1,2,3]]");
}
