//! A gateway's own decisions of the last seconds. They count as held until the worker has told of them itself.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use crate::chain::Prompt;
use crate::directory::{Holdings, WorkerNumber};
use crate::limits::{RECENT_CUTS, RECENT_MS};

/// Workers that one cut is remembered for.
const WORKERS: usize = 3;

/// Own decisions.
#[derive(Debug, Default)]
pub struct Recent {
    cuts: HashMap<u64, [Option<(WorkerNumber, u64)>; WORKERS], FxBuildHasher>,
    order: VecDeque<(u64, u64)>,
}

impl Recent {
    /// `prompt` was placed on `worker` at `now_ms`.
    pub fn placed(&mut self, prompt: &Prompt, worker: WorkerNumber, now_ms: u64) {
        self.forget(now_ms);
        let until = now_ms + RECENT_MS;
        for cut in prompt.cuts() {
            if self.order.len() >= RECENT_CUTS {
                self.drop_first();
            }
            let workers = self.cuts.entry(cut.hash).or_default();
            let same = workers
                .iter()
                .position(|entry| entry.is_some_and(|(known, _)| known == worker));
            let oldest = || {
                workers
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, entry)| entry.map_or(0, |(_, until)| until))
            };
            if let Some(entry) = same
                .or_else(|| oldest().map(|(at, _)| at))
                .and_then(|at| workers.get_mut(at))
            {
                *entry = Some((worker, until));
            }
            self.order.push_back((cut.hash, until));
        }
    }

    /// Adds to `holdings` the workers to which a prefix of `prompt` was sent lately.
    pub fn add_to(&self, prompt: &Prompt, now_ms: u64, holdings: &mut Holdings) {
        for cut in prompt.cuts().iter().rev() {
            for (worker, until) in self.cuts.get(&cut.hash).into_iter().flatten().flatten() {
                if now_ms < *until {
                    holdings.note(*worker, cut.tokens);
                }
            }
        }
    }

    /// Bytes that it takes, nearly.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(u64, [Option<(WorkerNumber, u64)>; WORKERS])>() + 1;
        self.cuts.capacity() * 8 / 7 * entry + self.order.capacity() * size_of::<(u64, u64)>()
    }

    fn forget(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|(_, until)| *until <= now_ms) {
            self.drop_first();
        }
    }

    /// Drops the oldest mention of a cut, and the cut if none is left.
    fn drop_first(&mut self) {
        let Some((hash, until)) = self.order.pop_front() else {
            return;
        };
        let Some(workers) = self.cuts.get_mut(&hash) else {
            return;
        };
        for entry in workers.iter_mut() {
            *entry = entry.filter(|(_, other)| *other > until);
        }
        if workers.iter().all(Option::is_none) {
            self.cuts.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Cut;

    fn prompt(hash: u64) -> Prompt {
        [Cut {
            hash,
            bytes: 400,
            tokens: 100,
        }]
        .into_iter()
        .collect()
    }

    fn held(recent: &Recent, hash: u64, worker: u16, now: u64) -> u32 {
        let mut holdings = Holdings::default();
        recent.add_to(&prompt(hash), now, &mut holdings);
        holdings.of(WorkerNumber(worker))
    }

    #[test]
    fn a_decision_counts_for_three_seconds_from_the_last() {
        let mut recent = Recent::default();
        recent.placed(&prompt(7), WorkerNumber(1), 0);
        recent.placed(&prompt(7), WorkerNumber(2), 100);
        assert_eq!((held(&recent, 7, 1, 2999), held(&recent, 7, 1, 3000)), (100, 0));
        recent.placed(&prompt(7), WorkerNumber(1), 2000);
        recent.placed(&prompt(8), WorkerNumber(1), 4000);
        assert_eq!((held(&recent, 7, 1, 4500), held(&recent, 7, 2, 4500)), (100, 0));
    }

    #[test]
    fn a_flood_is_bounded_and_the_newest_are_kept() {
        let mut recent = Recent::default();
        for hash in 0..200_000 {
            recent.placed(&prompt(hash), WorkerNumber(1), 0);
        }
        assert_eq!((held(&recent, 0, 1, 1), held(&recent, 199_999, 1, 1)), (0, 100));
        assert!(recent.bytes() < 16 << 20, "{}", recent.bytes());
        let mut same = Recent::default();
        for worker in 0..9 {
            same.placed(&prompt(1), WorkerNumber(worker), u64::from(worker));
        }
        assert_eq!((held(&same, 1, 0, 9), held(&same, 1, 8, 9)), (0, 100));
    }
}
