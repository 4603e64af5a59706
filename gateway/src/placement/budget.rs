//! How many streams may move to another worker per second: a token bucket for each model.
//!
//! A worker that dies hands all its streams to the others at once, as intended. But a request that kills every engine,
//! or a cluster in which everything dies, must not multiply the load: once the bucket is empty, streams wait for the
//! next token.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::limits::{KNOWN_MODELS, REDISPATCH_BURST, REDISPATCH_RATE};

/// The token buckets of all models.
#[derive(Debug, Default)]
pub(crate) struct Budget(HashMap<String, TokenBucket>);

#[derive(Debug)]
struct TokenBucket {
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// Takes a token of `model`; false if there is none now.
    pub(crate) fn take(&mut self, model: &str, now: Instant) -> bool {
        if let Some(bucket) = self.0.get_mut(model) {
            return bucket.take(now);
        }
        if self.0.len() >= KNOWN_MODELS {
            // A full bucket need not be kept.
            self.0.retain(|_, bucket| bucket.level(now) < REDISPATCH_BURST);
        }
        let mut bucket = TokenBucket {
            tokens: REDISPATCH_BURST,
            at: now,
        };
        let taken = bucket.take(now);
        if self.0.len() < KNOWN_MODELS {
            self.0.insert(model.to_owned(), bucket);
        }
        taken
    }
}

impl TokenBucket {
    fn level(&self, now: Instant) -> f64 {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * REDISPATCH_RATE;
        (self.tokens + refill).min(REDISPATCH_BURST)
    }

    fn take(&mut self, now: Instant) -> bool {
        self.tokens = self.level(now);
        self.at = now;
        let some = self.tokens >= 1.0;
        if some {
            self.tokens -= 1.0;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut budget = Budget::default();
        let now = Instant::now();
        let burst = (0..10_000).filter(|_| budget.take("m", now)).count();
        assert!((burst as f64 - REDISPATCH_BURST).abs() < 1.0, "{burst}");
        assert!(budget.take("other", now), "another model has its own");
        let later = now + Duration::from_secs(1);
        let second = (0..10_000).filter(|_| budget.take("m", later)).count();
        assert!((second as f64 - REDISPATCH_RATE).abs() < 2.0, "{second}");
    }

    #[test]
    fn an_idle_bucket_fills_up_and_no_further() {
        let mut budget = Budget::default();
        let now = Instant::now();
        while budget.take("m", now) {}
        let later = now + Duration::from_secs(3600);
        let burst = (0..10_000).filter(|_| budget.take("m", later)).count();
        assert!((burst as f64 - REDISPATCH_BURST).abs() < 1.0, "{burst}");
    }
}
