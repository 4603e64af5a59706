//! The schedule of the simulated engine: which sequence is due when. Pure; the time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::sequence::{Sequence, StepOutcome};

/// Most missed steps that a late task makes up for at once. Beyond that the schedule moves, as in an engine that was
/// stopped for a while.
const CATCH_UP: u32 = 20;

struct Decoding {
    sequence: Sequence,
    /// Time before which it has no token.
    from: Instant,
}

/// All running sequences.
pub(super) struct Batch {
    ttft: Duration,
    itl: Duration,
    /// Sequences before their first token, by the time at which it is due.
    prefill: BTreeMap<(Instant, u64), Sequence>,
    /// Due times of `prefill`, by key.
    due: HashMap<u64, Instant>,
    decoding: BTreeMap<u64, Decoding>,
    /// Sequences that wait until their gateway has caught up.
    paused: HashMap<u64, Sequence>,
    /// Sequences that stay silent, as their script says.
    hanging: HashMap<u64, Sequence>,
    next_tick: Option<Instant>,
}

impl Batch {
    /// A batch without sequences.
    pub(super) fn new(ttft: Duration, itl: Duration) -> Self {
        Self {
            ttft,
            itl,
            prefill: BTreeMap::new(),
            due: HashMap::new(),
            decoding: BTreeMap::new(),
            paused: HashMap::new(),
            hanging: HashMap::new(),
            next_tick: None,
        }
    }

    /// Begins a sequence's prefill.
    pub(super) fn add(&mut self, key: u64, sequence: Sequence, now: Instant) {
        let due = now + sequence.ttft().unwrap_or(self.ttft);
        self.due.insert(key, due);
        self.prefill.insert((due, key), sequence);
    }

    /// Removes a sequence that nobody waits for any more.
    pub(super) fn remove(&mut self, key: u64) {
        if let Some(due) = self.due.remove(&key) {
            self.prefill.remove(&(due, key));
        }
        self.decoding.remove(&key);
        self.paused.remove(&key);
        self.hanging.remove(&key);
        self.rest();
    }

    /// Continues a paused sequence whose gateway has caught up.
    pub(super) fn resume(&mut self, key: u64) {
        if let Some(sequence) = self.paused.remove(&key) {
            // Only an engine without a latency pauses, so it is due at once.
            let from = self.next_tick.unwrap_or_else(Instant::now);
            self.next_tick = Some(from);
            self.decoding.insert(key, Decoding { sequence, from });
        }
    }

    /// When the next step is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let prefill = self.prefill.first_key_value().map(|((due, _), _)| *due);
        [prefill, self.next_tick].into_iter().flatten().min()
    }

    /// Makes all steps that are due. Returns the sequences that it paused, with the future that each waits for.
    pub(super) fn step(&mut self, now: Instant) -> Vec<(u64, BoxFuture<'static, ()>)> {
        let mut made_up = 0;
        while let Some(tick) = self.next_tick.filter(|tick| *tick <= now) {
            self.decode(tick);
            made_up += 1;
            if self.decoding.is_empty() {
                break;
            }
            let late = made_up >= CATCH_UP || self.itl.is_zero();
            self.next_tick = Some(if late { now + self.itl } else { tick + self.itl });
            if late {
                break;
            }
        }
        self.begin(now);
        self.rest();
        self.pause()
    }

    /// Generates one token for every sequence.
    fn decode(&mut self, tick: Instant) {
        let mut hanging = Vec::new();
        self.decoding.retain(|key, decoding| {
            if decoding.from > tick {
                return true;
            }
            match decoding.sequence.step() {
                StepOutcome::More => true,
                StepOutcome::Ended => false,
                StepOutcome::Hangs => {
                    hanging.push(*key);
                    true
                }
            }
        });
        for key in hanging {
            if let Some(decoding) = self.decoding.remove(&key) {
                self.hanging.insert(key, decoding.sequence);
            }
        }
    }

    /// Generates the first tokens of ended prefills. Each sequence joins the common steps at the one that is nearest
    /// to its own time for the second token.
    fn begin(&mut self, now: Instant) {
        while let Some(entry) = self.prefill.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((due, key), mut sequence) = entry.remove_entry();
            self.due.remove(&key);
            match sequence.step() {
                StepOutcome::Ended => {}
                StepOutcome::Hangs => {
                    self.hanging.insert(key, sequence);
                }
                StepOutcome::More => {
                    self.next_tick.get_or_insert(due + self.itl);
                    let from = due + self.itl / 2;
                    self.decoding.insert(key, Decoding { sequence, from });
                }
            }
        }
    }

    /// Pauses sequences with a slow gateway. Without a latency the engine would fill that gateway's queue.
    fn pause(&mut self) -> Vec<(u64, BoxFuture<'static, ()>)> {
        if !self.itl.is_zero() {
            return Vec::new();
        }
        let rooms = self.decoding.iter();
        let waiting: Vec<_> = rooms
            .filter_map(|(key, d)| Some((*key, d.sequence.congestion()?)))
            .collect();
        for (key, _) in &waiting {
            if let Some(decoding) = self.decoding.remove(key) {
                self.paused.insert(*key, decoding.sequence);
            }
        }
        self.rest();
        waiting
    }

    fn rest(&mut self) {
        if self.decoding.is_empty() {
            self.next_tick = None;
        }
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
