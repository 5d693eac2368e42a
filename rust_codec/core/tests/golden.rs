//! The vectors of `tests/golden/v1`, which Python reads too: bytes of format version 1 are what they
//! were when it was born.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is a failed test"
)]

use std::path::PathBuf;
use std::sync::Arc;

use headrace_codec::block::{self, Block};
use headrace_codec::catalog::{Catalog, Group};
use headrace_codec::cell::Cell;
use headrace_codec::command::encode_commands;
use headrace_codec::fold::fold;
use headrace_codec::key::{decode_key, key_digest};
use headrace_codec::mutation::MutationKind;
use headrace_codec::transcode::{self, Layout};
use serde_json::{Value as Json, json};

fn lines(name: &str) -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/v1");
    let text = std::fs::read_to_string(folder.join(format!("{name}.ndjson"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn vectors(name: &str) -> Vec<Json> {
    lines(name).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn newest() -> Catalog {
    Catalog::from_json(lines("catalogs").last().unwrap().as_bytes()).unwrap()
}

fn group(catalog: &Catalog, name: &Json) -> Arc<Group> {
    Arc::clone(catalog.group(name.as_str().unwrap()).unwrap())
}

fn hex(text: &Json) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    let digit = |at: &u8| u8::try_from(char::from(*at).to_digit(16).unwrap()).unwrap();
    digits.chunks(2).map(|pair| digit(&pair[0]) * 16 + digit(&pair[1])).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

#[test]
fn commands_become_the_same_cells_and_rows() {
    let catalog = newest();
    for vector in vectors("commands") {
        let text = vector["command"].as_str().unwrap();
        let command: Json = serde_json::from_str(text).unwrap();
        let now_ms = command["values"]["_last_updated_at_ms"].as_i64().unwrap();
        let batch = encode_commands(&catalog, [text.as_bytes()].into_iter(), now_ms);
        let mut found = Vec::new();
        let mut rows = Vec::new();
        for mutation in batch.mutations() {
            let (kind, field_id) = match mutation.kind {
                MutationKind::Record => ("record", 0),
                MutationKind::Patch(field_id) => ("patch", field_id),
                MutationKind::Event => ("event", 0),
                MutationKind::DeleteRow => ("delete_row", 0),
                MutationKind::DeleteHistory => ("delete_history", 0),
            };
            found.push(json!({
                "kind": kind, "field_id": field_id, "key": to_hex(mutation.key),
                "write_timestamp": mutation.write_timestamp, "event_id": mutation.digest,
                "expires_at_ms": mutation.expires_at_ms, "cell": to_hex(mutation.cell)}));
            if matches!(mutation.kind, MutationKind::Record | MutationKind::Event) {
                let group = group(&catalog, &command["feature_name"]);
                let all = group.current().positions(None).unwrap();
                let row = transcode::cells(&group, [mutation.cell], &all, Layout::Row).unwrap();
                rows.push(String::from_utf8(row).unwrap());
            }
        }
        assert_eq!(Json::from(found), vector["mutations"], "{}", vector["name"]);
        assert_eq!(Json::from(rows), vector["rows"], "{}", vector["name"]);
    }
}

#[test]
fn keys_have_the_same_digest_and_name_their_group() {
    let catalog = newest();
    for vector in vectors("keys") {
        let key = hex(&vector["key"]);
        assert_eq!(key_digest(&key), vector["digest"].as_u64().unwrap());
        let (group, values) = decode_key(&catalog, &key).unwrap();
        assert_eq!(group.name, vector["group"].as_str().unwrap());
        assert_eq!(values.len(), vector["keys"].as_object().unwrap().len());
    }
}

#[test]
fn cells_fold_to_the_same_block() {
    let catalog = newest();
    let group = group(&catalog, &json!("golden::fold"));
    for vector in vectors("folds") {
        let cells: Vec<(u16, Vec<u8>)> = vector["cells"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cell| (u16::try_from(cell[0].as_u64().unwrap()).unwrap(), hex(&cell[1])))
            .collect();
        let given = cells.iter().map(|(field_id, cell)| (*field_id, cell.as_slice()));
        let deleted = vector["delete_timestamp"].as_i64();
        let now_ms = vector["now_ms"].as_i64().unwrap();
        let folded = fold(&group, given, deleted, now_ms).unwrap();
        let digest = key_digest(&hex(&vector["key"]));
        let block = folded.as_ref().map(|folded| to_hex(&block::seal_object(digest, folded)));
        assert_eq!(json!(block), vector["block"], "{}", vector["name"]);
        if let Some(folded) = folded {
            let bytes = hex(&vector["block"]);
            let Ok(Block::Object(opened)) = Block::open(&bytes, digest, &group) else {
                unreachable!("{}", vector["name"])
            };
            assert_eq!(opened.upgrade(&group).unwrap(), (folded.written, folded.body));
        }
    }
}

#[test]
fn events_seal_to_the_same_block() {
    let catalog = newest();
    let group = group(&catalog, &json!("golden::plays"));
    for vector in vectors("histories") {
        let cells: Vec<Vec<u8>> = vector["cells"].as_array().unwrap().iter().map(hex).collect();
        let events = cells.iter().map(|cell| Cell::open(cell).unwrap().into());
        let digest = key_digest(&hex(&vector["key"]));
        let bytes = block::seal_history(digest, events).unwrap();
        assert_eq!(json!(to_hex(&bytes)), vector["block"], "{}", vector["name"]);
        let count = match Block::open(&bytes, digest, &group).unwrap() {
            Block::History(history) => history.events().count(),
            Block::Absent | Block::Object(_) => 0,
        };
        assert_eq!(count, cells.len());
    }
}

#[test]
fn schemas_have_the_same_text_and_fingerprint() {
    let catalog = newest();
    for vector in vectors("schemas") {
        let group = group(&catalog, &vector["group"]);
        assert_eq!(json!(group.current().fingerprint), vector["fingerprint"]);
        assert_eq!(json!(group.current().avro), vector["avro"]);
    }
}
