//! What the quick walk prints is what the plain walk prints: texts with what must be escaped at
//! every place of the chunks they are scanned in, numbers, lists and bodies that end anywhere.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a panic is a failed test"
)]

use headrace_codec::cursor::write_varint;
use headrace_codec::schema::{Field, FieldType, RecordSchema, Scalar};
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::Transcoder;
use proptest::prelude::*;

fn schema(types: &[FieldType], nullable: bool) -> RecordSchema {
    let fields = types.iter().zip(1..).map(|(field_type, id)| Field {
        id,
        name: format!("field_{id}"),
        field_type: *field_type,
        nullable,
        default: match (nullable, field_type) {
            (true, _) => serde_json::Value::Null,
            (false, FieldType::Scalar(Scalar::Text)) => "".into(),
            (false, FieldType::Scalar(Scalar::Boolean)) => false.into(),
            (false, FieldType::Scalar(_)) => 0.into(),
            (false, FieldType::List(_)) => serde_json::json!([]),
            (false, FieldType::Vector(size)) => vec![0.0; *size as usize].into(),
        },
    });
    RecordSchema::new("live::quick", 1, fields.collect()).unwrap()
}

/// The row and the object that both walks print; they must be equal.
fn printed(schema: &RecordSchema, order: &[usize], body: &[u8]) -> Option<(String, String)> {
    let quick = Transcoder::new(schema, schema, order).unwrap();
    let plain = quick.clone().plainly();
    let both = [&quick, &plain].map(|transcoder| {
        let (mut row, mut object, mut bare) = (b"before".to_vec(), Vec::new(), Vec::new());
        let (mut event, mut ends, mut status) = (Vec::new(), Vec::new(), RowStatus::default());
        let rows = transcoder.row(body, &mut row, &mut status).ok();
        let objects = transcoder.object(body, &mut object, &mut status).ok();
        let bares = transcoder.values(body, None, &mut bare, &mut ends, &mut status).ok();
        let events = transcoder.event(-7, body, &mut event, &mut status).ok();
        (row, object, bare, event, ends, status, (rows, objects, bares, events))
    });
    assert_eq!(both[0], both[1], "{body:?}");
    let (row, object, .., outcome) = both.into_iter().next().unwrap();
    let shown = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    outcome.0.map(|()| (shown(row), shown(object)))
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    write_varint(body, i64::try_from(text.len()).unwrap());
    body.extend_from_slice(text.as_bytes());
}

const TEXT: FieldType = FieldType::Scalar(Scalar::Text);

#[test]
fn every_escape_at_every_place_of_a_text_prints_as_json() {
    let schema = schema(&[TEXT, TEXT], false);
    let escapes = (0..0x20).chain([0x22, 0x5C, 0x7F, 0xE9, 0x20AC, 0x1_F600]);
    for escape in escapes.map(|code| char::from_u32(code).unwrap()) {
        for before in 0..34 {
            for after in [0, 1, 15, 16, 17] {
                let text = format!("{}{escape}{}", "a".repeat(before), "b".repeat(after));
                let mut body = Vec::new();
                push_text(&mut body, &text);
                push_text(&mut body, &text);
                let (row, _) = printed(&schema, &[0, 1], &body).unwrap();
                let json = serde_json::to_string(&text).unwrap();
                assert_eq!(row, format!("before[{json},{json}]"));
            }
        }
    }
}

#[test]
fn texts_of_every_length_print_wherever_the_body_ends() {
    let schema = schema(&[TEXT, FieldType::Scalar(Scalar::Long)], true);
    for length in 0..70 {
        for tail in [None, Some(0), Some(-1), Some(1 << 40), Some(i64::MIN)] {
            let mut body = vec![2];
            push_text(&mut body, &"x".repeat(length));
            match tail {
                None => body.push(0),
                Some(value) => {
                    body.push(2);
                    write_varint(&mut body, value);
                }
            }
            let shown = tail.map_or("null".to_owned(), |value| value.to_string());
            let (row, object) = printed(&schema, &[0, 1], &body).unwrap();
            let text = "x".repeat(length);
            assert_eq!(row, format!("before[\"{text}\",{shown}]"));
            assert_eq!(object, format!("{{\"field_1\":\"{text}\",\"field_2\":{shown}}}"));
            for cut in 0..body.len() {
                assert_eq!(printed(&schema, &[0, 1], &body[..cut]), None);
            }
        }
    }
}

#[test]
fn a_hundred_thousand_numbers_read_back_as_they_were() {
    let schema =
        schema(&[FieldType::Scalar(Scalar::Double), FieldType::Scalar(Scalar::Long)], false);
    let mut state = 5_u64;
    for round in 0..100_000 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = match round % 3 {
            0 => f64::from_bits(state),
            1 => f64::from((state >> 40) as u32) / f64::from((state as u32 & 0xFFFF) + 1),
            _ => ((state >> 30) as f64) / 100.0,
        };
        let long = (state as i64) >> (state % 64);
        let mut body = value.to_le_bytes().to_vec();
        write_varint(&mut body, long);
        let (row, _) = printed(&schema, &[0, 1], &body).unwrap();
        let (double, integer) = row["before[".len()..row.len() - 1].split_once(',').unwrap();
        assert_eq!(integer, long.to_string());
        if value.is_finite() {
            assert_eq!(double.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{double}");
        } else {
            assert_eq!(double, "null");
        }
    }
}

fn any_type() -> impl Strategy<Value = FieldType> {
    let scalar = prop_oneof![
        Just(Scalar::Boolean),
        Just(Scalar::Integer),
        Just(Scalar::Long),
        Just(Scalar::Float),
        Just(Scalar::Double),
        Just(Scalar::Text),
        Just(Scalar::Bytes),
        Just(Scalar::Date),
        Just(Scalar::Timestamp),
    ];
    prop_oneof![
        scalar.clone().prop_map(FieldType::Scalar),
        scalar.prop_map(FieldType::List),
        (1..5_u32).prop_map(FieldType::Vector),
    ]
}

proptest! {
    #[test]
    fn any_bytes_under_any_schema_are_the_same_to_both_walks(
        types in proptest::collection::vec(any_type(), 1..6),
        bytes in proptest::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..80),
        nullable: bool,
    ) {
        let schema = schema(&types.iter().map(|it| match it {
            FieldType::Scalar(Scalar::Bytes | Scalar::Date | Scalar::Timestamp) => TEXT,
            other => *other,
        }).collect::<Vec<_>>(), nullable);
        let straight: Vec<usize> = (0..types.len()).collect();
        let reversed: Vec<usize> = straight.iter().rev().copied().collect();
        let first = printed(&schema, &straight, &bytes);
        prop_assert_eq!(first.is_some(), printed(&schema, &reversed, &bytes).is_some());
        printed(&schema, &straight[..1], &bytes);
    }
}
