//! The schedule of the simulated engine: who is due when. Pure; a time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::sequence::{After, Sequence};

/// Steps that are made up for at once when the task was late. Beyond it the schedule moves, as it
/// does in an engine that was stopped for a while.
const CATCH_UP: u32 = 20;

struct Decoding {
    sequence: Sequence,
    /// It has no token before this time.
    from: Instant,
}

/// All running sequences.
pub(super) struct Batch {
    ttft: Duration,
    itl: Duration,
    /// Before their first token, by when it is due.
    prefill: BTreeMap<(Instant, u64), Sequence>,
    /// The same, by key.
    due: HashMap<u64, Instant>,
    decoding: BTreeMap<u64, Decoding>,
    /// Waiting until their gateway has caught up.
    paused: HashMap<u64, Sequence>,
    /// Scripted to say nothing more.
    hanging: HashMap<u64, Sequence>,
    next_tick: Option<Instant>,
}

impl Batch {
    /// No sequences yet.
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

    /// A new sequence begins its prefill.
    pub(super) fn add(&mut self, key: u64, sequence: Sequence, now: Instant) {
        let due = now + sequence.ttft().unwrap_or(self.ttft);
        self.due.insert(key, due);
        self.prefill.insert((due, key), sequence);
    }

    /// A sequence is not wanted any more.
    pub(super) fn remove(&mut self, key: u64) {
        if let Some(due) = self.due.remove(&key) {
            self.prefill.remove(&(due, key));
        }
        self.decoding.remove(&key);
        self.paused.remove(&key);
        self.hanging.remove(&key);
        self.rest();
    }

    /// A paused sequence's gateway has caught up.
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

    /// Makes all steps that are due. Returns the sequences that were paused, with what each waits
    /// for.
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

    /// One token for every sequence.
    fn decode(&mut self, tick: Instant) {
        let mut hanging = Vec::new();
        self.decoding.retain(|key, decoding| {
            if decoding.from > tick {
                return true;
            }
            match decoding.sequence.step() {
                After::More => true,
                After::Ended => false,
                After::Hangs => {
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

    /// First tokens. A prefill's end gives one, and the sequence joins the common steps at the one
    /// that is nearest to its own time for the second.
    fn begin(&mut self, now: Instant) {
        while let Some(entry) = self.prefill.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((due, key), mut sequence) = entry.remove_entry();
            self.due.remove(&key);
            match sequence.step() {
                After::Ended => {}
                After::Hangs => {
                    self.hanging.insert(key, sequence);
                }
                After::More => {
                    self.next_tick.get_or_insert(due + self.itl);
                    let from = due + self.itl / 2;
                    self.decoding.insert(key, Decoding { sequence, from });
                }
            }
        }
    }

    /// An engine without a latency would fill the queue of a slow gateway: it waits instead.
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
