//! Columns in the making: one lane a node of the Arrow schema, filled value by value and printed as
//! the node's buffers.

use arrow_ipc::{Buffer, FieldNode};

use super::BYTES_ALIGNED;

/// What a lane holds; children follow their parent, depth first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Booleans: one byte each here, one bit each on the wire.
    Bits,
    /// Values of so many bytes.
    Fixed(usize),
    /// Text or Bytes.
    Variable,
    /// Lists of the next lane's items.
    List,
    /// So many items of the next lane each.
    Vector(usize),
    /// Records of so many child columns.
    Record(usize),
}

/// The values of one node so far.
#[derive(Debug, Default)]
pub(super) struct Lane {
    length: usize,
    /// Positions without a value, rising.
    nulls: Vec<usize>,
    /// Where each value ends, in `room` or among the items of a list.
    ends: Vec<usize>,
    /// Bytes of values, and behind them what earlier answers left: so that a value is one store.
    room: Vec<u8>,
    used: usize,
}

/// Least bytes by which a lane's room grows.
const GROWTH_BYTES_MIN: usize = 1_024;

/// What the record batch says of its lanes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) nodes: Vec<FieldNode>,
    pub(super) buffers: Vec<Buffer>,
    /// Bytes of all buffers with their padding.
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.buffers.clear();
        self.bytes = 0;
    }

    /// A buffer counts without its padding.
    fn add(&mut self, length: usize) {
        self.buffers.push(Buffer::new(wide(self.bytes), wide(length)));
        self.bytes = self.bytes.saturating_add(padded(length));
    }
}

impl Lane {
    pub(super) fn clear(&mut self) {
        self.length = 0;
        self.nulls.clear();
        self.ends.clear();
        self.used = 0;
    }

    fn values(&self) -> &[u8] {
        self.room.get(..self.used).unwrap_or_default()
    }

    /// The next so many bytes of room.
    #[inline]
    fn take(&mut self, count: usize) -> &mut [u8] {
        let start = self.used;
        self.used = start.saturating_add(count);
        if self.used > self.room.len() {
            self.grow();
        }
        self.room.get_mut(start..self.used).unwrap_or_default()
    }

    #[cold]
    fn grow(&mut self) {
        let length = self.used.max(self.room.len().saturating_mul(2)).max(GROWTH_BYTES_MIN);
        self.room.resize(length, 0);
    }

    /// Count of values, nulls included.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    #[inline]
    pub(super) fn push<const N: usize>(&mut self, value: [u8; N]) {
        if let Some(slot) = self.take(N).first_chunk_mut() {
            *slot = value;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Values of a fixed width, as many as `bytes` holds.
    #[inline]
    pub(super) fn push_all(&mut self, bytes: &[u8], count: usize) {
        self.take(bytes.len()).copy_from_slice(bytes);
        self.length = self.length.saturating_add(count);
    }

    /// The same byte so many times.
    pub(super) fn fill(&mut self, byte: u8, count: usize) {
        self.take(count).fill(byte);
        self.length = self.length.saturating_add(count);
    }

    #[inline]
    pub(super) fn push_variable(&mut self, bytes: &[u8]) {
        self.take(bytes.len()).copy_from_slice(bytes);
        self.push_end(self.used);
    }

    /// A list that ends with so many items in the child lane.
    #[inline]
    pub(super) fn push_end(&mut self, end: usize) {
        self.ends.push(end);
        self.length = self.length.saturating_add(1);
    }

    /// One more value, all of which is in child lanes.
    #[inline]
    pub(super) const fn push_parent(&mut self) {
        self.length = self.length.saturating_add(1);
    }

    /// Changes one byte of the last `count` fixed values of one byte.
    pub(super) fn set_in_last(&mut self, count: usize, position: usize, byte: u8) {
        let first = self.used.saturating_sub(count);
        if let Some(slot) = self.room.get_mut(first.saturating_add(position)) {
            *slot = byte;
        }
    }

    fn last_end(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Notes the node and its buffers, its values repeated so many times.
    pub(super) fn measure(&self, kind: Kind, times: usize, batch: &mut Batch) {
        let length = self.length.saturating_mul(times);
        let nulls = self.nulls.len().saturating_mul(times);
        batch.nodes.push(FieldNode::new(wide(length), wide(nulls)));
        batch.add(if nulls > 0 { length.div_ceil(8) } else { 0 });
        let offsets = length.saturating_add(1).saturating_mul(size_of::<i32>());
        let values = self.used.saturating_mul(times);
        match kind {
            Kind::Bits => batch.add(length.div_ceil(8)),
            Kind::Fixed(_) => batch.add(values),
            Kind::Variable => {
                batch.add(offsets);
                batch.add(values);
            }
            Kind::List => batch.add(offsets),
            Kind::Vector(_) | Kind::Record(_) => {}
        }
    }

    /// Appends the buffers that [`Self::measure`] noted.
    pub(super) fn print(&self, kind: Kind, times: usize, out: &mut Vec<u8>) {
        let length = self.length.saturating_mul(times);
        if !self.nulls.is_empty() {
            buffer(out, |out| self.print_validity(times, out));
        }
        match kind {
            Kind::Bits => buffer(out, |out| {
                let bits = self.values().iter().cycle().take(length);
                pack(bits.map(|byte| *byte != 0), length, out);
            }),
            Kind::Fixed(_) => buffer(out, |out| self.print_values(times, out)),
            Kind::Variable => {
                buffer(out, |out| self.print_offsets(times, out));
                buffer(out, |out| self.print_values(times, out));
            }
            Kind::List => buffer(out, |out| self.print_offsets(times, out)),
            Kind::Vector(_) | Kind::Record(_) => {}
        }
    }

    fn print_values(&self, times: usize, out: &mut Vec<u8>) {
        for _ in 0..times {
            out.extend_from_slice(self.values());
        }
    }

    fn print_validity(&self, times: usize, out: &mut Vec<u8>) {
        let length = self.length.saturating_mul(times);
        let mut nulls = self.nulls.iter().peekable();
        let once = (0..self.length).map(|position| nulls.next_if(|at| **at == position).is_none());
        let once: Vec<bool> = once.collect();
        pack(once.iter().copied().cycle().take(length), length, out);
    }

    fn print_offsets(&self, times: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&0_i32.to_le_bytes());
        for time in 0..times {
            let base = self.last_end().saturating_mul(time);
            for end in &self.ends {
                // The bound on an answer's bytes keeps offsets within 31 bits.
                let end = i32::try_from(base.saturating_add(*end)).unwrap_or(i32::MAX);
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
    }
}

/// One buffer and its padding.
fn buffer(out: &mut Vec<u8>, print: impl FnOnce(&mut Vec<u8>)) {
    let before = out.len();
    print(out);
    let length = out.len().saturating_sub(before);
    out.resize(before.saturating_add(padded(length)), 0);
}

const fn padded(length: usize) -> usize {
    length.saturating_add(BYTES_ALIGNED - 1) & !(BYTES_ALIGNED - 1)
}

/// Appends a null to the column whose top lane is `at`.
pub(super) fn push_null(lanes: &mut [Lane], kinds: &[Kind], at: usize) {
    let (Some(lane), Some(kind)) = (lanes.get_mut(at), kinds.get(at)) else { return };
    lane.nulls.push(lane.length);
    match *kind {
        Kind::Bits => lane.push([0]),
        Kind::Fixed(width) => {
            lane.take(width).fill(0);
            lane.push_parent();
        }
        Kind::Variable | Kind::List => lane.push_end(lane.last_end()),
        Kind::Record(_) => lane.push_parent(),
        Kind::Vector(items) => {
            // Its items stand there all the same, without meaning.
            lane.push_parent();
            let child = at.saturating_add(1);
            if let (Some(lane), Some(Kind::Fixed(width))) = (lanes.get_mut(child), kinds.get(child))
            {
                lane.take(items.saturating_mul(*width)).fill(0);
                lane.length = lane.length.saturating_add(items);
            }
        }
    }
}

/// Cuts a column back to so many values, whatever a half-read row left in it; gives the lane after
/// its last.
pub(super) fn cut(lanes: &mut [Lane], kinds: &[Kind], at: usize, length: usize) -> usize {
    let next = at.saturating_add(1);
    let (Some(lane), Some(kind)) = (lanes.get_mut(at), kinds.get(at)) else { return next };
    lane.length = length;
    lane.nulls.retain(|position| *position < length);
    match *kind {
        Kind::Bits => lane.used = length,
        Kind::Fixed(width) => lane.used = length.saturating_mul(width),
        Kind::Variable => {
            lane.ends.truncate(length);
            lane.used = lane.last_end();
        }
        Kind::List => {
            lane.ends.truncate(length);
            let items = lane.last_end();
            return cut(lanes, kinds, next, items);
        }
        Kind::Vector(items) => return cut(lanes, kinds, next, length.saturating_mul(items)),
        Kind::Record(columns) => {
            return (0..columns).fold(next, |child, _| cut(lanes, kinds, child, length));
        }
    }
    next
}

/// Bits, the lowest of each byte first.
fn pack(bits: impl Iterator<Item = bool>, length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start.saturating_add(length.div_ceil(8)), 0);
    let bytes = out.get_mut(start..).unwrap_or_default();
    for (position, bit) in bits.enumerate() {
        if let Some(byte) = bytes.get_mut(position / 8) {
            *byte |= u8::from(bit) << (position % 8);
        }
    }
}

fn wide(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
