//! Content codings of answers: gzip and zstd, at the levels that cost least.

use std::fmt;

use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::bulk::Compressor;

/// Shorter answers fit one packet of most networks, and are not coded.
pub const CODED_BYTES_MIN: usize = 1_400;

/// zstd's quickest ordinary level, and gzip's.
const LEVEL: u8 = 1;
/// Base-2 logarithm of gzip's window: the largest there is.
const GZIP_WINDOW_BITS: u8 = 15;

/// How an answer's bytes are coded on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    /// As they are.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// The word of `Content-Encoding`; None for no coding.
    #[must_use]
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Coders and their room, made when first used and kept between requests.
#[derive(Default)]
pub struct Room {
    gzip: Option<Compress>,
    zstd: Option<Compressor<'static>>,
    coded: Vec<u8>,
}

impl Room {
    /// Codes what stands in `response` from `start` on; gives how it was coded: not at all when it
    /// is short or does not become shorter.
    pub fn encode(&mut self, coding: Coding, response: &mut Vec<u8>, start: usize) -> Coding {
        let body = response.get(start..).unwrap_or_default();
        if coding == Coding::Identity || body.len() < CODED_BYTES_MIN {
            return Coding::Identity;
        }
        if self.coded.len() < body.len() {
            self.coded.resize(body.len(), 0);
        }
        // No more room than the body has: what would not fit is not worth it.
        let room = self.coded.get_mut(..body.len()).unwrap_or_default();
        let length = match coding {
            Coding::Identity => None,
            Coding::Gzip => gzip(&mut self.gzip, body, room),
            Coding::Zstd => zstd(&mut self.zstd, body, room),
        };
        let shorter = length.filter(|length| *length < body.len());
        let Some(coded) = shorter.and_then(|length| self.coded.get(..length)) else {
            return Coding::Identity;
        };
        response.truncate(start);
        response.extend_from_slice(coded);
        coding
    }

    /// Bytes that it keeps.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.coded.capacity()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Room").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

fn gzip(coder: &mut Option<Compress>, body: &[u8], room: &mut [u8]) -> Option<usize> {
    let level = Compression::new(u32::from(LEVEL));
    let coder = coder.get_or_insert_with(|| Compress::new_gzip(level, GZIP_WINDOW_BITS));
    coder.reset();
    match coder.compress(body, room, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => usize::try_from(coder.total_out()).ok(),
        _ => None,
    }
}

fn zstd(coder: &mut Option<Compressor<'static>>, body: &[u8], room: &mut [u8]) -> Option<usize> {
    if coder.is_none() {
        *coder = Compressor::new(i32::from(LEVEL)).ok();
    }
    coder.as_mut()?.compress_to_buffer(body, room).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn encoded(coding: Coding, body: &[u8]) -> (Coding, Vec<u8>) {
        let mut response = [b"head", body].concat();
        let coding = Room::default().encode(coding, &mut response, 4);
        assert_eq!(&response[..4], b"head");
        (coding, response[4..].to_vec())
    }

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Identity => out.extend_from_slice(coded),
            Coding::Gzip => {
                flate2::read::GzDecoder::new(coded).read_to_end(&mut out).unwrap();
            }
            Coding::Zstd => out = zstd::decode_all(coded).unwrap(),
        }
        out
    }

    #[test]
    fn a_coder_is_used_again_and_what_it_coded_decodes() {
        let mut room = Room::default();
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Gzip, Coding::Zstd] {
            for repeats in [500, 20_000, 600] {
                let body = b"[1,2,3],".repeat(repeats);
                let mut response = body.clone();
                assert_eq!(room.encode(coding, &mut response, 0), coding);
                assert!(response.len() < body.len() / 10);
                assert_eq!(decoded(coding, &response), body);
            }
        }
    }

    #[test]
    fn a_short_body_stays_as_it_is() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let body = vec![b'a'; CODED_BYTES_MIN - 1];
            assert_eq!(encoded(coding, &body), (Coding::Identity, body));
            let body = vec![b'a'; CODED_BYTES_MIN];
            assert_eq!(encoded(coding, &body).0, coding);
        }
    }

    #[test]
    fn what_does_not_become_shorter_stays_as_it_is() {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let body: Vec<u8> = noise.take(10_000).collect();
        for coding in [Coding::Gzip, Coding::Zstd] {
            assert_eq!(encoded(coding, &body), (Coding::Identity, body.clone()));
        }
    }
}
