//! `SGLang`'s cache-aware policy, after its description, with its default thresholds.
//!
//! Each gateway keeps a tree of what it sent where. While its own counts are balanced, a request goes to the worker
//! with the longest match if that is more than 0.3 of the prompt, else to the worker with the fewest requests. When
//! they are not (by more than 64 and by half), it goes to the worker with the fewest.

use super::decide::{Ask, Choice, Policy, cheapest};
use super::loads::Loads;
use crate::cache::PrefixCache;
use crate::engine::Number;
use crate::holders::Holders;
use crate::prompt::Segment;
use crate::time::Nanos;

/// Part of a prompt that must match.
const MATCH: f64 = 0.3;

/// Difference of requests that counts as imbalance, and quotient.
const IMBALANCE: (u32, f64) = (64, 1.5);

/// Tokens that the tree keeps of each worker: 2^26 characters.
const TREE_TOKENS: u32 = (1 << 26) / 4;

/// The policy.
#[derive(Debug)]
pub(super) struct CacheAware {
    loads: Loads,
    trees: Vec<PrefixCache>,
    holders: Holders,
    rng: fastrand::Rng,
}

impl CacheAware {
    /// Over these workers.
    pub(super) fn new(workers: usize, seed: u64) -> Self {
        Self {
            loads: Loads::new(workers),
            trees: (0..workers).map(|_| PrefixCache::new(TREE_TOKENS)).collect(),
            holders: Holders::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn balanced(&self) -> bool {
        let most = self
            .loads
            .living()
            .map(|worker| self.loads.own(worker))
            .max()
            .unwrap_or(0);
        let least = self
            .loads
            .living()
            .map(|worker| self.loads.own(worker))
            .min()
            .unwrap_or(0);
        most - least <= IMBALANCE.0 || f64::from(most) <= IMBALANCE.1 * f64::from(least)
    }

    /// Tokens of the longest match, and a worker that has it.
    fn longest(&mut self, prompt: &[Segment]) -> Option<(u32, usize)> {
        let mut deepest = 0;
        let mut workers = Vec::new();
        self.holders.depths(prompt, |worker, depth| {
            if depth > deepest {
                deepest = depth;
                workers.clear();
            }
            if depth == deepest {
                workers.push(worker);
            }
        });
        let tokens = prompt.iter().take(deepest).map(|segment| segment.tokens).sum();
        self.rng.choice(workers).map(|worker| (tokens, worker))
    }
}

impl Policy for CacheAware {
    fn place(&mut self, ask: &Ask<'_>) -> Choice {
        let prompt = &ask.request.prompt;
        if self.balanced()
            && let Some((tokens, worker)) = self.longest(prompt)
            && f64::from(tokens) > MATCH * f64::from(ask.request.prompt_tokens())
        {
            return Choice::Worker(worker);
        }
        let Self { loads, rng, .. } = self;
        cheapest(loads.living(), rng, |worker| f64::from(loads.own(worker))).map_or(Choice::Wait, Choice::Worker)
    }

    fn sent(&mut self, ask: &Ask<'_>, worker: usize) {
        self.loads.sent(worker);
        let tree = &mut self.trees[worker];
        let prompt = &ask.request.prompt;
        if let (Some((last, before)), Some((_, mut hold))) = (prompt.split_last(), tree.start(prompt, 0)) {
            tree.computed(before, &mut hold);
            tree.ended(before, *last, hold);
        }
        self.holders.apply(worker, &self.trees[worker].take_changes());
    }

    fn ended(&mut self, _number: Number, worker: usize, _now: Nanos) {
        self.loads.ended(worker);
    }

    fn lost(&mut self, worker: usize) {
        self.loads.lost(worker);
        self.holders.forget(worker);
    }
}
