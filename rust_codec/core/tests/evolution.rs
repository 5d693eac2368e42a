//! Twelve versions of one group in a row: records of each read under each later one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is a failed test"
)]

mod support;

use headrace_codec::fold::{fold, upgrade};
use headrace_codec::schema::{Field, FieldType, Scalar};
use headrace_codec::status::RowStatus;
use headrace_codec::transcode::Transcoder;
use proptest::prelude::*;
use support::{Value, Values, any_type, any_value, body_of, default_value, field, group, sealed};

const VERSIONS: usize = 12;

/// One compatible change: (kind, field it is made to, type of a new field, its nullability).
type Change = (u8, prop::sample::Index, FieldType, bool);

fn evolve(fields: &mut Vec<Field>, next_id: &mut u16, change: &Change) {
    let (kind, pick, field_type, nullable) = change;
    let place = pick.index(fields.len());
    match kind % 5 {
        0 if fields.len() > 1 => drop(fields.remove(place)),
        1 => fields.rotate_left(place),
        2 => {
            let wider = widen(fields[place].field_type);
            fields[place] = field(fields[place].id, wider, fields[place].nullable);
        }
        3 => fields[place] = field(fields[place].id, fields[place].field_type, true),
        _ => {
            fields.insert(place, field(*next_id, *field_type, *nullable));
            *next_id += 1;
        }
    }
}

fn widen(field_type: FieldType) -> FieldType {
    let wider = |scalar| match scalar {
        Scalar::Integer => Scalar::Long,
        Scalar::Float => Scalar::Double,
        other => other,
    };
    match field_type {
        FieldType::Scalar(scalar) => FieldType::Scalar(wider(scalar)),
        FieldType::List(item) => FieldType::List(wider(item)),
        FieldType::Vector(size) => FieldType::Vector(size),
    }
}

/// A value of an old type as the new type reads it.
fn widened(value: &Value, to: FieldType) -> Value {
    let scalar = match to {
        FieldType::Scalar(scalar) | FieldType::List(scalar) => scalar,
        FieldType::Vector(_) => Scalar::Float,
    };
    match (value, scalar) {
        (Value::List(items), _) => {
            Value::List(items.iter().map(|item| widened(item, FieldType::Scalar(scalar))).collect())
        }
        (Value::Integer(value), Scalar::Long) => Value::Long(i64::from(*value)),
        (Value::Float(bits), Scalar::Double) => {
            Value::Double(f64::from(f32::from_bits(*bits)).to_bits())
        }
        _ => value.clone(),
    }
}

/// The chain of schemas, and values for a record of each.
fn any_chain() -> impl Strategy<Value = (Vec<Vec<Field>>, Vec<Vec<Value>>)> {
    let change = (any::<u8>(), any::<prop::sample::Index>(), any_type(), any::<bool>());
    (any_type(), proptest::collection::vec(change, VERSIONS - 1)).prop_flat_map(
        |(first, changes)| {
            let mut fields = vec![field(1, first, false)];
            let mut next_id = 2;
            let mut chain = vec![fields.clone()];
            for change in &changes {
                evolve(&mut fields, &mut next_id, change);
                chain.push(fields.clone());
            }
            let values: Vec<Vec<_>> = chain
                .iter()
                .map(|fields| {
                    fields.iter().map(|it| any_value(it.field_type, it.nullable)).collect()
                })
                .collect();
            (Just(chain), values)
        },
    )
}

fn expected(writer: &[Field], values: &[Value], current: &[Field]) -> Vec<(bool, Value)> {
    current
        .iter()
        .map(|field| match writer.iter().position(|it| it.id == field.id) {
            Some(place) => (true, widened(&values[place], field.field_type)),
            None if field.nullable => (false, Value::Null),
            None => (false, default_value(field.field_type)),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn records_of_every_version_read_under_every_later_one((chain, values) in any_chain()) {
        for last in 0..VERSIONS {
            let group = group(&chain[..=last], None);
            for writer in 0..=last {
                let body = body_of(&chain[writer], &values[writer]);
                let wanted = expected(&chain[writer], &values[writer], &chain[last]);
                let print = group.schemas[writer].fingerprint;
                let (written, upgraded) = upgrade(&group, print, &body, None).unwrap();
                let found = Values::of(group.current(), &upgraded).unwrap();
                let cell = sealed(1000, print, &body);
                let folded = fold(&group, [(0, &*cell)], None, 0).unwrap().unwrap();
                prop_assert_eq!((&folded.written, &folded.body), (&written, &upgraded));
                let found: Vec<(bool, Value)> =
                    (0..).map(|it| folded.is_written(it)).zip(found).collect();
                prop_assert_eq!(&found, &wanted);
            }
        }
    }

    #[test]
    fn transcoding_an_old_body_prints_what_its_upgrade_prints((chain, values) in any_chain()) {
        let group = group(&chain, None);
        let current = group.current();
        let requested: Vec<usize> = (0..current.fields.len()).rev().collect();
        let plain = Transcoder::new(current, current, &requested).unwrap();
        for (writer, values) in values.iter().enumerate() {
            let body = body_of(&chain[writer], values);
            let schema = &group.schemas[writer];
            let (written, upgraded) = upgrade(&group, schema.fingerprint, &body, None).unwrap();
            let mut outcomes = Vec::new();
            let direct = Transcoder::new(schema, current, &requested).unwrap();
            for (transcoder, body, written) in
                [(&direct, &body[..], None), (&plain, &upgraded[..], written.as_deref())]
            {
                let (mut out, mut status) = (Vec::new(), RowStatus::default());
                transcoder.folded_row(body, written, &mut out, &mut status).unwrap();
                outcomes.push((String::from_utf8(out).unwrap(), status));
            }
            prop_assert_eq!(&outcomes[0], &outcomes[1]);
        }
    }
}
