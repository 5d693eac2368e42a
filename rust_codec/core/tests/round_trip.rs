//! What goes in comes out, bit by bit, whatever the type, the order asked for and the layout.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is a failed test"
)]

mod support;

use base64::Engine as _;
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::{Options, Transcoder, Unwritten};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::Value as Json;
use support::{Value, Values, any_record, any_type, any_value, body_of, default_of, field, schema};

/// Whether printed JSON stands for the value: numbers must read back to the same bits.
fn stands_for(shown: &Json, value: &Value) -> bool {
    match value {
        Value::Null => shown.is_null(),
        Value::Boolean(value) => shown == value,
        Value::Integer(value) => shown.as_i64() == Some(i64::from(*value)),
        Value::Long(value) => shown.as_i64() == Some(*value),
        Value::Float(bits) if !f32::from_bits(*bits).is_finite() => shown.is_null(),
        Value::Float(bits) => {
            shown.to_string().parse::<f32>().is_ok_and(|it| it.to_bits() == *bits)
        }
        Value::Double(bits) if !f64::from_bits(*bits).is_finite() => shown.is_null(),
        Value::Double(bits) => shown.as_f64().is_some_and(|it| it.to_bits() == *bits),
        Value::Text(value) => shown == value,
        Value::Bytes(value) => shown == &base64::engine::general_purpose::STANDARD.encode(value),
        Value::Date(_) => shown.as_str().is_some_and(|it| it.len() >= 10),
        Value::Timestamp(_) => shown.as_str().is_some_and(|it| it.ends_with('Z')),
        Value::List(items) => shown.as_array().is_some_and(|shown| {
            shown.len() == items.len()
                && shown.iter().zip(items).all(|(shown, item)| stands_for(shown, item))
        }),
    }
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(bits) => f32::from_bits(*bits).is_finite(),
        Value::Double(bits) => f64::from_bits(*bits).is_finite(),
        Value::List(items) => items.iter().all(is_finite),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn decoding_gives_back_every_bit((fields, values) in any_record()) {
        let body = body_of(&fields, &values);
        prop_assert_eq!(Values::of(&schema(fields), &body).unwrap(), values);
    }

    #[test]
    fn json_holds_the_same_values_in_the_order_asked_for(
        (fields, values) in any_record(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let requested: Vec<usize> = picks.iter().map(|pick| pick.index(fields.len())).collect();
        let body = body_of(&fields, &values);
        let schema = schema(fields);
        let transcoder = Transcoder::new(&schema, &schema, &requested).unwrap();
        let (mut out, mut status) = (b"before".to_vec(), RowStatus::default());
        transcoder.row(&body, &mut out, &mut status).unwrap();
        let shown: Vec<Json> = serde_json::from_slice(&out[6..]).unwrap();
        prop_assert_eq!(shown.len(), requested.len());
        for (index, (shown, position)) in shown.iter().zip(&requested).enumerate() {
            let value = &values[*position];
            prop_assert!(stands_for(shown, value), "{} for {:?}", shown, value);
            prop_assert_eq!(status.not_finite.contains(index), !is_finite(value));
        }
        prop_assert!(status.defaulted.is_empty());
    }

    #[test]
    fn all_layouts_print_the_same_values((fields, values) in any_record()) {
        let body = body_of(&fields, &values);
        let requested: Vec<usize> = (0..fields.len()).rev().collect();
        let schema = schema(fields);
        let transcoder = Transcoder::new(&schema, &schema, &requested).unwrap();
        let mut status = RowStatus::default();
        let (mut row, mut event, mut object) = (Vec::new(), Vec::new(), Vec::new());
        transcoder.row(&body, &mut row, &mut status).unwrap();
        transcoder.event(-5, &body, &mut event, &mut status).unwrap();
        transcoder.object(&body, &mut object, &mut status).unwrap();
        prop_assert_eq!(&event[..], &[&b"[-5,"[..], &row[1..]].concat()[..]);
        let object: serde_json::Map<String, Json> = serde_json::from_slice(&object).unwrap();
        let names: Vec<&String> = object.keys().collect();
        let wanted: Vec<&String> =
            requested.iter().map(|position| &schema.fields[*position].name).collect();
        prop_assert_eq!(names, wanted);
        let row_values: Vec<Json> = serde_json::from_slice(&row).unwrap();
        prop_assert_eq!(object.into_values().collect::<Vec<_>>(), row_values);
        let (mut texts, mut ends) = (Vec::new(), Vec::new());
        transcoder.values(&body, None, &mut texts, &mut ends, &mut status).unwrap();
        let mut joined = vec![b'['];
        let mut start = 0;
        for end in ends {
            if start > 0 {
                joined.push(b',');
            }
            joined.extend_from_slice(&texts[start..end]);
            start = end;
        }
        joined.push(b']');
        prop_assert_eq!(joined, row);
    }

    #[test]
    fn the_quick_walk_and_the_plain_one_print_the_same(
        (fields, values) in any_record(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
        written in proptest::option::of(any::<[u8; 2]>()),
        sorted in any::<bool>(),
        options in (any::<bool>(), any::<bool>()),
    ) {
        let mut requested: Vec<usize> = picks.iter().map(|pick| pick.index(fields.len())).collect();
        if sorted {
            requested.sort_unstable();
            requested.dedup();
        }
        let body = body_of(&fields, &values);
        let schema = schema(fields);
        let unwritten = if options.1 { Unwritten::Null } else { Unwritten::Default };
        let options = Options { int64_as_text: options.0, unwritten, ..Options::default() };
        let quick = Transcoder::with_options(&schema, &schema, &requested, options).unwrap();
        let plain = quick.clone().plainly();
        let mut outcomes = Vec::new();
        for transcoder in [quick, plain] {
            let (mut out, mut ends, mut status) = (vec![b' '], vec![7], RowStatus::default());
            let written = written.as_ref().map(|bits| &bits[..]);
            transcoder.folded_row(&body, written, &mut out, &mut status).unwrap();
            transcoder.event(i64::MIN, &body, &mut out, &mut status).unwrap();
            transcoder.object(&body, &mut out, &mut status).unwrap();
            transcoder.values(&body, written, &mut out, &mut ends, &mut status).unwrap();
            outcomes.push((String::from_utf8(out).unwrap(), ends, status));
        }
        prop_assert_eq!(&outcomes[0], &outcomes[1]);
    }

    #[test]
    fn every_truncation_of_a_body_is_an_error((fields, values) in any_record()) {
        let body = body_of(&fields, &values);
        let schema = schema(fields);
        let transcoder = Transcoder::new(&schema, &schema, &[0]).unwrap();
        for length in 0..body.len() {
            prop_assert!(Values::of(&schema, &body[..length]).is_err());
            let mut out = b"kept".to_vec();
            let outcome = transcoder.row(&body[..length], &mut out, &mut RowStatus::default());
            prop_assert!(outcome.is_err());
            prop_assert_eq!(&out, b"kept");
        }
    }

    #[test]
    fn a_field_the_writer_lacks_answers_its_default(field_type in any_type(), other in any_type()) {
        let writer = schema(vec![field(1, other, false)]);
        let current = schema(vec![field(2, field_type, false), field(3, field_type, true)]);
        let transcoder = Transcoder::new(&writer, &current, &[1, 0]).unwrap();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let value = any_value(other, false).new_tree(&mut runner).unwrap().current();
        let (mut out, mut status) = (Vec::new(), RowStatus::default());
        transcoder.row(&body_of(&writer.fields, &[value]), &mut out, &mut status).unwrap();
        let shown: Json = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(shown, Json::Array(vec![Json::Null, default_of(field_type)]));
        prop_assert_eq!(status.defaulted.positions().collect::<Vec<_>>(), vec![0, 1]);
    }
}
