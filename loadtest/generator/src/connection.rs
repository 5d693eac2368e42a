//! One socket with at most one request under way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::judge::{Fate, judge};

/// What was heard on a connection.
pub(crate) enum Heard {
    /// Nothing that ends the request.
    More,
    /// The whole answer.
    Answer(Fate),
    /// The connection ended, or spoke unasked.
    Broken,
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) busy: bool,
    pub(crate) due_s: f64,
    /// How long after it was due it was sent.
    pub(crate) late_s: f64,
    pub(crate) exchange: usize,
    received: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            busy: false,
            due_s: 0.0,
            late_s: 0.0,
            exchange: 0,
            received: Vec::new(),
            sent: 0,
        })
    }

    pub(crate) fn begin(&mut self, due_s: f64, late_s: f64, exchange: usize) {
        self.busy = true;
        self.due_s = due_s;
        self.late_s = late_s;
        self.exchange = exchange;
        self.received.clear();
        self.sent = 0;
    }

    /// Sends what the socket takes; whether that is all.
    pub(crate) fn push(&mut self, request: &[u8]) -> io::Result<bool> {
        while let Some(unsent) = request.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(unsent) {
                Ok(sent) => self.sent = self.sent.saturating_add(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes what has come, at most a buffer of it; an answer that comes whole is judged in place.
    pub(crate) fn hear(&mut self, buffer: &mut [u8], expected: &[u8]) -> Heard {
        let count = match self.stream.read(buffer) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Heard::More;
            }
            Ok(count) if count > 0 && self.busy => count,
            _ => return Heard::Broken,
        };
        let Some(part) = buffer.get(..count) else { return Heard::Broken };
        let fate = if self.received.is_empty() {
            judge(part, expected)
        } else {
            self.received.extend_from_slice(part);
            judge(&self.received, expected)
        };
        if let Some(fate) = fate {
            return Heard::Answer(fate);
        }
        if self.received.is_empty() {
            self.received.extend_from_slice(part);
        }
        Heard::More
    }
}
