//! Which cache node holds a key, and what its block and lease are called there.
//!
//! # Cache keys
//!
//! | bytes | what |
//! | --- | --- |
//! | `hb` or `hl` | a block, a lease |
//! | digits, `:` | the epoch: a changed node list is a new key space (semantics 19) |
//! | n | key bytes, which open with the group id |
//!
//! Nodes are chosen by rendezvous hashing (Thaler and Ravishankar 1998): each node scores the key,
//! the highest score wins, so a node that leaves moves only its own keys. A node that is down keeps
//! its keys all the same: they are misses, never remapped (semantics 19).

use crate::error::{Error, Kind, Result};
use crate::key::key_digest;

/// Most cache nodes.
pub const NODES_MAX: usize = 256;

/// The nodes of one cache and the epoch of their list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    seeds: Vec<u64>,
    block: Vec<u8>,
    lease: Vec<u8>,
}

impl Placement {
    /// Nodes by name (`host:port`); the order of the list does not matter to where a key goes.
    pub fn new<'n>(nodes: impl IntoIterator<Item = &'n str>, epoch: u32) -> Result<Self> {
        let seeds: Vec<u64> = nodes.into_iter().map(|name| key_digest(name.as_bytes())).collect();
        if seeds.is_empty() || seeds.len() > NODES_MAX {
            let message = format!("a cache has 1 to {NODES_MAX} nodes, not {}", seeds.len());
            return Err(Error::new(Kind::Schema, message));
        }
        let (block, lease) = (format!("hb{epoch}:"), format!("hl{epoch}:"));
        Ok(Self { seeds, block: block.into_bytes(), lease: lease.into_bytes() })
    }

    /// Number of nodes.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.seeds.len()
    }

    /// Position of the node that holds the key of this digest.
    #[must_use]
    pub fn node(&self, digest: u64) -> usize {
        if self.seeds.len() < 2 {
            return 0;
        }
        let scores = self.seeds.iter().map(|seed| mix(digest ^ seed)).enumerate();
        scores.max_by_key(|(_, score)| *score).map_or(0, |(position, _)| position)
    }

    /// What stands before the key bytes of a block.
    #[must_use]
    pub fn block_prefix(&self) -> &[u8] {
        &self.block
    }

    /// What stands before the key bytes of a lease.
    #[must_use]
    pub fn lease_prefix(&self) -> &[u8] {
        &self.lease
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of the input moves every bit.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["a:6379", "b:6379", "c:6379", "d:6379"];

    fn homes(names: &[&'static str]) -> Vec<&'static str> {
        let placement = Placement::new(names.iter().copied(), 1).unwrap();
        let keys = (0..4_000_u32).map(|number| key_digest(&number.to_be_bytes()));
        keys.map(|digest| names[placement.node(digest)]).collect()
    }

    #[test]
    fn keys_are_spread_evenly() {
        let homes = homes(&NAMES);
        for name in NAMES {
            let share = homes.iter().filter(|home| **home == name).count();
            assert!((900..=1_100).contains(&share), "{name} has {share} of 4,000");
        }
    }

    #[test]
    fn the_order_of_the_list_moves_no_key() {
        assert_eq!(homes(&NAMES), homes(&["c:6379", "a:6379", "d:6379", "b:6379"]));
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_keys() {
        let before = homes(&NAMES);
        let after = homes(&NAMES[..3]);
        for (before, after) in before.iter().zip(&after) {
            assert!(*before == "d:6379" || before == after);
        }
    }

    #[test]
    fn a_new_epoch_is_a_new_key_space() {
        let (first, second) =
            (Placement::new(NAMES, 1).unwrap(), Placement::new(NAMES, 2).unwrap());
        assert_ne!(first.block_prefix(), second.block_prefix());
        assert_ne!(first.block_prefix(), first.lease_prefix());
    }

    #[test]
    fn where_keys_go_is_frozen() {
        // Another version of this program must look where this one wrote.
        let placement = Placement::new(NAMES, 1).unwrap();
        let nodes: Vec<usize> =
            (0..8_u32).map(|key| placement.node(key_digest(&key.to_be_bytes()))).collect();
        assert_eq!(nodes, FROZEN_NODES);
    }

    const FROZEN_NODES: [usize; 8] = [3, 3, 0, 1, 3, 1, 3, 1];

    #[test]
    fn a_cache_without_nodes_is_refused() {
        assert!(Placement::new([], 1).is_err());
    }
}
