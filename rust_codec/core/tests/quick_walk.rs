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

/// A value of any type: a null or nothing special, then what the draw says.
fn push_value(body: &mut Vec<u8>, field_type: FieldType, nullable: bool, draw: u64) {
    if nullable {
        let null = draw.is_multiple_of(5);
        body.push(if null { 0 } else { 2 });
        if null {
            return;
        }
    }
    let items = match field_type {
        FieldType::Scalar(scalar) => return push_scalar(body, scalar, draw),
        FieldType::List(_) => draw % 4,
        FieldType::Vector(size) => u64::from(size),
    };
    let item = if let FieldType::List(item) = field_type { item } else { Scalar::Float };
    if items > 0 {
        write_varint(body, items as i64);
        (0..items).for_each(|at| push_scalar(body, item, draw >> at));
    }
    body.push(0);
}

fn push_scalar(body: &mut Vec<u8>, scalar: Scalar, draw: u64) {
    let long = (draw as i64) >> (draw % 64);
    match scalar {
        Scalar::Boolean => body.push((draw % 2) as u8),
        Scalar::Integer | Scalar::Date => write_varint(body, i64::from(long as i16)),
        Scalar::Long => write_varint(body, long),
        Scalar::Timestamp => write_varint(body, i64::from(long as i32)),
        Scalar::Float => body.extend_from_slice(&(long as f32 / 8.0).to_le_bytes()),
        Scalar::Double => body.extend_from_slice(&(long as f64 / 1000.0).to_le_bytes()),
        Scalar::Text => push_text(body, &"tex\"t é".repeat((draw % 5) as usize)),
        Scalar::Bytes => push_text(body, "bytes"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wide_records_print_alike_in_any_order_and_partly_written(
        types in proptest::collection::vec(any_type(), 60..150),
        draws in proptest::collection::vec(any::<u64>(), 150),
        order in Just((0..150_usize).collect::<Vec<_>>()).prop_shuffle(),
        asked in 1..150_usize,
        written in proptest::collection::vec(any::<u8>(), 19),
        nullable: bool,
    ) {
        let schema = schema(&types.iter().map(|it| match it {
            FieldType::Scalar(Scalar::Bytes | Scalar::Date | Scalar::Timestamp) => TEXT,
            other => *other,
        }).collect::<Vec<_>>(), nullable);
        let mut body = Vec::new();
        for (field, draw) in schema.fields.iter().zip(draws) {
            push_value(&mut body, field.field_type, nullable, draw);
        }
        let within = order.into_iter().filter(|position| *position < types.len());
        let mut order: Vec<usize> = within.take(asked).collect();
        for sorted in [false, true] {
            if sorted {
                order.sort_unstable();
            }
            prop_assert!(printed(&schema, &order, &body).is_some());
            let quick = Transcoder::new(&schema, &schema, &order).unwrap();
            let both = [quick.clone().plainly(), quick].map(|transcoder| {
                let (mut out, mut status) = (Vec::new(), RowStatus::default());
                transcoder.folded_row(&body, Some(&written), &mut out, &mut status).unwrap();
                (out, status)
            });
            prop_assert_eq!(&both[0], &both[1]);
        }
    }
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
