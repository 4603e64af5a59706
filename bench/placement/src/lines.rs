//! The lines of one gateway: requests that wait for any free slot, and those that wait for one worker's.

use std::collections::VecDeque;

use crate::engine::Number;

/// The lines.
#[derive(Debug)]
pub(crate) struct Lines {
    any: VecDeque<Number>,
    /// By worker.
    held: Vec<VecDeque<Number>>,
}

impl Lines {
    /// Empty lines.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            any: VecDeque::new(),
            held: vec![VecDeque::new(); workers],
        }
    }

    /// A request waits for any slot; one that was sent before goes before those that were not.
    pub(crate) fn enter(&mut self, number: Number, was_sent: bool) {
        if was_sent {
            self.any.push_front(number);
        } else {
            self.any.push_back(number);
        }
    }

    /// A request waits for this worker.
    pub(crate) fn hold(&mut self, number: Number, worker: usize) {
        self.held[worker].push_back(number);
    }

    /// A request waits for this worker no longer. False if it did not.
    pub(crate) fn release(&mut self, number: Number, worker: usize) -> bool {
        let place = self.held[worker].iter().position(|held| *held == number);
        place.is_some_and(|place| self.held[worker].remove(place).is_some())
    }

    /// Takes out the first that waits for this worker.
    pub(crate) fn next_held(&mut self, worker: usize) -> Option<Number> {
        self.held[worker].pop_front()
    }

    /// Takes out the first that waits for any.
    pub(crate) fn next_of_any(&mut self) -> Option<Number> {
        self.any.pop_front()
    }

    /// Puts it back.
    pub(crate) fn back(&mut self, number: Number) {
        self.any.push_front(number);
    }

    /// Whether nobody waits for just any slot.
    pub(crate) fn is_free(&self) -> bool {
        self.any.is_empty()
    }

    /// All that wait for a worker, which is lost.
    pub(crate) fn dissolve(&mut self, worker: usize) -> VecDeque<Number> {
        std::mem::take(&mut self.held[worker])
    }
}
