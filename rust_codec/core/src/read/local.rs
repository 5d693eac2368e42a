//! The in-process tier: blocks that were just read, for groups that ask for it (`local_ttl`).
//!
//! Bounded by bytes, the least recently read goes first. It holds what a cache node answered, so it
//! can only make an answer older by the group's `local_ttl`, which is the staleness the group
//! declared (semantics 19).

use lru::LruCache;

/// What one entry costs beside its key and block: map slot, list links, lengths.
const ENTRY_BYTES: usize = 96;

#[derive(Debug)]
struct Entry {
    block: Box<[u8]>,
    until_ms: i64,
}

/// Blocks by key bytes.
#[derive(Debug)]
pub struct LocalTier {
    entries: LruCache<Box<[u8]>, Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl LocalTier {
    /// An empty tier; with 0 bytes it stays empty.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// Bytes held now.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The block of a key, if it is still good.
    pub fn get(&mut self, key: &[u8], now_ms: i64) -> Option<&[u8]> {
        if self.entries.peek(key)?.until_ms <= now_ms {
            self.remove(key);
            return None;
        }
        self.entries.get(key).map(|entry| &*entry.block)
    }

    /// The block of a key and until when it is good, left where it stands.
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Option<(&[u8], i64)> {
        self.entries.peek(key).map(|entry| (&*entry.block, entry.until_ms))
    }

    /// Keeps a block until a time; what was read longest ago makes room.
    pub fn put(&mut self, key: &[u8], block: &[u8], until_ms: i64) {
        let weight = weight(key, block);
        if weight > self.bytes_max {
            return;
        }
        self.remove(key);
        self.entries.put(key.into(), Entry { block: block.into(), until_ms });
        self.bytes = self.bytes.saturating_add(weight);
        while self.bytes > self.bytes_max {
            let Some((key, entry)) = self.entries.pop_lru() else { return };
            self.bytes = self.bytes.saturating_sub(self::weight(&key, &entry.block));
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes = self.bytes.saturating_sub(weight(key, &entry.block));
        }
    }
}

const fn weight(key: &[u8], block: &[u8]) -> usize {
    key.len().saturating_add(block.len()).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_there_until_its_time_and_not_after() {
        let mut tier = LocalTier::new(1_000);
        tier.put(b"key", b"block", 10);
        assert_eq!(tier.peek(b"key"), Some((&b"block"[..], 10)));
        assert_eq!(tier.get(b"key", 9), Some(&b"block"[..]));
        assert_eq!(tier.get(b"key", 10), None);
        assert_eq!(tier.bytes(), 0);
    }

    #[test]
    fn what_was_read_longest_ago_makes_room() {
        let mut tier = LocalTier::new(3 * (ENTRY_BYTES + 2));
        for key in [b"a", b"b", b"c"] {
            tier.put(key, b"x", 10);
        }
        tier.get(b"a", 0);
        tier.put(b"d", b"x", 10);
        assert_eq!(tier.get(b"b", 0), None);
        assert!([b"a", b"c", b"d"].iter().all(|key| tier.get(*key, 0).is_some()));
    }

    #[test]
    fn the_bytes_never_pass_the_bound_and_replacing_counts_once() {
        let mut tier = LocalTier::new(5_000);
        for number in 0..1_000_u32 {
            tier.put(&(number % 70).to_be_bytes(), &vec![0; (number % 300) as usize], 10);
            assert!(tier.bytes() <= 5_000);
        }
        tier.put(b"huge", &[0; 6_000], 10);
        assert_eq!(tier.get(b"huge", 0), None);
    }

    #[test]
    fn without_bytes_nothing_is_kept() {
        let mut tier = LocalTier::new(0);
        tier.put(b"key", b"block", 10);
        assert_eq!(tier.get(b"key", 0), None);
    }
}
