//! How long answers took, and their statuses.

/// Upper bounds of the histogram's buckets in nanoseconds; one more bucket is above them.
pub const BOUNDS_NS: [u64; 12] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
];

const STATUS_FIRST: usize = 100;
const STATUSES: usize = 500;

/// Totals since start.
#[derive(Debug, Clone)]
pub struct ReadTimes {
    buckets: [u64; BOUNDS_NS.len() + 1],
    total_ns: u64,
    /// By status less [`STATUS_FIRST`].
    statuses: Box<[u64]>,
}

impl Default for ReadTimes {
    fn default() -> Self {
        let statuses = vec![0; STATUSES].into_boxed_slice();
        Self { buckets: [0; BOUNDS_NS.len() + 1], total_ns: 0, statuses }
    }
}

impl ReadTimes {
    /// Counts a whole response and the time that it took.
    pub fn observe(&mut self, elapsed_ns: u64, response: &[u8]) {
        let status = response.get(9..12).unwrap_or_default();
        let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
        let number = status
            .iter()
            .fold(0_usize, |sum, byte| sum.saturating_mul(10).saturating_add(digit(*byte)));
        self.observe_status(elapsed_ns, number);
    }

    /// Counts an answer of a status.
    pub fn observe_status(&mut self, elapsed_ns: u64, status: usize) {
        let bucket = BOUNDS_NS.iter().take_while(|bound| **bound < elapsed_ns).count();
        let counters = [
            self.buckets.get_mut(bucket),
            status.checked_sub(STATUS_FIRST).and_then(|place| self.statuses.get_mut(place)),
        ];
        for counter in counters.into_iter().flatten() {
            *counter = counter.saturating_add(1);
        }
        self.total_ns = self.total_ns.saturating_add(elapsed_ns);
    }

    /// Answers by bucket, not cumulative.
    #[must_use]
    pub const fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// All their time.
    #[must_use]
    pub const fn total_ns(&self) -> u64 {
        self.total_ns
    }

    /// Every status that was seen and how often, in order.
    pub fn statuses(&self) -> impl Iterator<Item = (usize, u64)> {
        let numbered = self.statuses.iter().enumerate();
        let seen = numbered.filter(|(_, count)| **count > 0);
        seen.map(|(place, count)| (place.saturating_add(STATUS_FIRST), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_what_is_above_all_of_them_has_a_bucket() {
        let mut times = ReadTimes::default();
        for elapsed_ns in [1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[11] + 1] {
            times.observe(elapsed_ns, b"HTTP/1.1 200 OK\r\n");
        }
        assert_eq!(times.buckets()[..2], [2, 1]);
        assert_eq!(times.buckets()[12], 1);
        assert_eq!(times.total_ns(), 3 + 2 * BOUNDS_NS[0] + BOUNDS_NS[11]);
    }

    #[test]
    fn statuses_are_counted_and_what_is_none_is_not() {
        let mut times = ReadTimes::default();
        for response in
            [&b"HTTP/1.1 503 x"[..], b"HTTP/1.1 400 x", b"HTTP/1.1 503 x", b"", b"HTTP/1.1 9ab"]
        {
            times.observe(1, response);
        }
        assert_eq!(times.statuses().collect::<Vec<_>>(), [(400, 1), (503, 2)]);
    }
}
