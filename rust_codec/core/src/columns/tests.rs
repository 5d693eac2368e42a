#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails it")]

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    FixedSizeListArray, Float32Array, Float64Array, Int16Array, Int64Array, LargeStringArray,
    ListArray, NullArray, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow_array::{BinaryArray, types::Int64Type};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::DataType;
use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::command::encode_commands;

const EVENT_MS: i64 = 1_700_000_000_000;
const NOW_MS: i64 = 1_700_000_100_000;

fn catalog(field_type: &str, nullable: bool, default: &str) -> Catalog {
    let document = format!(
        r#"{{"format":1,"generation":1,"groups":[{{"id":7,"name":"live::stat","feature_type":"Object",
        "keys":[{{"name":"id","type":"Text"}}],"max_events":100,"cache":{{"ttl_ms":0,"local_ttl_ms":0}},
        "schemas":[{{"ordinal":1,"fields":[{{"id":1,"name":"value","type":"{field_type}","nullable":{nullable},"default":{default}}}]}}]}}]}}"#
    );
    Catalog::from_json(document.as_bytes()).unwrap()
}

fn stream(columns: &[(&str, ArrayRef)]) -> Vec<u8> {
    let batch =
        RecordBatch::try_from_iter(columns.iter().map(|(name, array)| (*name, Arc::clone(array))))
            .unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn ids(count: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("k{row}"))))
}

fn encode(catalog: &Catalog, columns: &[(&str, ArrayRef)]) -> Result<BulkCommands> {
    let group = catalog.group("live::stat").unwrap();
    encode_columns(group, &stream(columns), Method::Update, EventTime::FixedMs(EVENT_MS))
}

/// The cells of the commands, which must equal those of JSON commands with these values.
fn assert_same_as_json(field_type: &str, array: &ArrayRef, values: &[&str]) {
    let nullable = values.contains(&"null");
    let default = if nullable { "null" } else { values[0] };
    let catalog = catalog(field_type, nullable, default);
    let commands = encode(&catalog, &[("value", Arc::clone(array)), ("id", ids(array.len()))])
        .unwrap_or_else(|error| panic!("{field_type} from {}: {error}", array.data_type()));
    let bulk = encode_commands(&catalog, commands.iter().map(|(_, command)| command), NOW_MS);
    let texts: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(row, value)| {
            format!(
                r#"{{"feature_name":"live::stat","method":"UPDATE","keys":{{"id":"k{row}"}},"values":{{"value":{value},"_last_updated_at_ms":{EVENT_MS}}}}}"#
            )
        })
        .collect();
    let json = encode_commands(&catalog, texts.iter().map(String::as_bytes), NOW_MS);
    assert_eq!((bulk.rejections(), json.rejections()), (&[][..], &[][..]), "{field_type}");
    let (bulk, json): (Vec<_>, Vec<_>) = (bulk.mutations().collect(), json.mutations().collect());
    assert_eq!(bulk, json, "{field_type} from {}", array.data_type());
    assert_eq!(bulk.len(), values.len());
}

#[test]
fn every_field_type_is_read_from_its_arrow_types() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), Some(-2)]),
        Some(vec![]),
    ]);
    let vector = FixedSizeListArray::from_iter_primitive::<arrow_array::types::Float32Type, _, _>(
        [Some([Some(0.5), Some(-1.0)]), Some([Some(0.1), Some(3.0)])],
        2,
    );
    let doubles = ListArray::from_iter_primitive::<arrow_array::types::Float64Type, _, _>([
        Some(vec![Some(0.5), Some(-1.0)]),
        Some(vec![Some(0.1), Some(3.0)]),
    ]);
    let dictionary: DictionaryArray<Int32Type> = ["x", "y", "x"].into_iter().collect();
    let sum = Decimal128Array::from(vec![12, -7]).with_precision_and_scale(38, 0).unwrap();
    let price = Decimal128Array::from(vec![1250, -5]).with_precision_and_scale(10, 2).unwrap();
    let cases: Vec<(&str, ArrayRef, Vec<&str>)> = vec![
        ("Boolean", Arc::new(BooleanArray::from(vec![true, false])), vec!["true", "false"]),
        ("Integer", Arc::new(Int16Array::from(vec![-5, 7])), vec!["-5", "7"]),
        ("Integer", Arc::new(Int64Array::from(vec![-5, 7])), vec!["-5", "7"]),
        ("Long", Arc::new(UInt64Array::from(vec![5, 1 << 62])), vec!["5", "4611686018427387904"]),
        ("Long", Arc::new(sum), vec!["12", "-7"]),
        ("Long", Arc::new(Int64Array::from(vec![Some(1), None])), vec!["1", "null"]),
        ("Long", Arc::new(NullArray::new(2)), vec!["null", "null"]),
        ("Float", Arc::new(Float32Array::from(vec![0.1, -0.0])), vec!["0.1", "-0.0"]),
        ("Float", Arc::new(Float64Array::from(vec![0.1, 1e-50])), vec!["0.1", "0"]),
        ("Double", Arc::new(Float64Array::from(vec![0.1, 1e300])), vec!["0.1", "1e300"]),
        ("Double", Arc::new(Float32Array::from(vec![0.5, 2.0])), vec!["0.5", "2"]),
        ("Double", Arc::new(Int64Array::from(vec![3, -4])), vec!["3", "-4"]),
        ("Double", Arc::new(price), vec!["12.5", "-0.05"]),
        ("Text", Arc::new(StringArray::from(vec!["", "é"])), vec!["\"\"", "\"é\""]),
        ("Text", Arc::new(LargeStringArray::from(vec!["a", "b"])), vec!["\"a\"", "\"b\""]),
        (
            "Text",
            Arc::new(StringViewArray::from(vec!["a", "longer than twelve bytes"])),
            vec!["\"a\"", "\"longer than twelve bytes\""],
        ),
        ("Text", Arc::new(dictionary), vec!["\"x\"", "\"y\"", "\"x\""]),
        ("Bytes", Arc::new(BinaryArray::from_vec(vec![&[0, 255], &[]])), vec!["\"AP8=\"", "\"\""]),
        (
            "Date",
            Arc::new(Date32Array::from(vec![0, 20_781])),
            vec!["\"1970-01-01\"", "\"2026-11-24\""],
        ),
        (
            "Timestamp",
            Arc::new(TimestampMicrosecondArray::from(vec![-1]).with_timezone("UTC")),
            vec!["\"1969-12-31T23:59:59.999999Z\""],
        ),
        (
            "Timestamp",
            Arc::new(TimestampSecondArray::from(vec![1])),
            vec!["\"1970-01-01T00:00:01Z\""],
        ),
        (
            "Timestamp",
            Arc::new(TimestampNanosecondArray::from(vec![1000])),
            vec!["\"1970-01-01T00:00:00.000001Z\""],
        ),
        ("List<Long>", Arc::new(list.clone()), vec!["[1,-2]", "[]"]),
        ("List<Long>", Arc::new(list.slice(1, 1)), vec!["[]"]),
        ("List<Double>", Arc::new(list), vec!["[1,-2]", "[]"]),
        ("Vector<2>", Arc::new(vector.clone()), vec!["[0.5,-1]", "[0.1,3]"]),
        ("Vector<2>", Arc::new(vector.slice(1, 1)), vec!["[0.1,3]"]),
        ("Vector<2>", Arc::new(doubles), vec!["[0.5,-1]", "[0.1,3]"]),
    ];
    for (field_type, array, values) in cases {
        assert_same_as_json(field_type, &array, &values);
    }
}

#[test]
fn a_value_that_does_not_fit_names_its_column_and_row() {
    let two_of_three = ListArray::from_iter_primitive::<arrow_array::types::Float32Type, _, _>([
        Some(vec![Some(1.0), Some(2.0), Some(3.0)]),
        Some(vec![Some(1.0), Some(2.0)]),
    ]);
    let holes = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1)]),
        Some(vec![Some(1), None]),
    ]);
    let cases: Vec<(&str, &str, ArrayRef, Kind, &str)> = vec![
        ("Integer", "0", Arc::new(Int64Array::from(vec![0, 1 << 31])), Kind::OutOfRange, "value.1"),
        ("Long", "0", Arc::new(UInt64Array::from(vec![0, u64::MAX])), Kind::OutOfRange, "value.1"),
        (
            "Long",
            "0",
            Arc::new(Int64Array::from(vec![Some(0), None])),
            Kind::NullNotAllowed,
            "value.1",
        ),
        ("Long", "0", Arc::new(Float64Array::from(vec![0.0, 1.0])), Kind::WrongType, "value"),
        ("Float", "0", Arc::new(Float64Array::from(vec![0.0, 1e39])), Kind::OutOfRange, "value.1"),
        (
            "Double",
            "0",
            Arc::new(Float64Array::from(vec![0.0, f64::NAN])),
            Kind::OutOfRange,
            "value.1",
        ),
        ("Text", "\"\"", Arc::new(Int64Array::from(vec![0, 1])), Kind::WrongType, "value"),
        (
            "Date",
            "\"2000-01-01\"",
            Arc::new(Date32Array::from(vec![0, i32::MAX])),
            Kind::OutOfRange,
            "value.1",
        ),
        (
            "Timestamp",
            "\"2000-01-01T00:00:00Z\"",
            Arc::new(TimestampNanosecondArray::from(vec![0, 1])),
            Kind::OutOfRange,
            "value.1",
        ),
        (
            "Timestamp",
            "\"2000-01-01T00:00:00Z\"",
            Arc::new(TimestampSecondArray::from(vec![0, i64::MAX])),
            Kind::OutOfRange,
            "value.1",
        ),
        ("Vector<3>", "[0,0,0]", Arc::new(two_of_three), Kind::WrongType, "value.1"),
        ("List<Long>", "[]", Arc::new(holes), Kind::WrongType, "value.1.1"),
        (
            "List<Text>",
            "[]",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
                Some(vec![Some(1)]),
                None,
            ])),
            Kind::WrongType,
            "value",
        ),
    ];
    for (field_type, default, array, kind, path) in cases {
        let catalog = catalog(field_type, false, default);
        let error = encode(&catalog, &[("id", ids(2)), ("value", Arc::clone(&array))]).unwrap_err();
        let shown = format!("{field_type} from {}: {error}", array.data_type());
        assert_eq!((error.kind, error.path().as_str()), (kind, path), "{shown}");
    }
}

#[test]
fn a_column_more_or_less_is_named() {
    let catalog = catalog("Long", false, "0");
    let value: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let failed = |columns: &[(&str, ArrayRef)]| encode(&catalog, columns).unwrap_err().message;
    assert_eq!(failed(&[("id", ids(1))]), "column `value` is missing");
    assert_eq!(failed(&[("value", Arc::clone(&value))]), "column `id` is missing");
    let more = [("id", ids(1)), ("value", Arc::clone(&value)), ("valeu", Arc::clone(&value))];
    assert_eq!(failed(&more), "unknown column `valeu`; did you mean `value`?");
    let twice = [("id", ids(1)), ("value", Arc::clone(&value)), ("value", value)];
    assert_eq!(failed(&twice), "column `value` stands twice");
}

#[test]
fn keys_are_held_to_the_rules_of_keys() {
    let catalog = catalog("Long", false, "0");
    let value: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    for (keys, path) in [
        (StringArray::from(vec![Some("a"), None]), "id.1"),
        (StringArray::from(vec!["a", ""]), "id.1"),
        (StringArray::from(vec!["a", &"b".repeat(500)]), "id.1"),
    ] {
        let columns = [("id", Arc::new(keys) as ArrayRef), ("value", Arc::clone(&value))];
        let error = encode(&catalog, &columns).unwrap_err();
        assert_eq!((error.kind, error.path().as_str()), (Kind::Key, path), "{error}");
    }
}

#[test]
fn the_event_time_comes_from_a_column_of_any_unit_or_is_fixed() {
    let catalog = catalog("Long", false, "0");
    let group = catalog.group("live::stat").unwrap();
    let value: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let at = |time: ArrayRef| {
        let columns = [("id", ids(1)), ("at", time), ("value", Arc::clone(&value))];
        let commands =
            encode_columns(group, &stream(&columns), Method::Update, EventTime::Column("at"))?;
        let (_, command) = commands.iter().next().unwrap();
        BulkCommand::read(command).map(|command| command.event_time_ms)
    };
    for (time, expected) in [
        (Arc::new(Int64Array::from(vec![EVENT_MS])) as ArrayRef, EVENT_MS),
        (Arc::new(TimestampSecondArray::from(vec![3])), 3000),
        (Arc::new(TimestampMicrosecondArray::from(vec![3_999])), 3),
        (Arc::new(TimestampNanosecondArray::from(vec![3_999_999])), 3),
    ] {
        assert_eq!(at(time), Ok(expected));
    }
    for (time, kind) in [
        (Arc::new(Int64Array::from(vec![-1])) as ArrayRef, Kind::OutOfRange),
        (Arc::new(Int64Array::from(vec![None])), Kind::NoEventTime),
        (Arc::new(TimestampSecondArray::from(vec![i64::MAX])), Kind::OutOfRange),
        (Arc::new(Float64Array::from(vec![1.0])), Kind::WrongType),
    ] {
        assert_eq!(at(time).unwrap_err().kind, kind);
    }
}

#[test]
fn a_delete_needs_keys_only_and_the_method_must_fit() {
    let catalog = catalog("Long", false, "0");
    let group = catalog.group("live::stat").unwrap();
    let bytes = stream(&[("id", ids(2))]);
    let fixed = EventTime::FixedMs(EVENT_MS);
    let commands = encode_columns(group, &bytes, Method::Delete, fixed).unwrap();
    let (key, command) = commands.iter().nth(1).unwrap();
    let command = BulkCommand::read(command).unwrap();
    assert_eq!((command.method, command.record), (Method::Delete, None));
    assert_eq!((command.key, key), (key, &[&[0, 0, 0, 7, 0, 2][..], b"k1"].concat()[..]));
    let refused = encode_columns(group, &bytes, Method::Append, fixed).unwrap_err();
    assert_eq!(refused.kind, Kind::Method);
}

#[test]
fn types_are_checked_even_when_there_are_no_rows() {
    let catalog = catalog("Long", false, "0");
    let empty = |value: DataType| [("id", ids(0)), ("value", new_empty_array(&value))];
    assert_eq!(encode(&catalog, &empty(DataType::Int64)).map(|commands| commands.len()), Ok(0));
    assert_eq!(encode(&catalog, &empty(DataType::Utf8)).unwrap_err().kind, Kind::WrongType);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_streams_are_refused_or_read_but_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let catalog = catalog("Long", false, "0");
        let group = catalog.group("live::stat").unwrap();
        let value: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let mut bytes = stream(&[("id", ids(2)), ("value", value)]);
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()));
        let _ = encode_columns(group, &bytes, Method::Update, EventTime::FixedMs(EVENT_MS));
    }

    #[test]
    fn random_bytes_are_no_stream(bytes: Vec<u8>) {
        let catalog = catalog("Long", false, "0");
        let group = catalog.group("live::stat").unwrap();
        prop_assert!(encode_columns(group, &bytes, Method::Update, EventTime::FixedMs(0)).is_err());
    }
}
