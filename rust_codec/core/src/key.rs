//! Key bytes (semantics 8), written and read. The layout is in [`crate::format`].

use std::sync::Arc;

use crate::catalog::{Catalog, Group, KeyField};
use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::format::KEY_BYTES_MAX;
use crate::json::{Reader, Token};
use crate::schema::Scalar;

/// XXH3-64 of key bytes: what a block carries to prove whose it is.
#[must_use]
pub fn key_digest(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The value of one key field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValue {
    /// An Integer or a Long.
    Integer(i64),
    /// A Text.
    Text(String),
}

/// Appends one key to a buffer, one call per key field in the group's key order.
///
/// On an error the key is not complete: cut the buffer back to where it started.
#[derive(Debug)]
pub struct KeyWriter<'g> {
    group: &'g Group,
    out: &'g mut Vec<u8>,
    start: usize,
    position: usize,
}

impl<'g> KeyWriter<'g> {
    /// Appends the group id.
    pub fn new(group: &'g Group, out: &'g mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&group.id.to_be_bytes());
        Self { group, out, start, position: 0 }
    }

    /// Appends the next key field, which must be an Integer or a Long.
    pub fn push_integer(&mut self, value: i64) -> Result<()> {
        let field = self.next_field()?;
        write_integer(field, value, self.out).map_err(|error| error.under(&field.name))
    }

    /// Appends the next key field, which must be a Text.
    pub fn push_text(&mut self, value: &str) -> Result<()> {
        let field = self.next_field()?;
        write_text(field, value, self.out).map_err(|error| error.under(&field.name))
    }

    /// Appends the next key field from the form that [`write_json`] or another writer gave it.
    pub fn push_encoded(&mut self, bytes: &[u8]) -> Result<()> {
        self.next_field()?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Checks that every key field was pushed and that the key is not too long.
    pub fn finish(self) -> Result<()> {
        if let Some(missing) = self.group.keys.get(self.position) {
            return Err(Error::new(Kind::Key, format!("key field `{}` is missing", missing.name)));
        }
        let length = self.out.len().saturating_sub(self.start);
        if length > KEY_BYTES_MAX {
            let message =
                format!("the key takes {length} bytes, at most {KEY_BYTES_MAX} are stored");
            return Err(Error::new(Kind::Key, message));
        }
        Ok(())
    }

    fn next_field(&mut self) -> Result<&'g KeyField> {
        let field = self.group.keys.get(self.position).ok_or_else(|| {
            let count = self.group.keys.len();
            Error::new(Kind::Key, format!("`{}` has {count} key fields", self.group.name))
        })?;
        self.position = self.position.saturating_add(1);
        Ok(field)
    }
}

/// Appends the bytes of one key field (without group id) from the JSON value that comes next.
pub fn write_json(field: &KeyField, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
    let found = reader.peek()?;
    let offset = reader.offset();
    let wanted = if field.scalar == Scalar::Text { Token::String } else { Token::Number };
    if found != wanted {
        let message = format!("a {} was expected, got {}", field.scalar.name(), found.name());
        return Err(Error::new(Kind::Key, message).at(offset));
    }
    if field.scalar == Scalar::Text {
        let text = reader.string()?;
        return write_text(field, &text, out).map_err(|error| error.at(offset));
    }
    let value = reader.integer().map_err(|error| match error.kind {
        Kind::WrongType | Kind::OutOfRange => Error::new(Kind::Key, error.message).at(offset),
        _ => error,
    })?;
    write_integer(field, value, out).map_err(|error| error.at(offset))
}

fn write_integer(field: &KeyField, value: i64, out: &mut Vec<u8>) -> Result<()> {
    match field.scalar {
        Scalar::Long => {}
        Scalar::Integer if i32::try_from(value).is_ok() => {}
        Scalar::Integer => {
            return Err(Error::new(Kind::Key, "the number does not fit an Integer"));
        }
        _ => return Err(Error::new(Kind::Key, "a Text was expected, got a number")),
    }
    out.extend_from_slice(&(value ^ i64::MIN).to_be_bytes());
    Ok(())
}

fn write_text(field: &KeyField, value: &str, out: &mut Vec<u8>) -> Result<()> {
    if field.scalar != Scalar::Text {
        let message = format!("a {} was expected, got a text", field.scalar.name());
        return Err(Error::new(Kind::Key, message));
    }
    if value.is_empty() {
        return Err(Error::new(Kind::Key, "the text is empty"));
    }
    // Refused here, before anything is copied: the whole key has less room than that.
    let length = u16::try_from(value.len()).ok().filter(|_| value.len() <= KEY_BYTES_MAX);
    let length = length.ok_or_else(|| {
        let message =
            format!("the text takes {} bytes, a key at most {KEY_BYTES_MAX}", value.len());
        Error::new(Kind::Key, message)
    })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

/// Reads key bytes back: the group and one value per key field.
pub fn decode_key(catalog: &Catalog, key: &[u8]) -> Result<(Arc<Group>, Vec<KeyValue>)> {
    let id = key.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    let id = id.ok_or_else(|| Error::new(Kind::Corrupt, "the bytes end early").at(key.len()))?;
    let group = catalog.group_by_id(id).ok_or_else(|| {
        Error::new(Kind::UnknownGroup, format!("no feature group has id {id}")).at(0)
    })?;
    let mut values = Vec::with_capacity(group.keys.len());
    walk(group, key, |part| {
        values.push(match part {
            Part::Integer(value) => KeyValue::Integer(value),
            Part::Text(text) => KeyValue::Text(text.to_owned()),
        });
    })?;
    Ok((Arc::clone(group), values))
}

/// Fails unless these are well-formed key bytes of the group.
pub fn check_key(group: &Group, key: &[u8]) -> Result<()> {
    walk(group, key, |_| {})
}

enum Part<'a> {
    Integer(i64),
    Text(&'a str),
}

fn walk<'a>(group: &Group, key: &'a [u8], mut visit: impl FnMut(Part<'a>)) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        let message = format!("a key takes at most {KEY_BYTES_MAX} bytes");
        return Err(Error::new(Kind::TooLarge, message));
    }
    let mut cursor = Cursor::new(key);
    if u32::from_be_bytes(cursor.array()?) != group.id {
        let message = format!("the key is not one of `{}`", group.name);
        return Err(Error::new(Kind::Key, message).at(0));
    }
    for field in &group.keys {
        visit(read_field(field, &mut cursor).map_err(|error| error.under(&field.name))?);
    }
    cursor.finish()
}

fn read_field<'a>(field: &KeyField, cursor: &mut Cursor<'a>) -> Result<Part<'a>> {
    let start = cursor.offset();
    if field.scalar != Scalar::Text {
        let value = i64::from_be_bytes(cursor.array()?) ^ i64::MIN;
        if field.scalar == Scalar::Integer && i32::try_from(value).is_err() {
            return Err(Error::new(Kind::Corrupt, "the number does not fit an Integer").at(start));
        }
        return Ok(Part::Integer(value));
    }
    let length = u16::from_be_bytes(cursor.array()?);
    let bytes = cursor.take(usize::from(length))?;
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Corrupt, "the text is not UTF-8").at(start))?;
    if text.is_empty() {
        return Err(Error::new(Kind::Corrupt, "the text is empty").at(start));
    }
    Ok(Part::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn catalog() -> Catalog {
        Catalog::from_json(
            br#"{"format":1,"generation":3,"groups":[{
                "id":258,"name":"test::mixed-key","feature_type":"Object",
                "keys":[{"name":"owner","type":"Text"},{"name":"item","type":"Long"},
                        {"name":"slot","type":"Integer"}],
                "schemas":[{"ordinal":1,"fields":[
                    {"id":1,"name":"level","type":"Long","nullable":false,"default":0}]}],
                "max_events":100,"cache":{"ttl_ms":0,"local_ttl_ms":0}}]}"#,
        )
        .unwrap()
    }

    fn write(group: &Group, owner: &str, item: i64, slot: i64) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        let mut writer = KeyWriter::new(group, &mut key);
        writer.push_text(owner)?;
        writer.push_integer(item)?;
        writer.push_integer(slot)?;
        writer.finish()?;
        Ok(key)
    }

    #[test]
    fn the_layout_is_that_of_semantics_8() {
        let catalog = catalog();
        let key = write(catalog.group("test::mixed-key").unwrap(), "é", -1, 7).unwrap();
        let expected = [
            &[0, 0, 1, 2][..],
            &[0, 2, 0xC3, 0xA9],
            &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x80, 0, 0, 0, 0, 0, 0, 7],
        ]
        .concat();
        assert_eq!(key, expected);
        assert_eq!(key_digest(&key), 17_910_393_651_585_468_731);
    }

    #[test]
    fn keys_that_cannot_be_stored_are_refused() {
        let catalog = catalog();
        let group = catalog.group("test::mixed-key").unwrap();
        for (owner, slot, path) in [
            ("", 0, "owner"),
            ("a", i64::from(i32::MAX) + 1, "slot"),
            (&"a".repeat(KEY_BYTES_MAX), 0, ""),
            (&"a".repeat(70_000), 0, "owner"),
        ] {
            let error = write(group, owner, 0, slot).unwrap_err();
            assert_eq!((error.kind, error.path().as_str()), (Kind::Key, path), "{error}");
        }
        let longest = "a".repeat(KEY_BYTES_MAX - 4 - 2 - 16);
        assert_eq!(write(group, &longest, 0, 0).map(|key| key.len()), Ok(KEY_BYTES_MAX));
        let mut key = Vec::new();
        let mut writer = KeyWriter::new(group, &mut key);
        assert_eq!(writer.push_integer(1).unwrap_err().kind, Kind::Key);
        let mut writer = KeyWriter::new(group, &mut key);
        writer.push_text("a").unwrap();
        assert_eq!(writer.finish().unwrap_err().message, "key field `item` is missing");
    }

    #[test]
    fn json_of_another_type_is_no_key() {
        let catalog = catalog();
        let group = catalog.group("test::mixed-key").unwrap();
        for (position, text) in [(1, "1001.0"), (1, "\"1001\""), (1, "null"), (0, "7"), (2, "1e3")]
        {
            let mut reader = Reader::new(text.as_bytes()).unwrap();
            let error = write_json(&group.keys[position], &mut reader, &mut Vec::new());
            assert_eq!(error.unwrap_err().kind, Kind::Key, "{text}");
        }
    }

    #[test]
    fn every_truncation_and_any_extra_byte_is_refused() {
        let catalog = catalog();
        let key = write(catalog.group("test::mixed-key").unwrap(), "owner", 5, 6).unwrap();
        for length in 0..key.len() {
            assert!(decode_key(&catalog, &key[..length]).is_err());
        }
        assert!(decode_key(&catalog, &[&key[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn keys_read_back_as_they_were_written(owner in ".{1,60}", item: i64, slot: i32) {
            let catalog = catalog();
            let group = catalog.group("test::mixed-key").unwrap();
            let key = write(group, &owner, item, i64::from(slot)).unwrap();
            let (found, values) = decode_key(&catalog, &key).unwrap();
            prop_assert_eq!(found.id, group.id);
            prop_assert_eq!(values, vec![
                KeyValue::Text(owner), KeyValue::Integer(item), KeyValue::Integer(i64::from(slot)),
            ]);
        }

        #[test]
        fn bytes_sort_as_numbers(left: i64, right: i64) {
            let catalog = catalog();
            let group = catalog.group("test::mixed-key").unwrap();
            let bytes = |item| write(group, "a", item, 0).unwrap();
            prop_assert_eq!(bytes(left).cmp(&bytes(right)), left.cmp(&right));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_key(&catalog(), &bytes);
        }
    }
}
