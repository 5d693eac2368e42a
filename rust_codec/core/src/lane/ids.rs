//! Request ids: unique by a prefix per process, cheap by a counter.

use std::sync::atomic::{AtomicU64, Ordering};

/// Longest id: as long as a caller's may be (semantics 15).
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest prefix: leaves room for the dash and 16 digits.
pub const PREFIX_BYTES_MAX: usize = 32;

/// One id, kept where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; REQUEST_ID_BYTES_MAX],
    length: usize,
}

impl RequestId {
    /// An id as it came; a longer one is cut, and is then none that a head would repeat.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let mut bytes = [0; REQUEST_ID_BYTES_MAX];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text);
                Self { bytes, length: text.len() }
            }
            None => Self { bytes, length: 0 },
        }
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Makes ids such as `9f86d081884c-1a`.
#[derive(Debug)]
pub struct RequestIds {
    prefix: Vec<u8>,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that begin with `prefix`, cut to [`PREFIX_BYTES_MAX`], and a dash.
    #[must_use]
    pub fn new(prefix: &[u8]) -> Self {
        let mut prefix = prefix.get(..PREFIX_BYTES_MAX).unwrap_or(prefix).to_vec();
        prefix.push(b'-');
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// The next id.
    pub fn make(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = RequestId::new(&self.prefix);
        let digits = (64_usize.saturating_sub(number.leading_zeros() as usize)).div_ceil(4).max(1);
        let mut rest = number;
        let end = id.length.saturating_add(digits);
        for place in id.bytes.get_mut(id.length..end).unwrap_or_default().iter_mut().rev() {
            *place = b"0123456789abcdef".get((rest & 15) as usize).copied().unwrap_or_default();
            rest >>= 4;
        }
        id.length = end;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_prefix_and_a_hexadecimal_count() {
        let ids = RequestIds::new(b"9f86");
        let made: Vec<RequestId> = (0..300).map(|_| ids.make()).collect();
        assert_eq!(made[0].as_bytes(), b"9f86-1");
        assert_eq!(made[25].as_bytes(), b"9f86-1a");
        assert_eq!(made[255].as_bytes(), b"9f86-100");
        ids.next.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(ids.make().as_bytes(), b"9f86-ffffffffffffffff");
    }

    #[test]
    fn the_longest_prefix_leaves_room_for_every_count() {
        let ids = RequestIds::new(&[b'p'; 80]);
        ids.next.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(ids.make().as_bytes().len(), PREFIX_BYTES_MAX + 17);
    }

    #[test]
    fn an_id_keeps_what_a_caller_sent_unless_it_is_too_long() {
        assert_eq!(RequestId::new(b"abc").as_bytes(), b"abc");
        assert_eq!(RequestId::new(&[b'a'; 64]).as_bytes(), &[b'a'; 64]);
        assert_eq!(RequestId::new(&[b'a'; 65]).as_bytes(), b"");
    }
}
