//! A request whose rows come from outside, in phases: its keys are known, its rows are told one by
//! one from caches or from a store, then it is answered.
//!
//! Whatever a row comes from, it becomes a block first: a row read from the store is folded and
//! sealed, answered from that block, and the same block may fill a cache. So a hit answers exactly
//! what the store would.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::coding::Coding;
use super::engine::{End, Engine, ReadCall, Room, lock};
use super::plan::{Accept, Plan, PlannedRead};
use super::row::{Event, Record, Row, Rows, StaleCatalog};
use crate::block::{self, Block};
use crate::catalog::Group;
use crate::cell::Cell;
use crate::error::{Error, Kind, Result};
use crate::fold::{Folded, fold, is_expired};
use crate::key::key_digest;
use crate::lane::ids::RequestId;

/// Absent rows are cached no longer than this (semantics 19).
pub const ABSENT_TTL_MAX_MS: i64 = 60_000;

/// What is known of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing yet.
    Wanted,
    /// A record; ranges point into the bytes that hold its block.
    Record { newest: i64, schema: usize, body: Range<usize>, written: Option<Range<usize>> },
    /// A History's block.
    History(Range<usize>),
    /// Not there.
    Absent,
    /// The store was not reached.
    Unavailable,
    /// The stored bytes are damaged.
    Corrupt,
}

impl Held {
    /// Copies what the row points to from `bytes` to the end of `kept`, and points there.
    pub(super) fn move_into(&mut self, kept: &mut Vec<u8>, bytes: &[u8]) {
        let mut moved = |range: &mut Range<usize>| {
            let start = kept.len();
            kept.extend_from_slice(bytes.get(range.clone()).unwrap_or_default());
            *range = start..kept.len();
        };
        match self {
            Self::Record { body, written, .. } => {
                moved(body);
                if let Some(written) = written {
                    moved(written);
                }
            }
            Self::History(block) => moved(block),
            _ => {}
        }
    }
}

/// How the response is to be written; owned, because the request's own bytes are gone by then.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) accept: Accept,
    pub(super) coding: Coding,
    pub(super) now_ms: i64,
    pub(super) request_id: RequestId,
    pub(super) keep_alive: bool,
}

/// A request on its way.
#[derive(Debug)]
pub struct Pending {
    pub(super) plan: Arc<Plan>,
    pub(super) room: Box<Room>,
    pub(super) reply: Reply,
    pub(super) held: Vec<Held>,
    /// Blocks that rows of `held` point into.
    pub(super) bytes: Vec<u8>,
    /// The deadline that the body asks for.
    pub deadline_ms: Option<i64>,
    /// The catalog was loaded anew for this request.
    pub reloaded: bool,
}

/// One row that is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'p> {
    /// Position among all rows of the request.
    pub slot: usize,
    /// Store key.
    pub key: &'p [u8],
    /// Events to read of a History: as many as it keeps, so that they may fill a cache; None for
    /// an Object.
    pub events: Option<u32>,
    /// The group's cache ttl; 0 when it is not cached.
    pub cache_ttl_ms: i64,
    /// The group's in-process ttl; 0 when it is not kept there.
    pub local_ttl_ms: i64,
}

/// A block that may fill a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The block.
    pub block: Vec<u8>,
    /// How long it may live there, before jitter; 0 or less: not at all.
    pub ttl_ms: i64,
}

/// A request costs about as much as so many values, and a row beside its own values as so many:
/// measured from 1 to 500 rows of 20 and 250 fields.
const REQUEST_WORK: u64 = 500;
const ROW_WORK: u64 = 10;
/// Events of a History row that are reckoned with, whatever the caller's limit.
const EVENTS_RECKONED: usize = 50;

impl Pending {
    /// How much work it is to read from a cache and answer, in values.
    #[must_use]
    pub fn work(&self) -> u64 {
        let mut work = REQUEST_WORK;
        for (position, read) in self.plan.reads.iter().enumerate() {
            let events = if read.is_history() { read.limit.min(EVENTS_RECKONED) } else { 1 };
            let values = read.positions.len().saturating_mul(events);
            let row = u64::try_from(values).unwrap_or(u64::MAX).saturating_add(ROW_WORK);
            let rows = u64::try_from(self.room.keys.slots(position).len()).unwrap_or(u64::MAX);
            work = work.saturating_add(row.saturating_mul(rows));
        }
        work
    }

    /// Rows that nothing was told about yet, in request order.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        self.slots().filter(|(slot, _)| self.held.get(*slot) == Some(&Held::Wanted)).map(
            |(slot, read)| Wanted {
                slot,
                key: self.room.keys.key(slot),
                events: read.is_history().then_some(read.group.max_events),
                cache_ttl_ms: read.group.cache_ttl_ms,
                local_ttl_ms: read.group.local_ttl_ms,
            },
        )
    }

    /// Number of rows that nothing was told about yet.
    #[must_use]
    pub fn wanted_count(&self) -> usize {
        self.held.iter().filter(|held| **held == Held::Wanted).count()
    }

    /// Generation of the catalog that the request runs under.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.plan.generation
    }

    /// Takes a cached block for a row. False when it cannot be used (torn, another key's, expired,
    /// of a foreign schema): the row is then still wanted.
    pub fn take_block(&mut self, slot: usize, block: &[u8], now_ms: i64) -> bool {
        let start = self.bytes.len();
        let held = self.look(slot, block, start, now_ms);
        let usable = held.is_some();
        if let Some(held) = held {
            self.bytes.extend_from_slice(block);
            self.put(slot, held);
        }
        usable
    }

    /// Takes the cells of a row as the store holds them, and gives the block that may fill a cache.
    ///
    /// Cells are (field id, cell bytes), id 0 being a whole record or, for a History, one event,
    /// newest first. A schema that the catalog lacks asks for a newer one, unless it was `reloaded`.
    pub fn take_cells<'c>(
        &mut self,
        slot: usize,
        cells: impl IntoIterator<Item = (u16, &'c [u8])>,
        now_ms: i64,
    ) -> std::result::Result<Option<Fill>, StaleCatalog> {
        let Some(read) = self.read_of(slot) else { return Ok(None) };
        let sealed = seal(read, self.room.keys.key(slot), cells, now_ms);
        match sealed {
            Ok((block, oldest)) => {
                let ttl_ms = fill_ttl(read, oldest, now_ms);
                if !self.take_block(slot, &block, now_ms) {
                    // It expired between two clocks: there is no live row any more.
                    self.put(slot, Held::Absent);
                }
                Ok(Some(Fill { block, ttl_ms }))
            }
            Err(error) if error.kind == Kind::UnknownSchema && !self.reloaded => Err(StaleCatalog),
            Err(error) => {
                let unknown = error.kind == Kind::UnknownSchema;
                self.put(slot, if unknown { Held::Unavailable } else { Held::Corrupt });
                Ok(None)
            }
        }
    }

    /// Whether the row's group is cached at all.
    #[must_use]
    pub fn is_cached(&self, slot: usize) -> bool {
        self.read_of(slot).is_some_and(|read| read.group.cache_ttl_ms > 0)
    }

    /// Says that the store was not reached for a row.
    pub fn take_unavailable(&mut self, slot: usize) {
        self.put(slot, Held::Unavailable);
    }

    /// Says the same of every row that is still wanted.
    pub fn give_up(&mut self) {
        for held in &mut self.held {
            if *held == Held::Wanted {
                *held = Held::Unavailable;
            }
        }
    }

    /// Whether any group of the request is kept in the process.
    pub(super) fn keeps_locally(&self) -> bool {
        self.plan.reads.iter().any(|read| read.group.local_ttl_ms > 0)
    }

    /// Key and in-process ttl of a row.
    pub(super) fn local(&self, slot: usize) -> (&[u8], i64) {
        let ttl_ms = self.read_of(slot).map_or(0, |read| read.group.local_ttl_ms);
        (self.room.keys.key(slot), ttl_ms)
    }

    pub(super) fn put(&mut self, slot: usize, held: Held) {
        if let Some(place) = self.held.get_mut(slot) {
            *place = held;
        }
    }

    /// What a block says of a row, with ranges counted from `start`; None when it cannot be used.
    pub(super) fn look(
        &self,
        slot: usize,
        block: &[u8],
        start: usize,
        now_ms: i64,
    ) -> Option<Held> {
        let read = self.read_of(slot)?;
        let digest = key_digest(self.room.keys.key(slot));
        let end = start.saturating_add(block.len());
        match Block::open(block, digest, &read.group).ok()? {
            Block::Absent => Some(Held::Absent),
            Block::Object(object) if !read.is_history() => {
                if is_expired(&read.group, object.oldest_event_time_ms, now_ms) {
                    return None;
                }
                let schema = read.schema_position(object.fingerprint)?;
                let fields = read.group.schemas.get(schema)?.fields.len();
                let all = all_written(object.written, fields);
                let bitmap = start.saturating_add(crate::format::BLOCK_HEADER_BYTES);
                let written = bitmap..bitmap.saturating_add(object.written.len());
                Some(Held::Record {
                    newest: object.newest_event_time_ms,
                    schema,
                    body: end.saturating_sub(object.body.len())..end,
                    written: (!all).then_some(written),
                })
            }
            Block::History(history) if read.is_history() => {
                let expired = is_expired(&read.group, history.oldest_event_time_ms, now_ms);
                let known =
                    |event: block::Event<'_>| read.schema_position(event.fingerprint).is_some();
                (!expired && history.events().all(known)).then_some(Held::History(start..end))
            }
            _ => None,
        }
    }

    fn read_of(&self, slot: usize) -> Option<&PlannedRead> {
        let position = self.plan.reads.len();
        let read = (0..position).find(|read| self.room.keys.slots(*read).contains(&slot))?;
        self.plan.reads.get(read)
    }

    fn slots(&self) -> impl Iterator<Item = (usize, &PlannedRead)> {
        let reads = self.plan.reads.iter().enumerate();
        reads.flat_map(|(position, read)| {
            self.room.keys.slots(position).map(move |slot| (slot, read))
        })
    }
}

impl Engine {
    /// Checks a request and encodes its keys. A caller's mistake is a finished response at once.
    pub fn begin<T>(
        &self,
        call: &ReadCall<'_>,
        deliver: impl FnOnce(&[u8]) -> T,
    ) -> std::result::Result<Pending, T> {
        let mut room = lock(&self.rooms).pop().unwrap_or_default();
        let installed = self.installed();
        match self.prepare(installed.as_deref(), call.body, call.accept, &mut room) {
            Ok(prepared) => {
                let held = vec![Held::Wanted; room.keys.len()];
                let reply = Reply {
                    accept: call.accept,
                    coding: call.coding,
                    now_ms: call.now_ms,
                    request_id: RequestId::new(call.request_id),
                    keep_alive: call.keep_alive,
                };
                let (plan, deadline_ms) = (prepared.plan, prepared.deadline_ms);
                let (bytes, reloaded) = (Vec::new(), call.reloaded);
                Ok(Pending { plan, room, reply, held, bytes, deadline_ms, reloaded })
            }
            Err(problem) => {
                let mut press = self.press(call.request_id);
                let generation = installed.map_or(0, |found| found.catalog.generation);
                let end = End::Problem(problem);
                let start = self.finish(end, call, generation, &room.warning, &mut press);
                let delivered = deliver(press.printed(start));
                self.give_back(room);
                self.keep(press);
                Err(delivered)
            }
        }
    }

    fn answer_rows<T>(
        &self,
        plan: &Plan,
        rows: &mut impl Rows,
        reply: &Reply,
        room: &Room,
        deliver: impl FnOnce(&[u8]) -> T,
    ) -> std::result::Result<T, StaleCatalog> {
        let mut press = self.press(reply.request_id.as_bytes());
        let end = self.run(plan, rows, reply.now_ms, room, &mut press)?;
        let call = ReadCall {
            body: &[],
            accept: reply.accept,
            coding: reply.coding,
            now_ms: reply.now_ms,
            request_id: reply.request_id.as_bytes(),
            keep_alive: reply.keep_alive,
            reloaded: true,
        };
        let start = self.finish(end, &call, plan.generation, &room.warning, &mut press);
        let delivered = deliver(press.printed(start));
        self.keep(press);
        Ok(delivered)
    }

    /// Prints the answer of a request whose rows point into `bytes` (its own when None).
    pub(super) fn answer_pending<T>(
        &self,
        pending: &mut Pending,
        bytes: Option<&[u8]>,
        deliver: impl FnOnce(&[u8]) -> T,
    ) -> std::result::Result<T, StaleCatalog> {
        let own = std::mem::take(&mut pending.bytes);
        let mut rows =
            HeldRows { held: &pending.held, bytes: bytes.unwrap_or(&own), events: Vec::new() };
        let delivered =
            self.answer_rows(&pending.plan, &mut rows, &pending.reply, &pending.room, deliver);
        pending.bytes = own;
        delivered
    }

    /// Answers a request; rows that are still wanted are UNAVAILABLE.
    pub fn finish_pending<T>(
        &self,
        mut pending: Pending,
        deliver: impl FnOnce(&[u8]) -> T,
    ) -> std::result::Result<T, StaleCatalog> {
        pending.give_up();
        let delivered = self.answer_pending(&mut pending, None, deliver);
        self.give_back(pending.room);
        delivered
    }
}

/// Rows that are held, by slot.
struct HeldRows<'p> {
    held: &'p [Held],
    bytes: &'p [u8],
    events: Vec<Event<'p>>,
}

impl Rows for HeldRows<'_> {
    fn visit<V: FnOnce(Row<'_>)>(
        &mut self,
        read: &PlannedRead,
        slot: usize,
        key: &[u8],
        visit: V,
    ) -> std::result::Result<(), StaleCatalog> {
        let row = match self.held.get(slot) {
            Some(Held::Record { newest, schema, body, written }) => {
                let part = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
                Row::Record(Record {
                    newest_event_time_ms: *newest,
                    schema: *schema,
                    body: part(body),
                    written: written.as_ref().map(part),
                })
            }
            Some(Held::History(range)) => {
                self.events.clear();
                let bytes = self.bytes.get(range.clone()).unwrap_or_default();
                if let Ok(Block::History(history)) =
                    Block::open(bytes, key_digest(key), &read.group)
                {
                    self.events.extend(history.events().take(read.limit).filter_map(|event| {
                        let schema = read.schema_position(event.fingerprint)?;
                        let (event_time_ms, body) = (event.event_time_ms, event.body);
                        Some(Event { event_time_ms, schema, body })
                    }));
                }
                if self.events.is_empty() { Row::Missing } else { Row::Events(&self.events) }
            }
            Some(Held::Absent) => Row::Missing,
            Some(Held::Corrupt) => Row::Corrupt,
            Some(Held::Unavailable | Held::Wanted) | None => Row::Unavailable,
        };
        visit(row);
        Ok(())
    }
}

/// The block of a row, and the event time of its oldest live cell; None for an absent row.
fn seal<'c>(
    read: &PlannedRead,
    key: &[u8],
    cells: impl IntoIterator<Item = (u16, &'c [u8])>,
    now_ms: i64,
) -> Result<(Vec<u8>, Option<i64>)> {
    let digest = key_digest(key);
    if read.is_history() {
        let mut events = Vec::new();
        for (_, bytes) in cells {
            let cell = Cell::open(bytes)?;
            if read.schema_position(cell.fingerprint).is_none() {
                return Err(Error::new(Kind::UnknownSchema, "an event of an unknown schema"));
            }
            let event_time_ms = cell.event_time_ms();
            if !is_expired(&read.group, event_time_ms, now_ms) {
                let (fingerprint, body) = (cell.fingerprint, cell.body);
                events.push(block::Event { event_time_ms, fingerprint, body });
            }
        }
        let oldest = events.last().map(|event| event.event_time_ms);
        return Ok((block::seal_history(digest, events)?, oldest));
    }
    let cells: Vec<(u16, &[u8])> = cells.into_iter().collect();
    let folded = match cells.as_slice() {
        [(0, cell)] => lone_record(&read.group, cell, now_ms)?,
        cells => fold(&read.group, cells.iter().copied(), None, now_ms)?,
    };
    Ok(match folded {
        Some(folded) => (block::seal_object(digest, &folded), Some(folded.oldest_event_time_ms)),
        None => (block::seal_absent(digest), None),
    })
}

/// A lone whole-record cell as it stands, in its writer's schema: so that an Avro answer passes the
/// same bytes through from a block as from the store (semantics 13).
fn lone_record<'c>(group: &Group, cell: &'c [u8], now_ms: i64) -> Result<Option<Folded<'c>>> {
    let cell = Cell::open(cell)?;
    let event_time_ms = cell.event_time_ms();
    if is_expired(group, event_time_ms, now_ms) {
        return Ok(None);
    }
    let schema = group
        .schema(cell.fingerprint)
        .ok_or_else(|| Error::new(Kind::UnknownSchema, "the catalog lacks the writer's schema"))?;
    Ok(Some(Folded {
        newest_event_time_ms: event_time_ms,
        oldest_event_time_ms: event_time_ms,
        written: None,
        schema: Arc::clone(schema),
        body: Cow::Borrowed(cell.body),
    }))
}

/// Whether the first `fields` bits are set; those behind them are not, as [`Block::open`] saw to it.
fn all_written(bits: &[u8], fields: usize) -> bool {
    let (whole, used) = (fields / 8, fields % 8);
    let last = bits.get(whole).copied().unwrap_or_default();
    bits.iter().take(whole).all(|byte| *byte == 0xFF)
        && last.count_ones() as usize == used
        && bits.len() == fields.div_ceil(8)
}

/// How long a fill may live: the cache's ttl, but not past the oldest cell's own end.
fn fill_ttl(read: &PlannedRead, oldest: Option<i64>, now_ms: i64) -> i64 {
    let cache = read.group.cache_ttl_ms;
    match (oldest, read.group.ttl_ms) {
        (None, _) => cache.min(ABSENT_TTL_MAX_MS),
        (Some(oldest), Some(ttl)) => cache.min(oldest.saturating_add(ttl).saturating_sub(now_ms)),
        (Some(_), None) => cache,
    }
}
