//! Answers of one connection in request order, some of them here already.

use std::collections::VecDeque;

/// Counts the turns of a connection from its start; each names one.
pub type TurnNumber = u64;

/// An answer whose turn has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready<T> {
    /// The answer.
    pub answer: T,
    /// Bytes that the request held until now.
    pub weight: usize,
    /// Whether the connection stays open after it.
    pub keep_alive: bool,
}

#[derive(Debug)]
struct Turn<T> {
    answer: Option<T>,
    weight: usize,
    keep_alive: bool,
}

/// The queue of one connection.
#[derive(Debug)]
pub struct Turns<T> {
    queue: VecDeque<Turn<T>>,
    /// Number of the first in the queue.
    first: TurnNumber,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), first: 0 }
    }
}

impl<T> Turns<T> {
    /// How many answers are due.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number that the next turn gets.
    #[must_use]
    pub fn next_number(&self) -> TurnNumber {
        self.first.saturating_add(u64::try_from(self.queue.len()).unwrap_or(u64::MAX))
    }

    /// Queues an answer, here or not, behind those of earlier requests.
    pub fn push(&mut self, answer: Option<T>, weight: usize, keep_alive: bool) {
        self.queue.push_back(Turn { answer, weight, keep_alive });
    }

    /// Puts an answer in its place; one whose turn was dropped is gone.
    pub fn put(&mut self, number: TurnNumber, answer: T) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(turn) = place.and_then(|place| self.queue.get_mut(place)) {
            turn.answer = Some(answer);
        }
    }

    /// Takes the oldest answer if it is here.
    pub fn next_ready(&mut self) -> Option<Ready<T>> {
        self.queue.front()?.answer.as_ref()?;
        let Turn { answer, weight, keep_alive } = self.queue.pop_front()?;
        self.first = self.first.saturating_add(1);
        answer.map(|answer| Ready { answer, weight, keep_alive })
    }

    /// Drops all of them; the bytes that their requests held.
    pub fn clear(&mut self) -> usize {
        self.first = self.next_number();
        let held = self.queue.iter().fold(0_usize, |sum, turn| sum.saturating_add(turn.weight));
        self.queue.clear();
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dropped_turn_never_gets_the_answer_of_another() {
        let mut turns = Turns::default();
        let before = turns.next_number();
        turns.push(None, 3, true);
        turns.push(None, 4, true);
        assert_eq!(turns.clear(), 7);
        turns.push(None, 5, false);
        turns.put(before, "old");
        assert_eq!(turns.next_ready(), None);
        turns.put(before + 2, "new");
        let ready = Ready { answer: "new", weight: 5, keep_alive: false };
        assert_eq!(turns.next_ready(), Some(ready));
        turns.put(before + 2, "again");
        assert!(turns.is_empty());
    }

    proptest! {
        #[test]
        fn answers_leave_in_request_order_whatever_comes_first(
            order in Just((0_u64..12).collect::<Vec<_>>()).prop_shuffle(),
            at_once in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let mut turns = Turns::default();
            for number in 0..12 {
                prop_assert_eq!(turns.next_number(), number);
                turns.push(at_once[usize::try_from(number).unwrap()].then_some(number), 1, true);
            }
            let mut left = Vec::new();
            for number in order {
                turns.put(number, number);
                while let Some(ready) = turns.next_ready() {
                    left.push(ready.answer);
                }
            }
            prop_assert_eq!(left, (0..12).collect::<Vec<_>>());
        }
    }
}
