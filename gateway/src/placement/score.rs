//! The cost of placing a request on a worker: a pure function.

/// The facts that the score uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts {
    /// Requests that it runs at once.
    pub slots: u32,
    /// Free slots, minus requests just placed there.
    pub free: u32,
    /// Requests in its own queue.
    pub queued: u32,
    /// Its recent median time to first token in milliseconds, 0 when unknown.
    pub ttft_ms: f64,
    /// Part of the prompt, 0 to 1, whose prefix the worker has seen lately. Always 0, because prefixes are not tracked.
    pub prefix: f64,
}

/// How much of a worker's load a fully cached prompt outweighs.
const PREFIX_WEIGHT: f64 = 0.5;

/// Weight of the time to first token against the load. It is small, so that it only breaks ties.
const TTFT_WEIGHT: f64 = 0.1;

/// Median time to first token in milliseconds that counts as half of [`TTFT_WEIGHT`].
const TTFT_HALF_MS: f64 = 500.0;

/// The cost of placing a request there; the lowest wins. The load is the share of busy slots; requests queued behind
/// full slots raise it above 1.
pub fn cost(facts: &Facts) -> f64 {
    let slots = f64::from(facts.slots.max(1));
    let busy = slots - f64::from(facts.free.min(facts.slots));
    let load = (busy + f64::from(facts.queued)) / slots;
    let slow = facts.ttft_ms.max(0.0) / (facts.ttft_ms.max(0.0) + TTFT_HALF_MS);
    load + TTFT_WEIGHT * slow - PREFIX_WEIGHT * facts.prefix.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lighter_worker_costs_less() {
        let idle = Facts {
            slots: 8,
            free: 8,
            ..Facts::default()
        };
        let half = Facts {
            slots: 8,
            free: 4,
            ..Facts::default()
        };
        let full = Facts {
            slots: 8,
            free: 0,
            ..Facts::default()
        };
        let queued = Facts { queued: 3, ..full };
        assert!(cost(&idle) < cost(&half) && cost(&half) < cost(&full) && cost(&full) < cost(&queued));
    }

    #[test]
    fn size_counts_by_share() {
        let small = Facts {
            slots: 2,
            free: 1,
            ..Facts::default()
        };
        let large = Facts {
            slots: 64,
            free: 48,
            ..Facts::default()
        };
        assert!(cost(&large) < cost(&small));
    }

    #[test]
    fn a_slow_first_token_breaks_a_tie_but_not_more() {
        let fast = Facts {
            slots: 8,
            free: 4,
            ttft_ms: 20.0,
            ..Facts::default()
        };
        let slow = Facts {
            ttft_ms: 2000.0,
            ..fast
        };
        let slow_but_free = Facts { free: 8, ..slow };
        assert!(cost(&fast) < cost(&slow));
        assert!(cost(&slow_but_free) < cost(&fast));
    }

    #[test]
    fn a_seen_prefix_helps_and_nonsense_does_no_harm() {
        let plain = Facts {
            slots: 8,
            free: 4,
            ..Facts::default()
        };
        assert!(cost(&Facts { prefix: 1.0, ..plain }) < cost(&plain));
        assert!(
            cost(&Facts {
                slots: 0,
                free: 9,
                ttft_ms: -1.0,
                ..Facts::default()
            })
            .is_finite()
        );
    }
}
