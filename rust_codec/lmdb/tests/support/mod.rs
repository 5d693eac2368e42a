//! A catalog of two groups and mutations of them, shared by the integration tests.

#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a failed test is what we want"
)]

use headrace_codec::catalog::Catalog;
use headrace_codec::cell;
use headrace_codec::mutation::{Mutation, MutationKind};

pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// `live::host-v1`: schema 1 has fields 1 and 2, schema 2 adds 3, schema 3 drops 2.
pub(crate) const OBJECT: u32 = 1;
/// `live::plays`: one field, three events, expires after 30 days.
pub(crate) const HISTORY: u32 = 2;
/// `live::brief-v1`: like an Object's first schema, expires after 30 days.
pub(crate) const BRIEF: u32 = 3;

const DOCUMENT: &str = r#"{"format": 1, "generation": 1, "groups": [
  {"id": 1, "name": "live::host-v1", "feature_type": "Object", "max_events": 100,
   "ttl_ms": null, "max_age_ms": null, "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
   "keys": [{"name": "user_id", "type": "Long"}],
   "schemas": [
     {"ordinal": 1, "fields": [F1, F2]}, {"ordinal": 2, "fields": [F1, F2, F3]},
     {"ordinal": 3, "fields": [F1, F3]}]},
  {"id": 2, "name": "live::plays", "feature_type": "History", "max_events": 3,
   "ttl_ms": 2592000000, "max_age_ms": null, "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
   "keys": [{"name": "room", "type": "Text"}],
   "schemas": [{"ordinal": 1, "fields": [F1]}]},
  {"id": 3, "name": "live::brief-v1", "feature_type": "Object", "max_events": 100,
   "ttl_ms": 2592000000, "max_age_ms": null, "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
   "keys": [{"name": "user_id", "type": "Long"}],
   "schemas": [{"ordinal": 1, "fields": [F1, F2]}]}]}"#;

pub(crate) fn catalog() -> Catalog {
    let mut document = DOCUMENT.to_owned();
    for id in 1..=3 {
        let field = format!(
            r#"{{"id": {id}, "name": "f{id}", "type": "Long", "nullable": false, "default": 0}}"#
        );
        document = document.replace(&format!("F{id}"), &field);
    }
    Catalog::from_json(document.as_bytes()).unwrap()
}

pub(crate) fn key(group_id: u32, number: u64) -> Vec<u8> {
    let mut key = group_id.to_be_bytes().to_vec();
    if group_id == HISTORY {
        let text = number.to_string();
        key.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        key.extend_from_slice(text.as_bytes());
    } else {
        key.extend_from_slice(&(number ^ (1 << 63)).to_be_bytes());
    }
    key
}

/// A mutation that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) kind: MutationKind,
    pub(crate) key: Vec<u8>,
    pub(crate) write_timestamp: i64,
    pub(crate) digest: u64,
    pub(crate) cell: Vec<u8>,
}

impl Owned {
    pub(crate) fn borrow(&self) -> Mutation<'_> {
        Mutation {
            index: 0,
            kind: self.kind,
            key: &self.key,
            write_timestamp: self.write_timestamp,
            digest: self.digest,
            expires_at_ms: None,
            cell: &self.cell,
        }
    }

    #[must_use]
    pub(crate) fn with_key(&self, key: Vec<u8>) -> Self {
        Self { key, ..self.clone() }
    }
}

fn sealed(write_timestamp: i64, fingerprint: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cell::seal(&mut out, write_timestamp, fingerprint, body);
    out
}

pub(crate) fn record(
    group_id: u32,
    number: u64,
    write_timestamp: i64,
    ordinal: u32,
    body: &[u8],
) -> Owned {
    let catalog = catalog();
    let group = catalog.group_by_id(group_id).unwrap();
    let schema = group.schemas.iter().find(|schema| schema.ordinal == ordinal).unwrap();
    Owned {
        kind: MutationKind::Record,
        key: key(group_id, number),
        write_timestamp,
        digest: 0,
        cell: sealed(write_timestamp, schema.fingerprint, body),
    }
}

pub(crate) fn patch(
    group_id: u32,
    number: u64,
    write_timestamp: i64,
    field_id: u16,
    body: &[u8],
) -> Owned {
    Owned {
        kind: MutationKind::Patch(field_id),
        key: key(group_id, number),
        write_timestamp,
        digest: 0,
        cell: sealed(write_timestamp, 77, body),
    }
}

pub(crate) fn event(number: u64, write_timestamp: i64, digest: u64, body: &[u8]) -> Owned {
    Owned {
        kind: MutationKind::Event,
        key: key(HISTORY, number),
        write_timestamp,
        digest,
        cell: sealed(write_timestamp, 78, body),
    }
}

pub(crate) fn delete(group_id: u32, number: u64, event_time_ms: i64) -> Owned {
    let kind =
        if group_id == HISTORY { MutationKind::DeleteHistory } else { MutationKind::DeleteRow };
    Owned {
        kind,
        key: key(group_id, number),
        write_timestamp: event_time_ms * 1000 + 999,
        digest: 0,
        cell: Vec::new(),
    }
}
