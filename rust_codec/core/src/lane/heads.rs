//! Heads of requests that were parsed and checked before.
//!
//! Callers repeat their heads byte for byte but for the content length. So a head that was taken
//! once is cut at its content length, and a later request with the same bytes around another length
//! asks for the same thing: it is told by two comparisons. Only one whole request, and nothing else,
//! is taken; whatever differs is left to the parser.

use std::sync::Arc;

/// Longest head that is remembered.
pub const HEAD_BYTES_MAX: usize = 1024;
/// Most heads that are remembered; they are few, for a caller has one, and each is compared in turn.
pub const HEADS_MAX: usize = 64;
/// Most digits of a content length: a gigabyte.
const LENGTH_DIGITS_MAX: usize = 9;

const HEAD_END: &[u8] = b"\r\n\r\n";
const CONTENT_LENGTH: &[u8] = b"content-length";

/// One head, and what is asked for under it.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// Up to the digits of the content length.
    before: Box<[u8]>,
    /// From behind them to the empty line.
    after: Box<[u8]>,
    /// The form of the answer, as the caller of [`KnownHeads::learn`] numbers them.
    pub accept: u8,
}

impl KnownHead {
    /// Cuts a head, empty line included; None when it has not exactly one plain content length.
    fn cut(head: &[u8], accept: u8) -> Option<Self> {
        let mut found = None;
        let mut start: usize = 0;
        for line in head.split(|byte| *byte == b'\n') {
            let end = start.saturating_add(line.len());
            if let Some(at) = length_in(line) {
                if found.is_some() {
                    return None;
                }
                found = Some(start.saturating_add(at));
            }
            start = end.saturating_add(1);
        }
        let (before, rest) = head.split_at_checked(found?)?;
        let (digits, _) = plain_number(rest)?;
        let after = rest.get(digits..)?;
        let ends = after.starts_with(b"\r\n") && head.ends_with(HEAD_END);
        let whole =
            memchr::memmem::find(head, HEAD_END)?.checked_add(HEAD_END.len())? == head.len();
        (ends && whole).then(|| Self { before: before.into(), after: after.into(), accept })
    }

    /// Where the body starts, when the bytes are one whole request under this head and its body is
    /// no longer than that.
    #[must_use]
    #[inline]
    pub fn body_start(&self, request: &[u8], body_bytes_max: usize) -> Option<usize> {
        let rest = request.strip_prefix(&*self.before)?;
        let (digits, length) = plain_number(rest)?;
        let body = rest.get(digits..)?.strip_prefix(&*self.after)?;
        (body.len() == length && length <= body_bytes_max)
            .then(|| request.len().saturating_sub(length))
    }

    fn len(&self) -> usize {
        self.before.len().saturating_add(self.after.len())
    }
}

/// The heads that a process knows, each the latest of its bytes; the oldest makes room.
#[derive(Debug, Default)]
pub struct KnownHeads {
    heads: Vec<Arc<KnownHead>>,
    next: usize,
}

impl KnownHeads {
    /// Remembers a head, empty line included, that was parsed and taken. False when it is too long
    /// or not of the usual form.
    pub fn learn(&mut self, head: &[u8], accept: u8) -> bool {
        let Some(known) =
            KnownHead::cut(head, accept).filter(|known| known.len() <= HEAD_BYTES_MAX)
        else {
            return false;
        };
        let same =
            |held: &&mut Arc<KnownHead>| held.before == known.before && held.after == known.after;
        if let Some(held) = self.heads.iter_mut().find(same) {
            *held = Arc::new(known);
        } else if self.heads.len() < HEADS_MAX {
            self.heads.push(Arc::new(known));
        } else if let Some(held) = self.heads.get_mut(self.next) {
            *held = Arc::new(known);
            self.next = self.next.saturating_add(1) % HEADS_MAX;
        }
        true
    }

    /// The head of one whole request, and where its body starts.
    #[must_use]
    pub fn find(&self, request: &[u8], body_bytes_max: usize) -> Option<(&Arc<KnownHead>, usize)> {
        let start = |head: &KnownHead| head.body_start(request, body_bytes_max);
        self.heads.iter().find_map(|head| Some((head, start(head)?)))
    }

    /// How many are known.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether none is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }
}

/// Where the value starts in a header line that gives the content length.
fn length_in(line: &[u8]) -> Option<usize> {
    let (name, rest) = line.split_at_checked(CONTENT_LENGTH.len())?;
    let value = rest.strip_prefix(b":")?;
    if !name.eq_ignore_ascii_case(CONTENT_LENGTH) {
        return None;
    }
    let space = value.iter().take_while(|byte| **byte == b' ').count();
    line.len().checked_sub(value.len())?.checked_add(space)
}

/// A number without sign or leading zero at the start of the bytes: its digits and its value.
#[inline]
fn plain_number(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value: usize = 0;
    let mut digits: usize = 0;
    for byte in bytes.iter().take(LENGTH_DIGITS_MAX.saturating_add(1)) {
        let Some(digit) = byte.checked_sub(b'0').filter(|digit| *digit < 10) else { break };
        value = value.checked_mul(10)?.checked_add(usize::from(digit))?;
        digits = digits.saturating_add(1);
    }
    let plain =
        (1..=LENGTH_DIGITS_MAX).contains(&digits) && (digits == 1 || bytes.first() != Some(&b'0'));
    plain.then_some((digits, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"POST /v1/read HTTP/1.1\r\nhost: a\r\nContent-Length:  12\r\nx: 5\r\n\r\n";

    fn known(head: &[u8]) -> Option<KnownHead> {
        KnownHead::cut(head, 1)
    }

    fn request(length: &str, body: &str) -> Vec<u8> {
        format!(
            "POST /v1/read HTTP/1.1\r\nhost: a\r\nContent-Length:  {length}\r\nx: 5\r\n\r\n{body}"
        )
        .into_bytes()
    }

    #[test]
    fn a_head_is_known_again_with_another_content_length() {
        let head = known(HEAD).unwrap();
        for body in ["", "{}", "0123456789ab", &"x".repeat(4_000)] {
            let request = request(&body.len().to_string(), body);
            assert_eq!(head.body_start(&request, 4_000), Some(request.len() - body.len()));
        }
    }

    #[test]
    fn what_is_not_one_whole_request_within_the_limit_is_left_to_the_parser() {
        let head = known(HEAD).unwrap();
        for (length, body) in [
            ("3", "{}"),
            ("1", "{}"),
            ("02", "{}"),
            ("+2", "{}"),
            ("2 ", "{}"),
            ("", "{}"),
            ("1000000000000000000000000", "{}"),
            ("11", "01234567890"),
        ] {
            assert_eq!(head.body_start(&request(length, body), 10), None, "{length}");
        }
        let other = request("2", "{}");
        assert_eq!(head.body_start(&other[..other.len() - 1], 10), None);
        assert_eq!(head.body_start(&other[1..], 10), None);
        assert_eq!(head.body_start(b"", 10), None);
    }

    #[test]
    fn only_a_head_with_one_plain_content_length_is_learned() {
        for head in [
            &b"POST / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 01\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n\r\n\r\n",
            b"POST / HTTP/1.1\r\nx-content-length: 1\r\n\r\n",
            b"",
        ] {
            assert_eq!(known(head), None, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn heads_are_bounded_and_the_same_head_counts_once() {
        let mut heads = KnownHeads::default();
        for number in 0..3 * HEADS_MAX {
            let head = format!("POST /{number} HTTP/1.1\r\ncontent-length: 1\r\n\r\n");
            assert!(heads.learn(head.as_bytes(), 0));
            assert!(heads.learn(head.as_bytes(), 2));
            let request = format!("{head}x");
            assert_eq!(heads.find(request.as_bytes(), 9).unwrap().0.accept, 2);
        }
        assert_eq!(heads.len(), HEADS_MAX);
        let long = format!("POST / HTTP/1.1\r\nx: {:1024}\r\ncontent-length: 1\r\n\r\n", "y");
        assert!(!heads.learn(long.as_bytes(), 0));
    }

    proptest! {
        #[test]
        fn what_a_known_head_takes_is_what_its_length_says(
            before in "[a-z: \r\n]{0,20}",
            digits in "[0-9+ ]{0,5}",
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut request = format!("P\r\n{before}\r\ncontent-length: ").into_bytes();
            let mut head = request.clone();
            head.extend_from_slice(b"7\r\n\r\n");
            request.extend_from_slice(digits.as_bytes());
            request.extend_from_slice(b"\r\n\r\n");
            let end = request.len();
            request.extend_from_slice(&body);
            let digits = digits.as_bytes();
            if let Some(found) = known(&head).and_then(|head| head.body_start(&request, 100)) {
                prop_assert_eq!(found, end);
                prop_assert_eq!(plain_number(digits), Some((digits.len(), body.len())));
            }
        }
    }
}
