//! How many requests each worker holds, as far as a gateway knows.

use rustc_hash::FxHashMap;

use crate::engine::Number;
use crate::time::Nanos;

/// What a gateway knows of the workers' loads.
#[derive(Debug)]
pub(super) struct Loads {
    lives: Vec<bool>,
    /// This gateway's own requests.
    own: Vec<u32>,
    /// All requests, as the worker said last.
    said: Vec<u32>,
    /// When this was true.
    said_at: Vec<Nanos>,
    /// Own requests sent since then.
    since: Vec<u32>,
    sent_at: FxHashMap<Number, Nanos>,
}

impl Loads {
    /// Nothing is known yet, and nothing runs.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            lives: vec![true; workers],
            own: vec![0; workers],
            said: vec![0; workers],
            said_at: vec![0; workers],
            since: vec![0; workers],
            sent_at: FxHashMap::default(),
        }
    }

    /// The workers that are there.
    pub(super) fn living(&self) -> impl Iterator<Item = usize> {
        self.lives
            .iter()
            .enumerate()
            .filter_map(|(worker, lives)| lives.then_some(worker))
    }

    /// This gateway's own requests at a worker.
    pub(super) fn own(&self, worker: usize) -> u32 {
        self.own[worker]
    }

    /// All gateways' requests at a worker: what it said last, and what was sent since.
    pub(super) fn all(&self, worker: usize) -> u32 {
        self.said[worker] + self.since[worker]
    }

    /// A request was sent.
    pub(super) fn sent(&mut self, number: Number, worker: usize, now: Nanos) {
        self.own[worker] += 1;
        self.since[worker] += 1;
        self.sent_at.insert(number, now);
    }

    /// A request has ended or was refused.
    pub(super) fn ended(&mut self, number: Number, worker: usize) {
        self.own[worker] = self.own[worker].saturating_sub(1);
        if let Some(sent) = self.sent_at.remove(&number)
            && sent >= self.said_at[worker]
        {
            self.since[worker] = self.since[worker].saturating_sub(1);
        } else {
            self.said[worker] = self.said[worker].saturating_sub(1);
        }
    }

    /// The worker says how many requests it held at `at`.
    pub(super) fn said(&mut self, worker: usize, active: u32, at: Nanos) {
        if at >= self.said_at[worker] {
            self.said[worker] = active;
            self.said_at[worker] = at;
            self.since[worker] = 0;
        }
    }

    /// The worker is gone.
    pub(super) fn lost(&mut self, worker: usize) {
        self.lives[worker] = false;
    }
}
