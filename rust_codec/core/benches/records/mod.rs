//! The records that benchmarks and instruction counts read: the 20-field one of `loadtest/README.md`
//! (7 longs, 6 doubles, 4 texts, 3 booleans), and a `Vector<128>`. Equal in every run.

use headrace_codec::cursor::write_varint;
use headrace_codec::schema::{Field, FieldType, RecordSchema, Scalar};

/// Floats of a vector.
pub(crate) const VECTOR_ITEMS: u32 = 128;

/// Names and types of the record.
pub(crate) const FIELDS: [(&str, Scalar); 20] = [
    ("rides_total", Scalar::Long),
    ("rating_mean", Scalar::Double),
    ("country_code", Scalar::Text),
    ("is_premium", Scalar::Boolean),
    ("rides_week", Scalar::Long),
    ("rating_7d", Scalar::Double),
    ("language", Scalar::Text),
    ("followers", Scalar::Long),
    ("spend_mean", Scalar::Double),
    ("is_verified", Scalar::Boolean),
    ("likes_total", Scalar::Long),
    ("spend_7d", Scalar::Double),
    ("city", Scalar::Text),
    ("level", Scalar::Long),
    ("risk_score", Scalar::Double),
    ("has_photo", Scalar::Boolean),
    ("session_s", Scalar::Long),
    ("distance_km", Scalar::Double),
    ("device", Scalar::Text),
    ("friends", Scalar::Long),
];

/// The default of a field that is not nullable.
pub(crate) fn default(scalar: Scalar) -> serde_json::Value {
    match scalar {
        Scalar::Boolean => false.into(),
        Scalar::Text => "".into(),
        Scalar::Double => 0.0.into(),
        _ => 0.into(),
    }
}

/// The record's schema.
pub(crate) fn schema(nullable: bool) -> RecordSchema {
    let fields = FIELDS.iter().zip(1..).map(|((name, scalar), id)| Field {
        id,
        name: (*name).to_owned(),
        field_type: FieldType::Scalar(*scalar),
        nullable,
        default: if nullable { serde_json::Value::Null } else { default(*scalar) },
    });
    RecordSchema::new("live::host", 1, fields.collect()).unwrap()
}

/// A schema of one vector.
pub(crate) fn vector_schema() -> RecordSchema {
    let field = Field {
        id: 1,
        name: "embedding".to_owned(),
        field_type: FieldType::Vector(VECTOR_ITEMS),
        nullable: true,
        default: serde_json::Value::Null,
    };
    RecordSchema::new("live::embeddings", 1, vec![field]).unwrap()
}

/// A linear congruential generator (Knuth, MMIX), so that every run has the same records.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A hundred records; a tenth of the fields of nullable ones are null.
pub(crate) fn bodies(nullable: bool) -> Vec<Vec<u8>> {
    let mut draws = Draws(7);
    (0..100).map(|_| body(&mut draws, nullable)).collect()
}

fn body(draws: &mut Draws, nullable: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, scalar) in FIELDS {
        if nullable {
            let null = draws.below(10) == 0;
            out.push(if null { 0 } else { 2 });
            if null {
                continue;
            }
        }
        push_value(draws, scalar, &mut out);
    }
    out
}

fn push_value(draws: &mut Draws, scalar: Scalar, out: &mut Vec<u8>) {
    match scalar {
        Scalar::Boolean => out.push(u8::try_from(draws.below(2)).unwrap()),
        Scalar::Text => {
            let length = 2 + draws.below(12);
            write_varint(out, i64::try_from(length).unwrap());
            out.extend((0..length).map(|_| b'a' + u8::try_from(draws.below(26)).unwrap()));
        }
        Scalar::Double => {
            let value = f64::from(u32::try_from(draws.below(1 << 31)).unwrap()) / 3_000_017.0;
            out.extend_from_slice(&value.to_le_bytes());
        }
        _ => {
            let bits = draws.below(24);
            write_varint(out, i64::try_from(draws.below(1 << bits)).unwrap());
        }
    }
}

/// A hundred vectors of floats between -1 and 1.
pub(crate) fn vectors() -> Vec<Vec<u8>> {
    let mut draws = Draws(11);
    let mut vector = || {
        let mut out = vec![2];
        write_varint(&mut out, i64::from(VECTOR_ITEMS));
        for _ in 0..VECTOR_ITEMS {
            let sixteen_bits = u16::try_from(draws.below(1 << 16)).unwrap();
            let value = f32::from(sixteen_bits) / 32_768.0 * 0.998 - 0.997;
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.push(0);
        out
    };
    (0..100).map(|_| vector()).collect()
}
