//! Reads through cache nodes: requests in, MGETs out, replies in, responses out.
//!
//! One pipelined connection a node. Python moves bytes between two transports; everything between
//! is here, and a request that the cache answers whole costs three calls: [`CachedReads::submit`],
//! [`CachedReads::take`] once per loop turn for all requests, [`CachedReads::feed`]. A request that
//! the cache does not answer whole comes back as [`Pending`], its hits kept, for the store.
//!
//! Replies come in the order of commands on each connection. A reply that is no reply ends the
//! connection ([`CachedReads::drop_node`]): whatever waited for it goes to the store. A block that
//! is another key's or torn is a miss, so a swapped reply can never become a wrong value.

use std::collections::VecDeque;

use super::engine::{Engine, ReadCall};
use super::local::LocalTier;
use super::pending::{Pending, Wanted};
use slab::Slab;

use crate::error::{Error, Kind, Result};
use crate::key::key_digest;
use crate::placement::Placement;
use crate::resp::{Item, Reply, ReplyScan, write_argument, write_arguments, write_command};

/// What the caller knows a command by.
pub type Token = u64;

/// A finished thing. Requests come back with what the caller knows them by.
#[derive(Debug)]
pub enum Done<C, T> {
    /// A whole response.
    Answered(C, T),
    /// Rows are still wanted: read them from the store, then finish the request.
    Missed(C, Box<Pending>),
    /// A row is of a newer catalog: load it once and submit the request again (semantics 20).
    Stale(C),
    /// The reply to a command of the caller's own; None when the connection ended first.
    Replied(Token, Option<Vec<Answer>>),
}

/// One item of a reply to a command of the caller's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing there.
    Null,
    /// Bytes or a status.
    Bytes(Vec<u8>),
    /// A number.
    Integer(i64),
    /// The node refused.
    Error(String),
}

/// Totals since start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CacheCounters {
    /// Rows answered from a block.
    pub hits: u64,
    /// Rows that no usable block was there for.
    pub misses: u64,
    /// Blocks that were there and could not be used: torn, another key's, expired.
    pub unusable: u64,
    /// Replies that were errors of a node.
    pub errors: u64,
    /// Rows answered from the in-process tier.
    pub local_hits: u64,
}

/// Most bytes that a buffer of a node keeps once it is empty.
const NODE_BYTES_MAX: usize = 1 << 18;

/// What a connection waits for.
#[derive(Debug)]
enum Expected {
    /// Blocks of these slots of a request; None: of all its wanted rows, in order.
    Blocks(usize, Option<Vec<usize>>),
    /// A reply that the caller wants.
    Command(Token),
}

#[derive(Debug, Default)]
struct Node {
    /// Whether a connection is there.
    up: bool,
    out: Vec<u8>,
    buffer: Vec<u8>,
    scan: ReplyScan,
    queue: VecDeque<Expected>,
    /// Replies that came since the connection was ready.
    answered: u64,
}

#[derive(Debug)]
struct Waiting<C> {
    caller: C,
    pending: Box<Pending>,
    /// Nodes that have not answered yet.
    missing: usize,
    /// When it was asked, ms: a block may be as old as that.
    asked_ms: i64,
}

/// The requests that wait for cache nodes. `C` is whatever their caller knows them by.
#[derive(Debug)]
pub struct CachedReads<C> {
    placement: Placement,
    nodes: Vec<Node>,
    waiting: Slab<Waiting<C>>,
    local: LocalTier,
    /// Totals since start.
    pub counters: CacheCounters,
}

impl<C> CachedReads<C> {
    /// No connection is there yet: until [`Self::node_up`] every request goes to the store.
    #[must_use]
    pub fn new(placement: Placement, local_bytes_max: usize) -> Self {
        let nodes = (0..placement.nodes()).map(|_| Node::default()).collect();
        let counters = CacheCounters::default();
        let local = LocalTier::new(local_bytes_max);
        Self { placement, nodes, waiting: Slab::new(), local, counters }
    }

    /// Where keys are.
    #[must_use]
    pub const fn placement(&self) -> &Placement {
        &self.placement
    }

    /// A new connection to a node is ready: what was queued for an older one is gone already.
    pub fn node_up(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            *node = Node { up: true, ..Node::default() };
        }
    }

    /// Replies that came from a node since its connection was ready, and those that it still owes.
    #[must_use]
    pub fn progress(&self, node: usize) -> (u64, usize) {
        self.nodes.get(node).map_or((0, 0), |node| (node.answered, node.queue.len()))
    }

    /// Starts a request of a caller that is told how much work it is ([`Pending::work`]; none when
    /// it is wrong). Done at once when it is wrong (the finished refusal) or when no node has
    /// anything to say about its rows.
    pub fn submit<T>(
        &mut self,
        engine: &Engine,
        call: &ReadCall<'_>,
        caller: impl FnOnce(u64) -> C,
        deliver: &mut impl FnMut(&[u8]) -> T,
    ) -> Option<Done<C, T>> {
        let mut pending = match engine.begin(call, &mut *deliver) {
            Ok(pending) => Box::new(pending),
            Err(refused) => return Some(Done::Answered(caller(0), refused)),
        };
        let caller = caller(pending.work());
        if pending.keeps_locally() && self.take_local(&mut pending, call.now_ms) {
            return Some(finish(
                engine,
                Waiting { caller, pending, missing: 0, asked_ms: call.now_ms },
                None,
                deliver,
            ));
        }
        let asked = self.ask(&pending, self.waiting.vacant_key());
        if asked == 0 {
            return Some(Done::Missed(caller, pending));
        }
        self.waiting.insert(Waiting { caller, pending, missing: asked, asked_ms: call.now_ms });
        None
    }

    /// Takes what the process holds itself; true when no row is wanted any more.
    fn take_local(&mut self, pending: &mut Pending, now_ms: i64) -> bool {
        for slot in 0..pending.held.len() {
            let (key, ttl_ms) = pending.local(slot);
            if ttl_ms <= 0 {
                continue;
            }
            if let Some(block) = self.local.get(key, now_ms)
                && pending.take_block(slot, block, now_ms)
            {
                self.counters.local_hits = self.counters.local_hits.saturating_add(1);
            }
        }
        pending.wanted_count() == 0
    }

    /// Bytes that the in-process tier holds.
    #[must_use]
    pub const fn local_bytes(&self) -> usize {
        self.local.bytes()
    }

    /// What the in-process tier holds of a key, and until when.
    #[must_use]
    pub fn local_block(&self, key: &[u8]) -> Option<(&[u8], i64)> {
        self.local.peek(key)
    }

    /// Queues a command of the caller's own, such as a script; false when the node is down.
    pub fn command(&mut self, node: usize, arguments: &[&[u8]], token: Token) -> bool {
        let Some(node) = self.nodes.get_mut(node).filter(|node| node.up) else { return false };
        write_command(&mut node.out, arguments.len());
        for argument in arguments {
            write_argument(&mut node.out, argument);
        }
        node.queue.push_back(Expected::Command(token));
        true
    }

    /// The bytes to send to a node now; empty when there is nothing to say.
    pub fn take<T>(&mut self, node: usize, deliver: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let node = self.nodes.get_mut(node).filter(|node| !node.out.is_empty())?;
        let delivered = deliver(&node.out);
        empty(&mut node.out);
        Some(delivered)
    }

    /// Takes bytes from a node and gives every request and command that they finish, in order.
    /// An error means that the connection cannot be trusted: end it and call [`Self::drop_node`].
    pub fn feed<T>(
        &mut self,
        engine: &Engine,
        node: usize,
        data: &[u8],
        now_ms: i64,
        deliver: &mut impl FnMut(&[u8]) -> T,
        done: &mut Vec<Done<C, T>>,
    ) -> Result<()> {
        let Some(place) = self.nodes.get_mut(node) else { return Ok(()) };
        let mut kept = std::mem::take(&mut place.buffer);
        let mut scan = std::mem::take(&mut place.scan);
        // Replies mostly end with the bytes they came in: those are read where they are.
        let alone = kept.is_empty();
        if !alone {
            kept.extend_from_slice(data);
        }
        let bytes = if alone { data } else { &kept };
        let mut start: usize = 0;
        let outcome = loop {
            let rest = bytes.get(start..).unwrap_or_default();
            match scan.advance(rest) {
                Ok(Some(reply)) => {
                    let length = reply.length;
                    let fits = self.reply(engine, node, rest, &reply, now_ms, deliver, done);
                    start = start.saturating_add(length);
                    scan.reset();
                    if !fits {
                        let message = "a reply that answers nothing we asked";
                        break Err(Error::new(Kind::Corrupt, message).at(start));
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if alone {
            kept.extend_from_slice(data.get(start..).unwrap_or_default());
        } else {
            kept.drain(..start.min(kept.len()));
            if kept.is_empty() {
                empty(&mut kept);
            }
        }
        if let Some(place) = self.nodes.get_mut(node) {
            place.buffer = kept;
            place.scan = scan;
        }
        outcome
    }

    /// The connection to a node ended: gives back whatever waited for it.
    pub fn drop_node<T>(&mut self, node: usize, done: &mut Vec<Done<C, T>>) {
        let Some(place) = self.nodes.get_mut(node) else { return };
        let queue = std::mem::take(place).queue;
        for expected in queue {
            match expected {
                Expected::Command(token) => done.push(Done::Replied(token, None)),
                Expected::Blocks(index, _) => {
                    if let Some(waiting) = self.one_less(index) {
                        done.push(Done::Missed(waiting.caller, waiting.pending));
                    }
                }
            }
        }
    }

    /// Queues the MGETs of a request; the number of nodes that will answer.
    fn ask(&mut self, pending: &Pending, index: usize) -> usize {
        if let [node] = self.nodes.as_mut_slice() {
            return ask_only_node(node, &self.placement, pending, index);
        }
        let mut slots: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for wanted in pending.wanted().filter(|wanted| wanted.cache_ttl_ms > 0) {
            if let Some(slots) = slots.get_mut(self.placement.node(key_digest(wanted.key))) {
                slots.push(wanted.slot);
            }
        }
        let mut asked = 0_usize;
        for (node, slots) in self.nodes.iter_mut().zip(slots) {
            if !node.up || slots.is_empty() {
                continue;
            }
            write_mget(&mut node.out, slots.len());
            for slot in &slots {
                let key = pending.room.keys.key(*slot);
                write_arguments(&mut node.out, &[self.placement.block_prefix(), key]);
            }
            node.queue.push_back(Expected::Blocks(index, Some(slots)));
            asked = asked.saturating_add(1);
        }
        asked
    }

    /// Takes one reply. False when nothing was asked, or not this: replies and commands no longer
    /// stand side by side, and everything after would be given to the wrong one.
    #[expect(clippy::too_many_arguments, reason = "one reply in the midst of a feed")]
    fn reply<T>(
        &mut self,
        engine: &Engine,
        node: usize,
        bytes: &[u8],
        reply: &Reply<'_>,
        now_ms: i64,
        deliver: &mut impl FnMut(&[u8]) -> T,
        done: &mut Vec<Done<C, T>>,
    ) -> bool {
        let expected = self.nodes.get_mut(node).and_then(|node| {
            node.answered = node.answered.saturating_add(1);
            node.queue.pop_front()
        });
        match expected {
            None => false,
            Some(Expected::Command(token)) => {
                let answers = reply.items.iter().map(|item| answer_of(item, bytes)).collect();
                done.push(Done::Replied(token, Some(answers)));
                true
            }
            Some(Expected::Blocks(index, slots)) => {
                let Some(waiting) = self.waiting.get_mut(index) else { return false };
                if waiting.pending.keeps_locally() {
                    let local = &mut self.local;
                    let asked_ms = waiting.asked_ms;
                    keep_local(local, &waiting.pending, slots.as_deref(), bytes, reply, asked_ms);
                }
                let asked = slots.as_ref().map_or(waiting.pending.held.len(), Vec::len);
                let fits = is_error(reply) || (reply.array && reply.items.len() == asked);
                // A reply that may be answered from where it lies is not copied.
                let last = waiting.missing == 1;
                let in_place = last && waiting.pending.bytes.is_empty();
                waiting.pending.reply.now_ms = now_ms;
                let counters = &mut self.counters;
                take_blocks(
                    &mut waiting.pending,
                    slots.as_deref(),
                    bytes,
                    reply,
                    in_place,
                    counters,
                );
                if let Some(waiting) = self.one_less(index) {
                    done.push(finish(engine, waiting, in_place.then_some(bytes), deliver));
                }
                fits
            }
        }
    }

    /// One node fewer to wait for; the request when it was the last.
    fn one_less(&mut self, index: usize) -> Option<Waiting<C>> {
        let waiting = self.waiting.get_mut(index)?;
        waiting.missing = waiting.missing.saturating_sub(1);
        if waiting.missing > 0 { None } else { self.waiting.try_remove(index) }
    }
}

/// One node holds every key: its MGET names the wanted rows in order.
fn ask_only_node(node: &mut Node, placement: &Placement, pending: &Pending, index: usize) -> usize {
    let cached = |wanted: &Wanted<'_>| wanted.cache_ttl_ms > 0;
    let count = pending.wanted().filter(cached).count();
    if !node.up || count == 0 {
        return 0;
    }
    write_mget(&mut node.out, count);
    for wanted in pending.wanted().filter(cached) {
        write_arguments(&mut node.out, &[placement.block_prefix(), wanted.key]);
    }
    let all = count == pending.held.len();
    let slots = (!all).then(|| pending.wanted().filter(cached).map(|wanted| wanted.slot).collect());
    node.queue.push_back(Expected::Blocks(index, slots));
    1
}

/// Keeps the blocks of a reply in the process, for groups that ask for it. They are checked when
/// they are read, and count from when they were asked for: a slow reply makes them no younger.
fn keep_local(
    local: &mut LocalTier,
    pending: &Pending,
    slots: Option<&[usize]>,
    bytes: &[u8],
    reply: &Reply<'_>,
    asked_ms: i64,
) {
    for (position, item) in reply.items.iter().enumerate() {
        let slot = slots.map_or(Some(position), |slots| slots.get(position).copied());
        if let (Some(slot), Item::Bulk(range)) = (slot, item) {
            let (key, ttl_ms) = pending.local(slot);
            if ttl_ms > 0 {
                let block = bytes.get(range.clone()).unwrap_or_default();
                local.put(key, block, asked_ms.saturating_add(ttl_ms));
            }
        }
    }
}

/// Empties a buffer, and gives back what a crowd of requests made it grow to.
fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(NODE_BYTES_MAX);
}

fn is_error(reply: &Reply<'_>) -> bool {
    !reply.array && matches!(reply.items, [Item::Error(_)])
}

fn write_mget(out: &mut Vec<u8>, keys: usize) {
    write_command(out, keys.saturating_add(1));
    write_argument(out, b"MGET");
}

/// Puts the blocks of a reply into a request's rows. With `in_place` the rows point into `bytes`.
fn take_blocks(
    pending: &mut Pending,
    slots: Option<&[usize]>,
    bytes: &[u8],
    reply: &Reply<'_>,
    in_place: bool,
    counters: &mut CacheCounters,
) {
    let now_ms = pending.reply.now_ms;
    let rows = slots.map_or(pending.held.len(), <[usize]>::len);
    if !reply.array {
        counters.errors = counters.errors.saturating_add(1);
    }
    let mut missed: u64 = 0;
    for position in 0..rows {
        let slot = slots
            .as_ref()
            .map_or(position, |slots| slots.get(position).copied().unwrap_or_default());
        let item = reply.items.get(position).filter(|_| reply.array);
        let taken = match item {
            Some(Item::Bulk(range)) => {
                let block = bytes.get(range.clone()).unwrap_or_default();
                let taken = if in_place {
                    let held = pending.look(slot, block, range.start, now_ms);
                    held.map(|held| pending.put(slot, held)).is_some()
                } else {
                    pending.take_block(slot, block, now_ms)
                };
                let unusable = u64::from(!taken);
                counters.unusable = counters.unusable.saturating_add(unusable);
                taken
            }
            _ => false,
        };
        counters.hits = counters.hits.saturating_add(u64::from(taken));
        missed = missed.saturating_add(u64::from(!taken));
    }
    counters.misses = counters.misses.saturating_add(missed);
    if in_place && pending.wanted_count() > 0 {
        keep_blocks(pending, bytes);
    }
}

/// Copies the blocks that rows point to, because the bytes they lie in will go.
fn keep_blocks(pending: &mut Pending, bytes: &[u8]) {
    let mut kept = Vec::new();
    for held in &mut pending.held {
        held.move_into(&mut kept, bytes);
    }
    pending.bytes = kept;
}

fn finish<C, T>(
    engine: &Engine,
    waiting: Waiting<C>,
    bytes: Option<&[u8]>,
    deliver: &mut impl FnMut(&[u8]) -> T,
) -> Done<C, T> {
    let Waiting { caller, mut pending, .. } = waiting;
    if pending.wanted_count() > 0 {
        return Done::Missed(caller, pending);
    }
    let delivered = engine.answer_pending(&mut pending, bytes, deliver);
    engine.give_back(pending.room);
    match delivered {
        Ok(response) => Done::Answered(caller, response),
        Err(_) => Done::Stale(caller),
    }
}

fn answer_of(item: &Item, bytes: &[u8]) -> Answer {
    let part = |range: &std::ops::Range<usize>| bytes.get(range.clone()).unwrap_or_default();
    match item {
        Item::Null => Answer::Null,
        Item::Bulk(range) | Item::Status(range) => Answer::Bytes(part(range).to_vec()),
        Item::Integer(number) => Answer::Integer(*number),
        Item::Error(range) => Answer::Error(String::from_utf8_lossy(part(range)).into_owned()),
    }
}
