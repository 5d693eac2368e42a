//! The byte format. Every offset, constant and limit is defined here and nowhere else.
//!
//! All fixed-width integers are little-endian unless a table says BE.
//!
//! # Key (semantics 8)
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | group id, u32 BE |
//! | 8 each | an Integer or Long key field: the i64 with its sign bit flipped, BE, so that bytes sort as numbers |
//! | 2 + n each | a Text key field: byte length u16 BE, then UTF-8 exactly as sent; never empty |
//!
//! Key fields stand in schema order; the whole is at most [`KEY_BYTES_MAX`] bytes.
//!
//! # Cell: one last-writer-wins unit in a store (semantics 7)
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | layout version, [`CELL_LAYOUT`] |
//! | 1 | 4 | CRC32C of every byte of the cell except these four |
//! | 5 | 8 | write timestamp, i64: event time in ms × 1000 + tie |
//! | 13 | 2 | `C3 01`, the Avro single-object marker |
//! | 15 | 8 | CRC-64-AVRO fingerprint of the writer's schema |
//! | 23 | n | Avro body: a record, or for a patch the one field's own type |
//!
//! # Block: one folded record, as caches hold it (semantics 7)
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | layout version, [`BLOCK_LAYOUT`] |
//! | 1 | 1 | flags: bit 0 absent row, bit 1 History; all others zero |
//! | 2 | 4 | CRC32C of every byte of the block except these four |
//! | 6 | 8 | key digest: XXH3-64 of the key bytes |
//! | 14 | 8 | newest live event time, i64 ms |
//! | 22 | 8 | event time of the oldest live cell, i64 ms |
//! | 30 | ⌈fields / 8⌉ | written bitmap, bit i of byte i/8 for value field i of the record's schema; unused bits zero |
//! | … | n | Avro single-object record (`C3 01`, fingerprint, body) |
//!
//! An absent row (flag bit 0) ends after byte 30. A History block (flag bit 1) has no bitmap:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 30 | 2 | event count, u16 |
//! | 32 | … | per event, newest first: event time i64 ms, length u32, Avro single-object record |
//!
//! # Content digest (semantics 1 and 5)
//!
//! XXH3-64 of the named fields, ascending by field id, each as id u16 and then its canonical value:
//!
//! | type | tag u8 | then |
//! | --- | --- | --- |
//! | null | 0 | nothing |
//! | Boolean | 1 | 0 or 1, u8 |
//! | Integer, Long | 2 | i64 |
//! | Float, Double | 3 | f64 bits; a Float is the double nearest to its shortest decimal form (of two, the one with the even last digit), so that `0.1` digests alike before and after Float becomes Double |
//! | Text, Bytes | 4, 5 | length u32, bytes |
//! | Date, Timestamp | 6, 7 | i64 days, i64 microseconds |
//! | `List<T>` | 8 | item count u32, then each item with its tag |
//! | `Vector<N>` | 9 | item count u32, then each f32 |
//!
//! # Bulk command
//!
//! Avro single-object encoding of [`BULK_COMMAND_SCHEMA`]. `key` is key bytes as above, `record` the
//! single-object encoding of one of the group's record schemas (null for a DELETE).
//!
//! # Avro schemas (semantics 6)
//!
//! A record schema has the group's value fields in schema order, name `hakuna_host_stat_v1` and
//! namespace `headrace.live.s3` for ordinal 3 of `live::hakuna-host-stat-v1`: the ordinal keeps
//! fingerprints apart although the canonical form drops defaults and logical types. A nullable field
//! is the union `["null", T]`.

/// Version of the byte format as a whole; `tests/golden/v1` belongs to 1.
pub const FORMAT_VERSION: u32 = 1;
/// Version byte that opens a cell.
pub const CELL_LAYOUT: u8 = 1;
/// Version byte that opens a block.
pub const BLOCK_LAYOUT: u8 = 1;
/// Bytes of a cell before its Avro single-object encoding.
pub const CELL_HEADER_BYTES: usize = 13;
/// Bytes of an Avro single-object header: marker and fingerprint.
pub const SINGLE_OBJECT_HEADER_BYTES: usize = 10;
/// The two bytes that open an Avro single-object encoding.
pub const SINGLE_OBJECT_MARKER: [u8; 2] = [0xC3, 0x01];
/// Bytes of a block before its written bitmap or event count.
pub const BLOCK_HEADER_BYTES: usize = 30;
/// Block flag: no live row.
pub const BLOCK_ABSENT: u8 = 0b0000_0001;
/// Block flag: a History.
pub const BLOCK_HISTORY: u8 = 0b0000_0010;

/// The Avro schema of a bulk command.
pub const BULK_COMMAND_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"BulkCommand","namespace":"headrace","fields":["#,
    r#"{"name":"feature_name","type":"string"},"#,
    r#"{"name":"method","type":{"type":"enum","name":"Method","symbols":["UPDATE","APPEND","DELETE"]}},"#,
    r#"{"name":"key","type":"bytes"},"#,
    r#"{"name":"event_time_ms","type":"long"},"#,
    r#"{"name":"record","type":["null","bytes"]}]}"#,
);
/// CRC-64-AVRO of the canonical form of [`BULK_COMMAND_SCHEMA`].
pub const BULK_COMMAND_FINGERPRINT: u64 = 0x8C62_FEED_C17C_2ADE;

/// Longest key, all fields and the group id together.
pub const KEY_BYTES_MAX: usize = 480;
/// Deepest nesting of JSON that is read.
pub const JSON_DEPTH_MAX: usize = 32;
/// Longest JSON number, in characters: more than the longest double written out in full takes.
pub const JSON_NUMBER_BYTES_MAX: usize = 1100;
/// Most items of a list.
pub const LIST_ITEMS_MAX: usize = 65_536;
/// Longest Text or Bytes value.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Longest encoded record.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Longest command, JSON or Avro.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Longest `Vector<N>`.
pub const VECTOR_ITEMS_MAX: usize = 16_384;
/// 0001-01-01 in days since 1970-01-01: the first Date and the first day of a Timestamp.
pub const DATE_MIN_DAYS: i64 = -719_162;
/// 9999-12-31 in days since 1970-01-01: the last Date and the last day of a Timestamp.
pub const DATE_MAX_DAYS: i64 = 2_932_896;
/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;
/// How far ahead an event time may lie.
pub const FUTURE_EVENT_TIME_MAX_MS: i64 = 5 * 60 * 1000;
/// Latest event time that a write timestamp can hold (9999-12-31T23:59:59.999Z).
pub const EVENT_TIME_MAX_MS: i64 = 253_402_300_799_999;
/// The tie of a DELETE; values have 0 to 998 (semantics 1).
pub const DELETE_TIE: i64 = 999;
/// Microseconds of a write timestamp per millisecond of event time.
pub const WRITE_TIMESTAMP_PER_MS: i64 = 1000;
