//! The cost of placing a request on a worker: a pure function.

/// What the score is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct WorkerLoad {
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
pub(crate) fn cost(worker: &WorkerLoad) -> f64 {
    let slots = f64::from(worker.slots.max(1));
    let busy = slots - f64::from(worker.free.min(worker.slots));
    let load = (busy + f64::from(worker.queued)) / slots;
    let slow = worker.ttft_ms.max(0.0) / (worker.ttft_ms.max(0.0) + TTFT_HALF_MS);
    load + TTFT_WEIGHT * slow - PREFIX_WEIGHT * worker.prefix.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lighter_worker_costs_less() {
        let idle = WorkerLoad {
            slots: 8,
            free: 8,
            ..WorkerLoad::default()
        };
        let half = WorkerLoad {
            slots: 8,
            free: 4,
            ..WorkerLoad::default()
        };
        let full = WorkerLoad {
            slots: 8,
            free: 0,
            ..WorkerLoad::default()
        };
        let queued = WorkerLoad { queued: 3, ..full };
        assert!(cost(&idle) < cost(&half) && cost(&half) < cost(&full) && cost(&full) < cost(&queued));
    }

    #[test]
    fn size_counts_by_share() {
        let small = WorkerLoad {
            slots: 2,
            free: 1,
            ..WorkerLoad::default()
        };
        let large = WorkerLoad {
            slots: 64,
            free: 48,
            ..WorkerLoad::default()
        };
        assert!(cost(&large) < cost(&small));
    }

    #[test]
    fn a_slow_first_token_breaks_a_tie_but_not_more() {
        let fast = WorkerLoad {
            slots: 8,
            free: 4,
            ttft_ms: 20.0,
            ..WorkerLoad::default()
        };
        let slow = WorkerLoad {
            ttft_ms: 2000.0,
            ..fast
        };
        let slow_but_free = WorkerLoad { free: 8, ..slow };
        assert!(cost(&fast) < cost(&slow));
        assert!(cost(&slow_but_free) < cost(&fast));
    }

    #[test]
    fn a_seen_prefix_helps_and_nonsense_does_no_harm() {
        let plain = WorkerLoad {
            slots: 8,
            free: 4,
            ..WorkerLoad::default()
        };
        assert!(cost(&WorkerLoad { prefix: 1.0, ..plain }) < cost(&plain));
        assert!(
            cost(&WorkerLoad {
                slots: 0,
                free: 9,
                ttft_ms: -1.0,
                ..WorkerLoad::default()
            })
            .is_finite()
        );
    }
}
