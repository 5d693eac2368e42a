//! How fast a stage of reading has shown itself to be, and so how much may wait before it.
//!
//! What waits W seconds before a stage that finishes R units a second is R x W units (Little 1961).
//! R is the best of the last second's windows in which the stage had enough to do: only these tell
//! what it can do, and not what was asked of it (as BBR estimates bandwidth, Cardwell et al. 2016).
//! A pause of the stage, such as one of its garbage collector, does not lower R; lasting slowness
//! does, once the quicker windows are forgotten. Before any such window a stage's speed is unknown,
//! and so many units are let in as any stage does in a moment: a crowd that comes at once would
//! else wait longer than those who come later are allowed to.

/// Length of a window.
pub const WINDOW_NS: u64 = 100_000_000;
/// How many windows are remembered.
pub const WINDOWS: usize = 10;

const SECOND_NS: u64 = 1_000_000_000;

/// The work before one stage, in units of its own; [`Pace::admits`] is asked before any is added.
#[derive(Debug)]
pub struct Pace {
    least: u64,
    unknown: u64,
    under_way: u64,
    /// Units a second of the last windows, the oldest at `oldest`; None: too little to do.
    rates: [Option<u64>; WINDOWS],
    oldest: usize,
    rate: Option<u64>,
    window_end_ns: u64,
    finished: u64,
    /// Units of this window times the nanoseconds that each was under way.
    held: u128,
}

impl Pace {
    /// `least` units under way keep the stage busy, whatever its speed: they are never refused.
    /// While its speed is not known `unknown` are let in.
    #[must_use]
    pub const fn new(least: u64, unknown: u64) -> Self {
        Self {
            least,
            unknown,
            under_way: 0,
            rates: [None; WINDOWS],
            oldest: 0,
            rate: None,
            window_end_ns: 0,
            finished: 0,
            held: 0,
        }
    }

    /// Units that wait now.
    #[must_use]
    pub const fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Units a second that the stage can do; None while unknown.
    #[must_use]
    pub const fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether one who comes now would wait no longer than that. Below the least this costs a look.
    #[inline]
    pub fn admits(&mut self, now_ns: impl FnOnce() -> u64, wait_ns: u64) -> bool {
        self.under_way < self.least || self.admits_more(now_ns(), wait_ns)
    }

    fn admits_more(&mut self, now_ns: u64, wait_ns: u64) -> bool {
        if now_ns >= self.window_end_ns {
            self.next_window(now_ns);
        }
        let room = self.rate.map_or(u128::from(self.unknown), |rate| {
            let units = u128::from(rate).saturating_mul(wait_ns.into());
            units.checked_div(SECOND_NS.into()).unwrap_or_default()
        });
        u128::from(self.under_way) < room
    }

    /// Units come to wait.
    pub const fn begin(&mut self, units: u64) {
        self.under_way = self.under_way.saturating_add(units);
    }

    /// Units leave after so long, finished by the stage or given up.
    pub const fn end(&mut self, units: u64, elapsed_ns: u64, finished: bool) {
        self.under_way = self.under_way.saturating_sub(units);
        let held = (units as u128).saturating_mul(elapsed_ns as u128);
        self.held = self.held.saturating_add(held);
        if finished {
            self.finished = self.finished.saturating_add(units);
        }
    }

    /// Windows end when somebody asks: while nobody does there is nothing to admit.
    fn next_window(&mut self, now_ns: u64) {
        let late_ns = now_ns.saturating_sub(self.window_end_ns);
        let elapsed_ns = WINDOW_NS.saturating_add(late_ns);
        if late_ns > WINDOW_NS.saturating_mul(WINDOWS as u64) {
            self.rates = [None; WINDOWS];
        }
        // Of a window that nobody ended for long it is not known when its work was done.
        let busy = late_ns <= WINDOW_NS
            && self.held >= u128::from(self.least).saturating_mul(elapsed_ns.into());
        let done = u128::from(self.finished).saturating_mul(SECOND_NS.into());
        let rate = done.checked_div(elapsed_ns.into()).filter(|_| busy);
        if let Some(oldest) = self.rates.get_mut(self.oldest) {
            *oldest = rate.map(|rate| u64::try_from(rate).unwrap_or(u64::MAX));
        }
        self.oldest = self.oldest.saturating_add(1) % WINDOWS;
        self.rate = self.rates.iter().flatten().max().copied();
        self.finished = 0;
        self.held = 0;
        self.window_end_ns = now_ns.saturating_add(WINDOW_NS);
    }
}
