//! A command as Avro, for bulk: one record, already encoded, under one of the group's schemas.
//! The schema is [`crate::format::BULK_COMMAND_SCHEMA`].

use std::sync::Arc;

use super::{Intent, Method, check_method};
use crate::catalog::{Catalog, Group};
use crate::cursor::{Cursor, write_varint};
use crate::error::{Error, Kind, Result};
use crate::format::{BULK_COMMAND_FINGERPRINT, SINGLE_OBJECT_MARKER};
use crate::key::check_key;
use crate::schema::RecordSchema;

/// The members of a bulk command; only the Avro around them is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkCommand<'a> {
    /// Name of the group.
    pub feature_name: &'a str,
    /// What to do.
    pub method: Method,
    /// Key bytes, group id included.
    pub key: &'a [u8],
    /// Its event time.
    pub event_time_ms: i64,
    /// Avro single-object bytes of one of the group's record schemas; None for a DELETE.
    pub record: Option<&'a [u8]>,
}

impl<'a> BulkCommand<'a> {
    /// Reads the single-object encoding.
    pub fn read(payload: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(payload);
        let fingerprint = open_single_object(&mut cursor)?;
        if fingerprint != BULK_COMMAND_FINGERPRINT {
            let message = format!(
                "a bulk command has schema {BULK_COMMAND_FINGERPRINT:016x}, got {fingerprint:016x}"
            );
            return Err(Error::new(Kind::UnknownSchema, message).at(2));
        }
        let feature_name = read_name(&mut cursor).map_err(|error| error.under("feature_name"))?;
        let method = read_method(&mut cursor).map_err(|error| error.under("method"))?;
        let key = read_bytes(&mut cursor).map_err(|error| error.under("key"))?;
        let event_time_ms = cursor.varint().map_err(|error| error.under("event_time_ms"))?;
        let record = read_record(&mut cursor).map_err(|error| error.under("record"))?;
        cursor.finish()?;
        Ok(Self { feature_name, method, key, event_time_ms, record })
    }

    /// The group, once the key is known to be one of its keys.
    pub(super) fn check_key<'g>(&self, catalog: &'g Catalog) -> Result<&'g Arc<Group>> {
        let group =
            catalog.find_group(self.feature_name).map_err(|error| error.under("feature_name"))?;
        check_key(group, self.key).map_err(|error| error.under("key"))?;
        Ok(group)
    }

    /// Checks what can be checked without a clock and without looking into the record.
    pub(super) fn check<'g>(&self, catalog: &'g Catalog) -> Result<Intent<'g>> {
        let group = self.check_key(catalog)?;
        check_method(group, self.method).map_err(|error| error.under("method"))?;
        match (self.method, self.record) {
            (Method::Delete, Some(_)) => {
                let message = "a DELETE carries no record";
                Err(Error::new(Kind::UnknownMember, message).under("record"))
            }
            (Method::Update | Method::Append, None) => {
                let message = format!("{} carries a record", self.method.name());
                Err(Error::new(Kind::NoValues, message).under("record"))
            }
            (method, _) => Ok(Intent { group, method, event_time_ms: self.event_time_ms }),
        }
    }
}

/// Appends a bulk command.
pub fn write_bulk(command: &BulkCommand<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&SINGLE_OBJECT_MARKER);
    out.extend_from_slice(&BULK_COMMAND_FINGERPRINT.to_le_bytes());
    write_bytes(out, command.feature_name.as_bytes());
    let symbol = Method::ALL.iter().position(|method| *method == command.method);
    write_varint(out, symbol.and_then(|symbol| i64::try_from(symbol).ok()).unwrap_or_default());
    write_bytes(out, command.key);
    write_varint(out, command.event_time_ms);
    match command.record {
        None => out.push(0),
        Some(record) => {
            out.push(2);
            write_bytes(out, record);
        }
    }
}

/// The schema and the body of a bulk command's record.
pub(super) fn open_record<'g, 'a>(
    group: &'g Group,
    record: &'a [u8],
) -> Result<(&'g Arc<RecordSchema>, &'a [u8])> {
    let mut cursor = Cursor::new(record);
    let open = |cursor: &mut Cursor<'a>| {
        let fingerprint = open_single_object(cursor)?;
        group.schema(fingerprint).ok_or_else(|| {
            let message = format!("`{}` never had a schema {fingerprint:016x}", group.name);
            Error::new(Kind::UnknownSchema, message).at(2)
        })
    };
    let schema = open(&mut cursor).map_err(|error| error.under("record"))?;
    Ok((schema, cursor.rest()))
}

/// The fingerprint of a single-object header.
fn open_single_object(cursor: &mut Cursor<'_>) -> Result<u64> {
    if cursor.array::<2>()? != SINGLE_OBJECT_MARKER {
        return Err(Error::new(Kind::Corrupt, "no Avro single-object marker").at(0));
    }
    Ok(u64::from_le_bytes(cursor.array()?))
}

fn read_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let start = cursor.offset();
    std::str::from_utf8(read_bytes(cursor)?)
        .map_err(|_| Error::new(Kind::Corrupt, "the name is not UTF-8").at(start))
}

fn read_method(cursor: &mut Cursor<'_>) -> Result<Method> {
    let start = cursor.offset();
    let symbol = usize::try_from(cursor.varint()?).ok();
    symbol.and_then(|symbol| Method::ALL.get(symbol)).copied().ok_or_else(|| {
        Error::new(Kind::Corrupt, "the method is none of its enum's symbols").at(start)
    })
}

fn read_record<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>> {
    let start = cursor.offset();
    match cursor.byte()? {
        0 => Ok(None),
        2 => read_bytes(cursor).map(Some),
        _ => Err(Error::new(Kind::Corrupt, "a union index is neither 0 nor 1").at(start)),
    }
}

fn read_bytes<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let length = cursor.length()?;
    cursor.take(length)
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(bytes);
}
