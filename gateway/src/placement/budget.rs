//! Token buckets by key: how many streams of a model may move to another worker per second, and how many frames that
//! nobody asked for a worker may send.
//!
//! A worker that dies hands all its streams to the others at once, as intended. But a request that kills every engine,
//! or a cluster in which everything dies, must not multiply the load: once the bucket is empty, streams wait for the
//! next token.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

use crate::limits::BUCKETS;

/// A token bucket for each key, all of one size and rate.
#[derive(Debug)]
pub(crate) struct Budget<K> {
    buckets: HashMap<K, TokenBucket>,
    /// Tokens of a full bucket.
    burst: f64,
    /// Tokens per second.
    rate: f64,
}

#[derive(Debug)]
struct TokenBucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> Budget<K> {
    /// Buckets of `burst` tokens, which fill with `rate` tokens per second.
    pub(crate) fn new(burst: f64, rate: f64) -> Self {
        Self {
            buckets: HashMap::new(),
            burst,
            rate,
        }
    }

    /// Takes a token of `key`; false if there is none now.
    pub(crate) fn take<Q>(&mut self, key: &Q, now: Instant) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let some = self.level(key, now) >= 1.0;
        if some {
            self.spend(key, 1.0, now);
        }
        some
    }

    /// Takes `tokens` of `key`, at most until the bucket is empty. True if that emptied it.
    pub(crate) fn spend<Q>(&mut self, key: &Q, tokens: f64, now: Instant) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let before = self.level(key, now);
        let bucket = TokenBucket {
            tokens: (before - tokens).max(0.0),
            at: now,
        };
        let emptied = before >= 1.0 && bucket.tokens < 1.0;
        if let Some(known) = self.buckets.get_mut(key) {
            *known = bucket;
            return emptied;
        }
        if self.buckets.len() >= BUCKETS {
            // A full bucket need not be kept.
            let (burst, rate) = (self.burst, self.rate);
            self.buckets.retain(|_, bucket| bucket.level(burst, rate, now) < burst);
        }
        if self.buckets.len() < BUCKETS {
            self.buckets.insert(key.to_owned(), bucket);
        }
        emptied
    }

    /// Whether the bucket of `key` has no token.
    pub(crate) fn is_spent<Q>(&self, key: &Q, now: Instant) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.level(key, now) < 1.0
    }

    fn level<Q>(&self, key: &Q, now: Instant) -> f64
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let level = |bucket: &TokenBucket| bucket.level(self.burst, self.rate, now);
        self.buckets.get(key).map_or(self.burst, level)
    }
}

impl TokenBucket {
    fn level(&self, burst: f64, rate: f64, now: Instant) -> f64 {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        (self.tokens + refill).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget() -> Budget<String> {
        Budget::new(2048.0, 256.0)
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut budget = budget();
        let now = Instant::now();
        let burst = (0..10_000).filter(|_| budget.take("m", now)).count();
        assert_eq!(burst, 2048);
        assert!(budget.take("other", now), "another model has its own");
        let later = now + Duration::from_secs(1);
        let second = (0..10_000).filter(|_| budget.take("m", later)).count();
        assert_eq!(second, 256);
    }

    #[test]
    fn an_idle_bucket_fills_up_and_no_further() {
        let mut budget = budget();
        let now = Instant::now();
        while budget.take("m", now) {}
        let later = now + Duration::from_secs(3600);
        let burst = (0..10_000).filter(|_| budget.take("m", later)).count();
        assert_eq!(burst, 2048);
    }

    #[test]
    fn more_than_there_is_empties_the_bucket_once() {
        let mut budget = budget();
        let now = Instant::now();
        assert!(!budget.is_spent("m", now));
        assert!(!budget.spend("m", 1.0, now));
        assert!(budget.spend("m", 1e9, now), "it was emptied");
        assert!(!budget.spend("m", 1.0, now), "it was empty");
        assert!(budget.is_spent("m", now) && !budget.is_spent("other", now));
        assert!(!budget.is_spent("m", now + Duration::from_millis(10)));
    }

    #[test]
    fn invented_keys_do_not_take_memory() {
        let mut budget = budget();
        let now = Instant::now();
        for n in 0..=BUCKETS {
            assert!(budget.take(n.to_string().as_str(), now));
        }
        assert_eq!(budget.buckets.len(), BUCKETS);
        budget.take("m", now + Duration::from_secs(60));
        assert_eq!(budget.buckets.len(), 1, "full buckets are forgotten");
    }
}
