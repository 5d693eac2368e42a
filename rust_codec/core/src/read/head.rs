//! The head of an HTTP/1.1 response.

use super::coding::Coding;

/// What a head says; the body's length is known by then.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'a str,
    /// How the body is coded.
    pub coding: Coding,
    /// What else of a request could have changed the answer's form: the value of `Vary`; empty for
    /// an answer that has one form.
    pub vary: &'a str,
    /// Bytes of the body.
    pub content_length: usize,
    /// Left out unless it is 1 to 64 of `[A-Za-z0-9._-]` (semantics 15), so that nothing a caller
    /// sends can end a header line.
    pub request_id: &'a [u8],
    /// Generation of the catalog that made the answer.
    pub generation: u64,
    /// Seconds, with a 503.
    pub retry_after: Option<u32>,
    /// What the caller should know beside the answer, in plain ASCII; empty for nothing.
    pub warning: &'a [u8],
    /// Whether the connection stays open.
    pub keep_alive: bool,
}

/// What the form of an answer depends on.
pub const VARY: &str = "accept, accept-encoding";
/// The same of Feast's answer, which has one media type.
pub const FEAST_VARY: &str = "accept-encoding";
/// Media type of a JSON answer.
pub const JSON: &str = "application/json";
/// Media type of an Avro answer.
pub const AVRO: &str = "application/vnd.headrace.avro";
/// Media type of an Arrow answer.
pub const ARROW: &str = "application/vnd.apache.arrow.stream";
/// Media type of a problem.
pub const PROBLEM: &str = "application/problem+json";

impl Head<'_> {
    /// Appends the status line, the header fields and the empty line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(status_line(self.status));
        out.extend_from_slice(b"content-type: ");
        out.extend_from_slice(self.content_type.as_bytes());
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(number.format(self.content_length).as_bytes());
        if let Some(word) = self.coding.word() {
            out.extend_from_slice(b"\r\ncontent-encoding: ");
            out.extend_from_slice(word.as_bytes());
        }
        if !self.vary.is_empty() {
            out.extend_from_slice(b"\r\nvary: ");
            out.extend_from_slice(self.vary.as_bytes());
        }
        if is_request_id(self.request_id) {
            out.extend_from_slice(b"\r\nx-request-id: ");
            out.extend_from_slice(self.request_id);
        }
        out.extend_from_slice(b"\r\nheadrace-generation: ");
        out.extend_from_slice(number.format(self.generation).as_bytes());
        if let Some(seconds) = self.retry_after {
            out.extend_from_slice(b"\r\nretry-after: ");
            out.extend_from_slice(number.format(seconds).as_bytes());
        }
        if !self.warning.is_empty() {
            out.extend_from_slice(b"\r\nheadrace-warning: ");
            out.extend_from_slice(self.warning);
        }
        if !self.keep_alive {
            out.extend_from_slice(b"\r\nconnection: close");
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Whether a request id may be repeated in a header (semantics 15).
#[must_use]
pub fn is_request_id(text: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'.' | b'_' | b'-');
    // Without a way out before the end, many bytes are looked at in one step.
    (1..=64).contains(&text.len()) && text.iter().fold(true, |all, byte| all & plain(*byte))
}

const fn status_line(status: u16) -> &'static [u8] {
    match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        _ => b"HTTP/1.1 500 Internal Server Error\r\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head<'_> = Head {
        status: 200,
        content_type: JSON,
        coding: Coding::Identity,
        vary: "",
        content_length: 42,
        request_id: b"abc-1",
        generation: 12,
        retry_after: None,
        warning: b"",
        keep_alive: true,
    };

    fn text(head: Head<'_>) -> String {
        let mut out = Vec::new();
        head.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_names_type_length_request_and_generation() {
        assert_eq!(
            text(HEAD),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 42\r\n\
             x-request-id: abc-1\r\nheadrace-generation: 12\r\n\r\n"
        );
    }

    #[test]
    fn a_coded_answer_says_so_and_what_it_varies_by() {
        let head = Head { coding: Coding::Zstd, vary: VARY, ..HEAD };
        let expected = "\r\ncontent-length: 42\r\ncontent-encoding: zstd\r\n\
                        vary: accept, accept-encoding\r\n";
        assert!(text(head).contains(expected));
    }

    #[test]
    fn a_503_says_when_to_come_back_and_a_last_answer_closes() {
        let head = Head { status: 503, retry_after: Some(1), keep_alive: false, ..HEAD };
        assert!(text(head).starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text(head).ends_with("\r\nretry-after: 1\r\nconnection: close\r\n\r\n"));
    }

    #[test]
    fn a_request_id_cannot_split_the_response() {
        for id in [&b"a\r\nset-cookie: x"[..], b"", b"a b", &[b'a'; 65]] {
            assert!(!text(Head { request_id: id, ..HEAD }).contains("x-request-id"));
        }
    }
}
