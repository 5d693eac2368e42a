//! Heads of requests that were parsed and checked before.
//!
//! Callers repeat their heads byte for byte but for the content length and, where they send one, the
//! id of the request. So a head that was taken once is cut at both, and a later request with the same
//! bytes around another length and another id that may be repeated asks for the same thing: it is
//! told by comparing the pieces. Only one whole request, and nothing else, is taken; whatever differs
//! is left to the parser.

use std::ops::Range;
use std::sync::Arc;

use super::ids::REQUEST_ID_BYTES_MAX;
use crate::read::head::is_request_id;

/// Longest head that is remembered.
pub const HEAD_BYTES_MAX: usize = 1024;
/// Most heads that are remembered; they are few, for a caller has one, and each is compared in turn.
pub const HEADS_MAX: usize = 64;
/// Most digits of a content length: a gigabyte.
const LENGTH_DIGITS_MAX: usize = 9;

const HEAD_END: &[u8] = b"\r\n\r\n";
const CONTENT_LENGTH: &[u8] = b"content-length";
const REQUEST_ID: &[u8] = b"x-request-id";

/// One head, and what is asked for under it.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// Up to the digits of the content length, or from the request id's end up to them.
    before: Box<[u8]>,
    /// From behind them to the empty line, or up to the request id.
    after: Box<[u8]>,
    /// What stands on the other side of the request id; None in a head without one.
    beyond: Option<Beyond>,
    /// The form of the answer, as the caller of [`KnownHeads::learn`] numbers them.
    pub accept: u8,
}

/// The piece of a head that its request id parts from the content length.
#[derive(Debug, PartialEq, Eq)]
enum Beyond {
    /// All before the id, which stands above the content length.
    Above(Box<[u8]>),
    /// All behind the id, which stands below it.
    Below(Box<[u8]>),
}

/// Where the parts of a request stand in its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Start of the body.
    pub body_start: usize,
    /// The caller's id of the request, which may be repeated (semantics 15); empty for none.
    pub request_id: Range<usize>,
}

impl KnownHead {
    /// Cuts a head, empty line included; None when it has not exactly one plain content length, or
    /// more request ids than one, or one that may not be repeated.
    fn cut(head: &[u8], accept: u8) -> Option<Self> {
        let (mut length_at, mut id_at) = (None, None);
        let mut start: usize = 0;
        for line in head.split(|byte| *byte == b'\n') {
            for (name, found) in [(CONTENT_LENGTH, &mut length_at), (REQUEST_ID, &mut id_at)] {
                if let Some(at) = value_in(line, name)
                    && found.replace(start.saturating_add(at)).is_some()
                {
                    return None;
                }
            }
            start = start.saturating_add(line.len()).saturating_add(1);
        }
        let whole = memchr::memmem::find(head, HEAD_END)?.checked_add(HEAD_END.len())?;
        if whole != head.len() {
            return None;
        }
        let length_at = length_at?;
        let (digits, _) = plain_number(head.get(length_at..)?)?;
        let length = length_at..length_at.checked_add(digits)?;
        let id = match id_at {
            Some(at) => Some(at..at.checked_add(split_id(head.get(at..)?)?.0.len())?),
            None => None,
        };
        Self::between(head, length, id, accept)
    }

    /// The pieces around a content length and a request id, each of which must fill its line.
    fn between(
        head: &[u8],
        length: Range<usize>,
        id: Option<Range<usize>>,
        accept: u8,
    ) -> Option<Self> {
        let ends_line = |at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(b"\r\n"));
        if !ends_line(length.end) {
            return None;
        }
        let piece = |range: Range<usize>| Some(Box::from(head.get(range)?));
        let Some(id) = id else {
            let (before, after) = (piece(0..length.start)?, piece(length.end..head.len())?);
            return Some(Self { before, after, beyond: None, accept });
        };
        if !ends_line(id.end) {
            return None;
        }
        let above = id.start < length.start;
        let (before, after, beyond) = if above {
            let beyond = Beyond::Above(piece(0..id.start)?);
            (piece(id.end..length.start)?, piece(length.end..head.len())?, beyond)
        } else {
            let beyond = Beyond::Below(piece(id.end..head.len())?);
            (piece(0..length.start)?, piece(length.end..id.start)?, beyond)
        };
        Some(Self { before, after, beyond: Some(beyond), accept })
    }

    /// Where body and request id stand, when the bytes are one whole request under this head and its
    /// body is no longer than that.
    #[must_use]
    #[inline]
    pub fn find_in(&self, request: &[u8], body_bytes_max: usize) -> Option<Found> {
        let Some(beyond) = &self.beyond else {
            let (length, body) = self.behind_length(request)?;
            let start = body_start(request, body, length, body_bytes_max)?;
            return Some(Found { body_start: start, request_id: 0..0 });
        };
        self.find_with_id(beyond, request, body_bytes_max)
    }

    fn find_with_id(&self, beyond: &Beyond, request: &[u8], body_max: usize) -> Option<Found> {
        let (id, length, body) = match beyond {
            Beyond::Above(piece) => {
                let (id, rest) = split_id(request.strip_prefix(&**piece)?)?;
                let (length, body) = self.behind_length(rest)?;
                (piece.len()..piece.len().checked_add(id.len())?, length, body)
            }
            Beyond::Below(piece) => {
                let (length, rest) = self.behind_length(request)?;
                let (id, rest) = split_id(rest)?;
                let end = request.len().checked_sub(rest.len())?;
                (end.checked_sub(id.len())?..end, length, rest.strip_prefix(&**piece)?)
            }
        };
        let body_start = body_start(request, body, length, body_max)?;
        Some(Found { body_start, request_id: id })
    }

    /// The content length, and what stands behind the piece that follows it.
    #[inline]
    fn behind_length<'a>(&self, bytes: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let rest = bytes.strip_prefix(&*self.before)?;
        let (digits, length) = plain_number(rest)?;
        Some((length, rest.get(digits..)?.strip_prefix(&*self.after)?))
    }

    fn len(&self) -> usize {
        let beyond = match &self.beyond {
            None => 0,
            Some(Beyond::Above(piece) | Beyond::Below(piece)) => piece.len(),
        };
        self.before.len().saturating_add(self.after.len()).saturating_add(beyond)
    }

    /// Whether both ask for the same by the same bytes.
    fn same_bytes(&self, other: &Self) -> bool {
        self.before == other.before && self.after == other.after && self.beyond == other.beyond
    }
}

/// Where a body starts that is as long as the content length says, and no longer than that.
#[inline]
fn body_start(request: &[u8], body: &[u8], length: usize, body_bytes_max: usize) -> Option<usize> {
    (body.len() == length && length <= body_bytes_max).then(|| request.len().saturating_sub(length))
}

/// Cuts at the end of the line that begins here; None unless it is an id that may be repeated.
fn split_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let most = bytes.len().min(REQUEST_ID_BYTES_MAX.saturating_add(1));
    let length = memchr::memchr(b'\r', bytes.get(..most)?)?;
    let (id, rest) = bytes.split_at_checked(length)?;
    is_request_id(id).then_some((id, rest))
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
        if let Some(held) = self.heads.iter_mut().find(|held| held.same_bytes(&known)) {
            *held = Arc::new(known);
        } else if self.heads.len() < HEADS_MAX {
            self.heads.push(Arc::new(known));
        } else if let Some(held) = self.heads.get_mut(self.next) {
            *held = Arc::new(known);
            self.next = self.next.saturating_add(1) % HEADS_MAX;
        }
        true
    }

    /// The head of one whole request, and where its parts stand.
    #[must_use]
    pub fn find(&self, request: &[u8], body_bytes_max: usize) -> Option<(&Arc<KnownHead>, Found)> {
        let found = |head: &KnownHead| head.find_in(request, body_bytes_max);
        self.heads.iter().find_map(|head| Some((head, found(head)?)))
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

/// Where the value starts in a header line of that name.
fn value_in(line: &[u8], name: &[u8]) -> Option<usize> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    if !found.eq_ignore_ascii_case(name) {
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

    fn body_start(head: &KnownHead, request: &[u8], body_bytes_max: usize) -> Option<usize> {
        head.find_in(request, body_bytes_max).map(|found| found.body_start)
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
            assert_eq!(body_start(&head, &request, 4_000), Some(request.len() - body.len()));
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
            assert_eq!(body_start(&head, &request(length, body), 10), None, "{length}");
        }
        let other = request("2", "{}");
        assert_eq!(body_start(&head, &other[..other.len() - 1], 10), None);
        assert_eq!(body_start(&head, &other[1..], 10), None);
        assert_eq!(body_start(&head, b"", 10), None);
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

    /// A head with a request id above or below the content length.
    fn with_id(above: bool, id: &str, length: usize) -> String {
        let (id, length) =
            (format!("X-Request-ID: {id}\r\n"), format!("content-length: {length}\r\n"));
        let (first, second) = if above { (id, length) } else { (length, id) };
        format!("POST /v1/read HTTP/1.1\r\n{first}host: a\r\n{second}x: y\r\n\r\n")
    }

    #[test]
    fn a_head_is_known_again_with_another_request_id_and_gives_that() {
        for above in [true, false] {
            let head = known(with_id(above, "abc", 2).as_bytes()).unwrap();
            for id in ["abc", "z", "A.b_c-9", &"i".repeat(64)] {
                let request = with_id(above, id, 11) + "hello there";
                let found = head.find_in(request.as_bytes(), 20).unwrap();
                assert_eq!(&request[found.request_id], id);
                assert_eq!(&request[found.body_start..], "hello there");
            }
        }
    }

    #[test]
    fn what_may_not_be_repeated_as_a_request_id_is_left_to_the_parser() {
        for above in [true, false] {
            let head = known(with_id(above, "abc", 2).as_bytes()).unwrap();
            for id in ["", "a ", "a b", "\"a\"", "\u{e9}", &"i".repeat(65)] {
                let request = with_id(above, id, 2) + "{}";
                assert_eq!(head.find_in(request.as_bytes(), 20), None, "{id}");
                assert_eq!(known(with_id(above, id, 2).as_bytes()), None, "{id}");
            }
            for id in [" a", "a\r\nb: c"] {
                let request = with_id(above, id, 2) + "{}";
                assert_eq!(head.find_in(request.as_bytes(), 20), None, "{id}");
            }
            let longer = with_id(above, "abc", 2) + "{}{}";
            assert_eq!(head.find_in(longer.as_bytes(), 20), None);
        }
        let twice = "POST / HTTP/1.1\r\nx-request-id: a\r\nX-REQUEST-ID: b\r\n\
                     content-length: 1\r\n\r\n";
        assert_eq!(known(twice.as_bytes()), None);
    }

    #[test]
    fn heads_that_differ_in_their_request_id_only_count_once() {
        let mut heads = KnownHeads::default();
        for number in 0..9 {
            for above in [true, false] {
                assert!(heads.learn(with_id(above, &format!("r-{number}"), 2).as_bytes(), 0));
            }
        }
        assert_eq!(heads.len(), 2);
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
            if let Some(found) = known(&head).and_then(|head| body_start(&head, &request, 100)) {
                prop_assert_eq!(found, end);
                prop_assert_eq!(plain_number(digits), Some((digits.len(), body.len())));
            }
        }
    }
}
