//! The order of keys: byte by byte, which is LMDB's own, in fewer steps for a short key.

use std::cmp::Ordering;

use heed::Comparator;

/// Longest key whose two ends of eight bytes hold all of it.
const SHORT_BYTES_MAX: usize = 16;

/// Compares keys of one length from 8 to 16 bytes as two numbers, all others as LMDB does.
///
/// A lookup compares some 20 keys, mostly of one group with one number: 12 bytes that begin alike.
pub(crate) enum KeyOrder {}

impl Comparator for KeyOrder {
    #[inline]
    fn compare(left: &[u8], right: &[u8]) -> Ordering {
        if left.len() == right.len()
            && let (Some(left), Some(right)) = (ends(left), ends(right))
        {
            return left.cmp(&right);
        }
        left.cmp(right)
    }
}

/// The first and the last eight bytes of a short key. They may overlap: where the first eight are
/// equal, so are those of them among the last.
#[inline]
fn ends(key: &[u8]) -> Option<(u64, u64)> {
    if key.len() > SHORT_BYTES_MAX {
        return None;
    }
    let (first, last) = (key.first_chunk()?, key.last_chunk()?);
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(*last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Of few letters and with a common beginning, so that keys are often equal or prefixes.
        #[test]
        fn keys_are_ordered_byte_by_byte(
            common in proptest::collection::vec(0..=255_u8, 0..12),
            left in proptest::collection::vec(proptest::sample::select(vec![0, 127, 128, 255_u8]), 0..9),
            right in proptest::collection::vec(proptest::sample::select(vec![0, 127, 128, 255_u8]), 0..9),
        ) {
            let left = [common.as_slice(), &left].concat();
            let right = [common.as_slice(), &right].concat();
            proptest::prop_assert_eq!(KeyOrder::compare(&left, &right), left.cmp(&right));
        }
    }
}
