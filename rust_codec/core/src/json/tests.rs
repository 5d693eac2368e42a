use super::*;
use proptest::prelude::*;

fn read<'a, T>(text: &'a [u8], take: impl FnOnce(&mut Reader<'a>) -> Result<T>) -> Result<T> {
    let mut reader = Reader::new(text)?;
    let value = take(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn string(text: &[u8]) -> Result<String> {
    read(text, |reader| reader.string().map(Cow::into_owned))
}

fn kind_and_offset<T>(result: Result<T>) -> Option<(Kind, Option<usize>)> {
    result.err().map(|error| (error.kind, error.offset))
}

#[test]
fn integers_are_exact_or_refused() {
    for (text, value) in [
        ("0", 0),
        ("-0", 0),
        (" 1001 ", 1001),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert_eq!(read(text.as_bytes(), Reader::integer), Ok(value), "{text}");
    }
    for (text, kind) in [
        ("1001.0", Kind::WrongType),
        ("1e3", Kind::WrongType),
        ("\"1001\"", Kind::WrongType),
        ("9223372036854775808", Kind::OutOfRange),
        ("-9223372036854775809", Kind::OutOfRange),
        ("99999999999999999999", Kind::OutOfRange),
        ("007", Kind::Json),
        ("+1", Kind::Json),
        ("1x", Kind::Json),
        ("1_000", Kind::Json),
        ("-", Kind::Json),
        ("", Kind::Json),
    ] {
        let error = read(text.as_bytes(), Reader::integer).unwrap_err();
        assert_eq!(error.kind, kind, "{text}: {error}");
    }
}

#[test]
fn ten_thousand_digits_are_refused_whatever_is_asked_for() {
    let digits = "9".repeat(10_000);
    for text in [digits.clone(), format!("0.{digits}"), format!("1e{digits}")] {
        let bytes = text.as_bytes();
        assert_eq!(read(bytes, Reader::number).unwrap_err().kind, Kind::OutOfRange);
        assert_eq!(read(bytes, Reader::skip).unwrap_err().kind, Kind::OutOfRange);
    }
    assert_eq!(read(digits.as_bytes(), Reader::integer).unwrap_err().kind, Kind::OutOfRange);
}

#[test]
fn floats_are_rounded_once_and_never_become_infinite() {
    assert_eq!(read(b"0.1", Reader::number_32), Ok(0.1_f32));
    assert_eq!(read(b"-0", Reader::number).map(f64::to_bits), Ok((-0.0_f64).to_bits()));
    assert_eq!(read(b"1e308", Reader::number), Ok(1e308));
    for text in ["1e309", "-1e400"] {
        assert_eq!(read(text.as_bytes(), Reader::number).unwrap_err().kind, Kind::OutOfRange);
    }
    assert_eq!(read(b"3.5e38", Reader::number_32).unwrap_err().kind, Kind::OutOfRange);
    // Halfway between two floats plus a little: through f64 it would round to the even one.
    let text = b"1.00000005960464477540";
    let twice = read(text, Reader::number).unwrap();
    let once = read(text, Reader::number_32).unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "double rounding is what is shown")]
    let rounded_twice = twice as f32;
    assert_ne!(once.to_bits(), rounded_twice.to_bits());
    for text in ["NaN", "Infinity", "1.", ".5", "1e", "1e+", "0x10", "1.2.3"] {
        assert_eq!(read(text.as_bytes(), Reader::number).unwrap_err().kind, Kind::Json);
    }
}

#[test]
fn strings_are_borrowed_or_unescaped() {
    assert_eq!(string(br#""plain""#), Ok("plain".to_owned()));
    assert_eq!(string(br#""a\"\\\/\b\f\n\r\t\u00e9""#), Ok("a\"\\/\u{8}\u{c}\n\r\té".to_owned()));
    assert_eq!(string(br#""\ud83d\ude00\uDBFF\uDFFF""#), Ok("😀\u{10FFFF}".to_owned()));
    assert_eq!(string("\"ß😀\"".as_bytes()), Ok("ß😀".to_owned()));
    let mut reader = Reader::new(br#""plain""#).unwrap();
    assert!(matches!(reader.string(), Ok(Cow::Borrowed("plain"))));
}

#[test]
fn broken_strings_are_refused_at_their_byte() {
    for (text, offset) in [
        (&b"\"\\ud800\""[..], 1),
        (b"\"ab\\udc00\"", 3),
        (b"\"\\ud800\\u0041\"", 1),
        (b"\"\\ud800\\ud800\"", 1),
        (b"\"\\u12g4\"", 1),
        (b"\"a\\x\"", 2),
        (b"\"a\nb\"", 2),
        (b"\"abc", 4),
        (b"\"abc\\", 5),
        (b"\"\xff\"", 1),
        (b"\"\xed\xa0\x80\"", 1),
        (b"\"\xc0\x80\"", 1),
    ] {
        let found = kind_and_offset(string(text));
        assert_eq!(found, Some((Kind::Json, Some(offset))), "{text:?}");
    }
}

#[test]
fn members_and_items_come_in_order_with_their_offsets() {
    let text = br#" { "a" : [ 1 , [] , {} ] , "b" : null } "#;
    let mut reader = Reader::new(text).unwrap();
    reader.begin_object().unwrap();
    assert_eq!(reader.next_member().unwrap().as_deref(), Some("a"));
    reader.begin_array().unwrap();
    assert!(reader.next_item().unwrap());
    assert_eq!(reader.integer(), Ok(1));
    assert!(reader.next_item().unwrap());
    let start = reader.offset();
    reader.skip().unwrap();
    assert_eq!(reader.text_since(start).trim(), "[]");
    assert!(reader.next_item().unwrap());
    reader.skip().unwrap();
    assert!(!reader.next_item().unwrap());
    assert_eq!(reader.next_member().unwrap().as_deref(), Some("b"));
    reader.null().unwrap();
    assert_eq!(reader.next_member().unwrap(), None);
    reader.finish().unwrap();
}

#[test]
fn a_guessed_name_is_taken_and_any_other_is_given() {
    let text = br#"{"a": 1 ,"ab":2, "a":3,"\u0061":4}"#;
    let mut reader = Reader::new(text).unwrap();
    reader.begin_object().unwrap();
    let mut found = Vec::new();
    loop {
        let member = reader.next_member_or("a").unwrap();
        if member == Member::Closed {
            break;
        }
        found.push((member, reader.integer().unwrap()));
    }
    let other = |name: &'static str| Member::Other(Cow::Borrowed(name));
    let expected = [(Member::Expected, 1), (other("ab"), 2), (other("a"), 3), (other("a"), 4)];
    assert_eq!(found, expected);
    reader.finish().unwrap();
    for text in ["{\"a\"1}", "{\"a\":1 \"a\":1}", "{\"a", "{\"a\""] {
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        let outcome = reader.begin_object().and_then(|()| {
            reader.next_member_or("a")?;
            reader.integer()?;
            reader.next_member_or("a").map(drop)
        });
        assert_eq!(outcome.unwrap_err().kind, Kind::Json, "{text}");
    }
}

#[test]
fn loose_json_is_refused() {
    for text in [
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\" 1}",
        "{a:1}",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
        "[1}",
        "{\"a\":1]",
        "tru",
        "nul",
        "falsehood",
        "truex",
        "[",
        "{",
        "{\"a\"",
        "{\"a\":",
        "1 1",
        "\u{feff}1",
        "'a'",
        "// c\n1",
        "\u{a0}1",
        "[1]]",
    ] {
        let error = read(text.as_bytes(), Reader::skip).unwrap_err();
        assert_eq!(error.kind, Kind::Json, "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(read(nested(JSON_DEPTH_MAX).as_bytes(), Reader::skip), Ok(()));
    let error = read(nested(JSON_DEPTH_MAX + 1).as_bytes(), Reader::skip).unwrap_err();
    assert_eq!((error.kind, error.offset), (Kind::Json, Some(JSON_DEPTH_MAX)));
    assert!(read("[".repeat(1_000_000).as_bytes(), Reader::skip).is_err());
    let wide = format!("[{}[]]", "[],".repeat(1000));
    assert_eq!(read(wide.as_bytes(), Reader::skip), Ok(()));
}

#[test]
fn a_mark_tells_a_member_that_stands_twice() {
    let mut seen = Seen::default();
    seen.reset(130);
    assert!(seen.mark(0) && seen.mark(129) && !seen.mark(129) && !seen.mark(999));
    assert!(seen.has(129) && !seen.has(128));
    seen.reset(130);
    assert!(!seen.has(129));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        any::<String>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_serde_json_writes_is_read_and_no_truncation_of_it(value in json()) {
        let text = serde_json::to_vec(&serde_json::json!([value])).unwrap();
        prop_assert_eq!(read(&text, Reader::skip), Ok(()));
        for length in 0..text.len() {
            prop_assert!(read(&text[..length], Reader::skip).is_err());
        }
    }

    #[test]
    fn the_reader_and_serde_json_agree_on_every_text(text in r#"[\[\]{}:,"\\a-f0-9.+\-eE \ntruls]{0,24}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        let ours = read(text.as_bytes(), Reader::skip);
        // serde_json refuses numbers that overflow a double; skipping leaves their size alone.
        let overflow = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        prop_assert!(overflow || ours.is_ok() == theirs.is_ok(), "{text}: {ours:?} {theirs:?}");
    }

    #[test]
    fn numbers_and_strings_round_trip(double: f64, float: f32, integer: i64, text: String) {
        prop_assume!(double.is_finite() && float.is_finite());
        let double_back = read(format!("{double:e}").as_bytes(), Reader::number).unwrap();
        prop_assert_eq!(double_back.to_bits(), double.to_bits());
        let float_back = read(format!("{float}").as_bytes(), Reader::number_32).unwrap();
        prop_assert_eq!(float_back.to_bits(), float.to_bits());
        prop_assert_eq!(read(integer.to_string().as_bytes(), Reader::integer), Ok(integer));
        let quoted = serde_json::to_vec(&text).unwrap();
        prop_assert_eq!(string(&quoted), Ok(text.clone()));
        let mut bytes = Vec::new();
        read(&quoted, |reader| reader.string_into(&mut bytes)).unwrap();
        prop_assert_eq!(bytes, text.into_bytes());
    }

    #[test]
    fn the_word_wise_scan_finds_what_a_byte_wise_scan_finds(bytes: Vec<u8>, quoted in 0_usize..40) {
        let mut bytes = bytes;
        bytes.retain(|byte| quoted % 2 == 0 || *byte >= b' ');
        if let Some(byte) = bytes.get_mut(quoted) {
            *byte = b'"';
        }
        let special = |byte: &u8| matches!(byte, b'"' | b'\\') || *byte < b' ';
        prop_assert_eq!(special_position(&bytes), bytes.iter().position(special));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = read(&bytes, Reader::skip);
        let _ = read(&bytes, Reader::integer);
        let _ = string(&bytes);
    }
}
