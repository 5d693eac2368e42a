//! The loop: send what is due, hear what has come, sleep until either happens.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::connection::{Connection, Heard};
use crate::files::{Due, Exchange, Outcomes};
use crate::judge::Fate;

const RECEIVED_BYTES: usize = 1 << 18;
const EVENTS: usize = 256;
const IN: epoll::EventFlags = epoll::EventFlags::IN;

pub(crate) struct Generator<'plan> {
    port: u16,
    exchanges: &'plan [Exchange],
    waiting_max: usize,
    poll: OwnedFd,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    /// (due in s, exchange) of requests that wait for a connection, the longest first.
    waiting: VecDeque<(f64, usize)>,
    buffer: Vec<u8>,
    started_s: f64,
    pub(crate) outcomes: Outcomes,
}

impl<'plan> Generator<'plan> {
    /// Opens every connection.
    pub(crate) fn new(
        port: u16,
        exchanges: &'plan [Exchange],
        connections: usize,
        waiting_max: usize,
    ) -> io::Result<Self> {
        let mut made = Self {
            port,
            exchanges,
            waiting_max,
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(connections),
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            buffer: vec![0; RECEIVED_BYTES],
            started_s: 0.0,
            outcomes: Outcomes::default(),
        };
        for number in 0..connections {
            let connection = Connection::open(port)?;
            made.listen_to(&connection, number)?;
            made.connections.push(connection);
            made.idle.push_back(number);
        }
        Ok(made)
    }

    /// Sends a request at each due time and hears the answers, waiting `settle_s` for the last ones.
    /// Returns the start on the monotonic clock, in seconds.
    pub(crate) fn run(&mut self, plan: &[Due], settle_s: f64) -> io::Result<f64> {
        let end_s = plan.last().map_or(0.0, |last| last.at_s) + settle_s;
        let mut due = plan.iter().peekable();
        self.started_s = monotonic_s();
        loop {
            let now_s = self.now_s();
            while let Some(next) = due.next_if(|next| next.at_s <= now_s) {
                self.launch(next.at_s, next.exchange)?;
            }
            let idle = self.idle.len() == self.connections.len() && self.waiting.is_empty();
            if now_s >= end_s || (idle && due.peek().is_none()) {
                break;
            }
            let until_s = due.peek().map_or(end_s, |next| next.at_s);
            self.listen(until_s)?;
        }
        for connection in self.connections.iter().filter(|connection| connection.busy) {
            let Connection { due_s, late_s, .. } = *connection;
            self.outcomes.note(due_s, f64::INFINITY, late_s, Fate::Failed);
        }
        for (due_s, _) in self.waiting.drain(..) {
            self.outcomes.note(due_s, f64::INFINITY, f64::NAN, Fate::Failed);
        }
        Ok(self.started_s)
    }

    fn now_s(&self) -> f64 {
        monotonic_s() - self.started_s
    }

    fn launch(&mut self, due_s: f64, exchange: usize) -> io::Result<()> {
        if let Some(number) = self.idle.pop_front() {
            return self.send(number, due_s, exchange);
        }
        if self.waiting.len() < self.waiting_max {
            self.waiting.push_back((due_s, exchange));
        } else {
            self.outcomes.note(due_s, f64::NAN, f64::NAN, Fate::Unsent);
        }
        Ok(())
    }

    fn send(&mut self, number: usize, due_s: f64, exchange: usize) -> io::Result<()> {
        let late_s = self.now_s() - due_s;
        if let Some(connection) = self.connections.get_mut(number) {
            connection.begin(due_s, late_s, exchange);
        }
        self.push(number)
    }

    /// Sends what the socket takes, and waits for room for the rest.
    fn push(&mut self, number: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        let Some(exchange) = self.exchanges.get(connection.exchange) else { return Ok(()) };
        match connection.push(&exchange.request) {
            Ok(true) => Ok(()),
            Ok(false) => self.watch(number, IN | epoll::EventFlags::OUT),
            Err(_) => self.broken(number),
        }
    }

    /// Sleeps until an answer comes or a time, in nanoseconds as `epoll_wait` cannot; hears all there is.
    fn listen(&mut self, until_s: f64) -> io::Result<()> {
        let wait = timespec(until_s - self.now_s());
        let mut ready = [PollFd::new(&self.poll, PollFlags::IN)];
        match poll(&mut ready, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            heard => heard?,
        };
        let mut events = Vec::with_capacity(EVENTS);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&now))?;
        for event in events {
            let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::OUT) {
                self.watch(number, IN)?;
                self.push(number)?;
            } else {
                self.hear(number)?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, number: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        let Some(exchange) = self.exchanges.get(connection.exchange) else { return Ok(()) };
        match connection.hear(&mut self.buffer, &exchange.answer) {
            Heard::More => Ok(()),
            Heard::Broken => self.broken(number),
            Heard::Answer(fate) => {
                let Connection { due_s, late_s, .. } = *connection;
                let latency_s = monotonic_s() - self.started_s - due_s;
                self.outcomes.note(due_s, latency_s, late_s, fate);
                self.free(number)
            }
        }
    }

    /// A connection can take a request: the one that has waited longest, if there is any.
    fn free(&mut self, number: usize) -> io::Result<()> {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.busy = false;
        }
        if let Some((due_s, exchange)) = self.waiting.pop_front() {
            return self.send(number, due_s, exchange);
        }
        self.idle.push_back(number);
        Ok(())
    }

    /// A connection that ended: its request, if it had one, failed; another takes its place.
    fn broken(&mut self, number: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        if connection.busy {
            let Connection { due_s, late_s, .. } = *connection;
            self.outcomes.note(due_s, f64::INFINITY, late_s, Fate::Failed);
        } else {
            self.idle.retain(|each| *each != number);
        }
        *connection = Connection::open(self.port)?;
        let flags = event_of(number);
        epoll::add(&self.poll, connection.stream.as_fd(), flags, IN)?;
        self.free(number)
    }

    fn listen_to(&self, connection: &Connection, number: usize) -> io::Result<()> {
        Ok(epoll::add(&self.poll, &connection.stream, event_of(number), IN)?)
    }

    fn watch(&self, number: usize, flags: epoll::EventFlags) -> io::Result<()> {
        let Some(connection) = self.connections.get(number) else { return Ok(()) };
        Ok(epoll::modify(&self.poll, &connection.stream, event_of(number), flags)?)
    }
}

fn event_of(number: usize) -> epoll::EventData {
    epoll::EventData::new_u64(number as u64)
}

/// The clock of Python's `time.perf_counter` on Linux.
#[expect(clippy::cast_precision_loss, reason = "seconds since the machine started fit")]
fn monotonic_s() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn timespec(seconds: f64) -> Timespec {
    let wait = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}
