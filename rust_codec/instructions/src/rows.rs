//! A catalog of an Object and a History with the 20-field record, and their stored cells.

use std::fmt::Write as _;
use std::sync::Arc;

use headrace_codec::catalog::{Catalog, Group};
use headrace_codec::cell;
use headrace_codec::cursor::write_varint;
use headrace_codec::key::KeyWriter;
use headrace_codec::schema::Scalar;

use crate::records::{FIELDS, bodies, default};

pub(crate) const NOW_MS: i64 = 1_700_000_000_000;
pub(crate) const OBJECT: &str = "live::host";
pub(crate) const HISTORY: &str = "live::visits";

/// (field id, cell), field id 0 being a whole record.
pub(crate) type Cells = Vec<(u16, Vec<u8>)>;

pub(crate) struct Fixture {
    pub(crate) catalog: Arc<Catalog>,
    /// Rows of one record each.
    pub(crate) records: Vec<Cells>,
    /// The same with two fields patched later.
    pub(crate) patched: Vec<Cells>,
    /// A History row of fifty events.
    pub(crate) events: Cells,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let catalog = Arc::new(Catalog::from_json(document().as_bytes()).unwrap());
        let object = catalog.group(OBJECT).unwrap();
        let history = catalog.group(HISTORY).unwrap();
        let bodies = bodies(false);
        let record = |body: &Vec<u8>| vec![(0, sealed(object, 5, body))];
        let visits = bodies.iter().zip(0..50).map(|(body, age)| (0, sealed(history, age, body)));
        let events = visits.collect();
        let records: Vec<Cells> = bodies.iter().map(record).collect();
        let patched = records.iter().map(|cells| with_patches(object, cells)).collect();
        Self { catalog, records, patched, events }
    }

    pub(crate) fn group(&self) -> &Group {
        self.catalog.group(OBJECT).unwrap()
    }

    /// The stored cells of one of a group's rows.
    pub(crate) fn cells(&self, group: &str, row: usize) -> &Cells {
        if group == HISTORY { &self.events } else { &self.records[row] }
    }

    /// Key bytes of the row of an id.
    pub(crate) fn key(&self, group: &str, id: i64) -> Vec<u8> {
        let mut key = Vec::new();
        let mut writer = KeyWriter::new(self.catalog.group(group).unwrap(), &mut key);
        writer.push_integer(id).unwrap();
        writer.finish().unwrap();
        key
    }
}

/// A hundred commands that name every field.
pub(crate) fn payloads() -> Vec<Vec<u8>> {
    (0..100).map(|id: u32| command(id).into_bytes()).collect()
}

fn sealed(group: &Group, age_ms: i64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cell::seal(&mut out, (NOW_MS - age_ms) * 1000, group.current().fingerprint, body);
    out
}

fn with_patches(group: &Group, cells: &Cells) -> Cells {
    let patch = |position: usize| {
        let field = &group.current().fields[position];
        let (mut body, mut out) = (Vec::new(), Vec::new());
        match field.name.as_str() {
            "city" => body.extend_from_slice(b"\x0aSeoul"),
            _ => write_varint(&mut body, 77),
        }
        cell::seal(
            &mut out,
            (NOW_MS - 1) * 1000,
            group.current().patch_fingerprints[position],
            &body,
        );
        (field.id, out)
    };
    cells.iter().cloned().chain([patch(0), patch(12)]).collect()
}

fn document() -> String {
    let mut fields = String::new();
    for ((name, scalar), id) in FIELDS.iter().zip(1..) {
        let comma = if id == 1 { "" } else { "," };
        let default = default(*scalar);
        let _ = write!(
            fields,
            r#"{comma}{{"id":{id},"name":"{name}","type":"{scalar:?}","nullable":false,"default":{default}}}"#
        );
    }
    let group = |id: u32, name: &str, feature_type: &str| {
        format!(
            r#"{{"id":{id},"name":"{name}","feature_type":"{feature_type}",
            "keys":[{{"name":"user_id","type":"Long"}}],"schemas":[{{"ordinal":1,"fields":[{fields}]}}],
            "ttl_ms":86400000,"max_age_ms":3600000,"max_events":50,
            "cache":{{"ttl_ms":600000,"local_ttl_ms":0}}}}"#
        )
    };
    let groups = [group(1, OBJECT, "Object"), group(2, HISTORY, "History")].join(",");
    format!(r#"{{"format":1,"generation":1,"groups":[{groups}],"services":[]}}"#)
}

fn command(id: u32) -> String {
    let mut values = String::new();
    for ((name, scalar), position) in FIELDS.iter().zip(1..) {
        let number = (id * 31 + position) % 1009;
        let value = match scalar {
            Scalar::Boolean => number.is_multiple_of(2).to_string(),
            Scalar::Text => format!("\"text-{number}\""),
            Scalar::Double => format!("{number}.{number}"),
            _ => number.to_string(),
        };
        let _ = write!(values, r#""{name}":{value},"#);
    }
    format!(
        r#"{{"feature_name":"{OBJECT}","method":"UPDATE","keys":{{"user_id":{id}}},"values":{{{values}"_last_updated_at_ms":{NOW_MS}}}}}"#
    )
}
