#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails it")]

use super::*;
use crate::text;
use proptest::prelude::*;

fn field(field_type: &str, nullable: bool) -> Field {
    Field {
        id: 1,
        name: "field".to_owned(),
        field_type: FieldType::parse(field_type).unwrap(),
        nullable,
        default: serde_json::Value::Null,
    }
}

fn encode(field_type: &str, text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut reader = Reader::new(text.as_bytes())?;
    encode_json(&mut reader, &field(field_type, false), &mut out)?;
    reader.finish()?;
    Ok(out)
}

fn varint(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, value);
    out
}

#[test]
fn every_type_becomes_the_avro_of_the_specification() {
    let cases: [(&str, &str, Vec<u8>); 22] = [
        ("Boolean", "true", vec![1]),
        ("Integer", "-2147483648", varint(i64::from(i32::MIN))),
        ("Long", "-64", vec![0x7F]),
        ("Long", "9223372036854775807", varint(i64::MAX)),
        ("Float", "0.1", 0.1_f32.to_le_bytes().to_vec()),
        ("Float", "3", 3.0_f32.to_le_bytes().to_vec()),
        ("Double", "-0.0", (-0.0_f64).to_le_bytes().to_vec()),
        ("Double", "7", 7.0_f64.to_le_bytes().to_vec()),
        ("Text", r#""""#, vec![0]),
        ("Text", r#""foo""#, vec![6, 0x66, 0x6F, 0x6F]),
        ("Text", r#""\u00e9\n""#, vec![6, 0xC3, 0xA9, 0x0A]),
        ("Bytes", r#""""#, vec![0]),
        ("Bytes", r#""AP8=""#, vec![4, 0x00, 0xFF]),
        ("Date", r#""1970-01-01""#, vec![0]),
        ("Date", r#""2026-11-24""#, varint(20_781)),
        ("Timestamp", r#""1970-01-01T00:00:00.000001Z""#, vec![2]),
        ("Timestamp", r#""2026-11-24T23:00:00.000000Z""#, varint(1_795_561_200_000_000)),
        ("List<Long>", "[]", vec![0]),
        ("List<Long>", "[1,-1]", vec![4, 2, 1, 0]),
        ("List<Text>", r#"["a","b"]"#, vec![4, 2, 0x61, 2, 0x62, 0]),
        ("List<Date>", r#"["1970-01-02"]"#, vec![2, 2, 0]),
        (
            "Vector<2>",
            "[1, 0.5]",
            [&[4][..], &1.0_f32.to_le_bytes(), &0.5_f32.to_le_bytes(), &[0]].concat(),
        ),
    ];
    for (field_type, text, expected) in cases {
        assert_eq!(encode(field_type, text), Ok(expected), "{field_type} {text}");
    }
}

#[test]
fn what_is_no_value_of_the_type_is_refused() {
    for (field_type, text, kind) in [
        ("Boolean", "1", Kind::WrongType),
        ("Boolean", r#""true""#, Kind::WrongType),
        ("Integer", "2147483648", Kind::OutOfRange),
        ("Integer", "1.0", Kind::WrongType),
        ("Long", "1e3", Kind::WrongType),
        ("Long", r#""1""#, Kind::WrongType),
        ("Long", "9223372036854775808", Kind::OutOfRange),
        ("Float", "3.5e38", Kind::OutOfRange),
        ("Float", r#""NaN""#, Kind::WrongType),
        ("Double", "NaN", Kind::Json),
        ("Double", "1e999", Kind::OutOfRange),
        ("Text", "1", Kind::WrongType),
        ("Text", "null", Kind::NullNotAllowed),
        ("Bytes", r#""AP8""#, Kind::WrongType),
        ("Bytes", r#""AP9=""#, Kind::WrongType),
        ("Bytes", r#""A_8=""#, Kind::WrongType),
        ("Bytes", r#""AP8= ""#, Kind::WrongType),
        ("List<Long>", "1", Kind::WrongType),
        ("List<Long>", "[null]", Kind::WrongType),
        ("List<Long>", "[[1]]", Kind::WrongType),
        ("Vector<2>", "[1]", Kind::WrongType),
        ("Vector<2>", "[1,2,3]", Kind::TooLarge),
        ("Vector<2>", "[1,1e39]", Kind::OutOfRange),
    ] {
        let error = encode(field_type, text).unwrap_err();
        assert_eq!(error.kind, kind, "{field_type} {text}: {error}");
    }
}

#[test]
fn dates_and_timestamps_have_one_form() {
    for text in [
        "2026-11-4",
        "2026-13-01",
        "2026-00-10",
        "2026-02-29",
        "1900-02-29",
        "2026-04-31",
        "2026-11-00",
        "0000-01-01",
        "10000-01-01",
        "+026-11-24",
        "2026/11/24",
        " 2026-11-24",
        "2026-11-24T00:00:00Z",
        "20261124",
        "２０26-11-24",
        "",
    ] {
        assert_eq!(parse_date(text), None, "{text}");
    }
    for text in [
        "2026-11-24",
        "2026-11-24T23:00Z",
        "2026-11-24 23:00:00Z",
        "2026-11-24T23:00:00",
        "2026-11-24T23:00:00+00:00",
        "2026-11-24T24:00:00Z",
        "2026-11-24T23:60:00Z",
        "2026-11-24T23:59:60Z",
        "2026-11-24T23:00:00.Z",
        "2026-11-24T23:00:00.1234567Z",
        "2026-11-24t23:00:00z",
        "2026-11-24T23:00:00.+1Z",
        "2026-11-24T-1:00:00Z",
        "",
    ] {
        assert_eq!(parse_timestamp(text), None, "{text}");
    }
    assert_eq!(parse_date("0001-01-01"), Some(DATE_MIN_DAYS));
    assert_eq!(parse_date("9999-12-31"), Some(DATE_MAX_DAYS));
    assert_eq!(parse_date("2000-02-29"), Some(11_016));
    assert_eq!(parse_timestamp("1969-12-31T23:59:59.999999Z"), Some(-1));
    for text in ["2026-11-24T23:00:00.5Z", "2026-11-24T23:00:00.50Z", "2026-11-24T23:00:00.500000Z"]
    {
        assert_eq!(parse_timestamp(text), Some(1_795_561_200_500_000), "{text}");
    }
    assert_eq!(parse_timestamp("2026-11-24T23:00:00Z"), Some(1_795_561_200_000_000));
}

#[test]
fn days_count_up_one_by_one_over_all_years() {
    let mut days = DATE_MIN_DAYS;
    for year in 1..=9999 {
        for month in 1..=12 {
            for day in 1..=days_of_month(year, month).unwrap() {
                assert_eq!(days_from_civil(year, month, day), Some(days));
                days += 1;
            }
        }
    }
    assert_eq!(days, DATE_MAX_DAYS + 1);
}

#[test]
fn a_nullable_field_takes_null_and_marks_its_branch() {
    let nullable = field("Long", true);
    for (text, expected) in [("null", vec![0]), ("-1", vec![2, 1])] {
        let mut out = Vec::new();
        encode_json(&mut Reader::new(text.as_bytes()).unwrap(), &nullable, &mut out).unwrap();
        assert_eq!(out, expected);
    }
}

#[test]
fn an_error_names_its_item_and_byte() {
    let error = encode("List<Long>", "[1, 2, true]").unwrap_err();
    assert_eq!((error.path().as_str(), error.offset), ("2", Some(7)));
    assert_eq!(error.message, "a Long was expected, got a boolean");
    let error = encode("Vector<3>", "[1,2]").unwrap_err();
    assert_eq!(error.message, "a Vector<3> has exactly 3 items, got 2");
}

#[test]
fn values_beyond_the_limits_are_refused() {
    let text = |length: usize| format!("\"{}\"", "a".repeat(length));
    assert!(encode("Text", &text(TEXT_BYTES_MAX)).is_ok());
    assert_eq!(encode("Text", &text(TEXT_BYTES_MAX + 1)).unwrap_err().kind, Kind::TooLarge);
    let escaped = format!("\"\\n{}\"", "a".repeat(TEXT_BYTES_MAX));
    assert_eq!(encode("Text", &escaped).unwrap_err().kind, Kind::TooLarge);
    let long = format!("\"{}\"", "AAAA".repeat(TEXT_BYTES_MAX / 3 + 1));
    assert_eq!(encode("Bytes", &long).unwrap_err().kind, Kind::TooLarge);
    let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    assert!(encode("List<Long>", &list(LIST_ITEMS_MAX)).is_ok());
    assert_eq!(encode("List<Long>", &list(LIST_ITEMS_MAX + 1)).unwrap_err().kind, Kind::TooLarge);
}

#[test]
fn defaults_are_encoded_like_values() {
    let mut with_default = field("List<Float>", false);
    with_default.default = serde_json::json!([0.5]);
    let expected = [&[2][..], &0.5_f32.to_le_bytes(), &[0]].concat();
    assert_eq!(encode_default(&with_default), Ok(expected));
    let mut wrong = field("Long", false);
    wrong.default = serde_json::json!("zero");
    let error = encode_default(&wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the default is no `Long`: a Long was expected, got a string in `field`"
    );
    assert_eq!(encode_default(&field("Long", true)), Ok(vec![0]));
    assert!(encode_default(&field("Long", false)).is_err());
}

proptest! {
    #[test]
    fn texts_are_their_bytes_with_a_length(text: String) {
        let quoted = serde_json::to_string(&text).unwrap();
        let expected = [varint(i64::try_from(text.len()).unwrap()), text.into_bytes()].concat();
        prop_assert_eq!(encode("Text", &quoted), Ok(expected));
    }

    #[test]
    fn base64_is_decoded_behind_its_length(bytes: Vec<u8>) {
        let quoted = format!("\"{}\"", STANDARD.encode(&bytes));
        let expected = [varint(i64::try_from(bytes.len()).unwrap()), bytes].concat();
        prop_assert_eq!(encode("Bytes", &quoted), Ok(expected));
    }

    #[test]
    fn timestamps_of_any_fraction_are_exact(days in DATE_MIN_DAYS..=DATE_MAX_DAYS, of_day in 0..DAY_MICROS) {
        let (mut year, mut month) = (1, 1);
        while days_from_civil(year + 1, 1, 1).is_some_and(|first| first <= days) { year += 1; }
        while month < 12 && days_from_civil(year, month + 1, 1).is_some_and(|first| first <= days) { month += 1; }
        let day = days - days_from_civil(year, month, 1).unwrap() + 1;
        let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
        let text = format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            seconds / 3600, seconds / 60 % 60, seconds % 60
        );
        prop_assert_eq!(parse_timestamp(&text), Some(days * DAY_MICROS + of_day), "{}", text);
        prop_assert_eq!(parse_date(&text[..10]), Some(days));
    }

    #[test]
    fn whatever_answers_print_is_taken_back(
        float: f32,
        double: f64,
        text: String,
        bytes: Vec<u8>,
        days in DATE_MIN_DAYS..=DATE_MAX_DAYS,
        of_day in 0..DAY_MICROS,
    ) {
        prop_assume!(float.is_finite() && double.is_finite());
        let printed = |push: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            push(&mut out);
            String::from_utf8(out).unwrap()
        };
        let shown = printed(&|out| assert!(text::push_float(out, float)));
        prop_assert_eq!(encode("Float", &shown), Ok(float.to_le_bytes().to_vec()));
        let shown = printed(&|out| assert!(text::push_double(out, double)));
        prop_assert_eq!(encode("Double", &shown), Ok(double.to_le_bytes().to_vec()));
        let shown = printed(&|out| text::push_text(out, &text));
        let expected = [&varint(i64::try_from(text.len()).unwrap())[..], text.as_bytes()].concat();
        prop_assert_eq!(encode("Text", &shown), Ok(expected));
        let shown = printed(&|out| text::push_base64(out, &bytes));
        let expected = [&varint(i64::try_from(bytes.len()).unwrap())[..], &bytes].concat();
        prop_assert_eq!(encode("Bytes", &shown), Ok(expected));
        let shown = printed(&|out| text::push_date(out, i32::try_from(days).unwrap()));
        prop_assert_eq!(encode("Date", &shown), Ok(varint(days)));
        for micros in [days * DAY_MICROS + of_day, days * DAY_MICROS] {
            let shown = printed(&|out| text::push_timestamp(out, micros));
            prop_assert_eq!(encode("Timestamp", &shown), Ok(varint(micros)));
        }
    }

    #[test]
    fn random_texts_never_panic(text in r#"[\[\]{}:,"\\a-zA-Z0-9.+\-=]{0,40}"#) {
        for name in ["Boolean", "Integer", "Float", "Text", "Bytes", "Date", "Timestamp", "List<Text>", "Vector<2>"] {
            let _ = encode(name, &text);
            let _ = encode(name, &format!("\"{text}\""));
        }
    }
}
