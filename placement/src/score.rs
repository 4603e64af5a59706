//! The expected time to the first token of a prompt on one worker.

use crate::limits::{DECODE_STEPS, MOST_CROWDED};

/// What is known of a worker, for one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// Requests that it runs at once.
    pub slots: u32,
    /// Free slots, minus requests just placed there.
    pub free: u32,
    /// Requests that wait for its slots.
    pub queued: u32,
    /// Tokens of prompts that it has accepted and not read yet.
    pub pending: f32,
    /// Tokens of a prompt that it reads in a millisecond.
    pub prefill: f32,
    /// Milliseconds to the first token of a prompt without tokens to read.
    pub base_ms: f32,
    /// Milliseconds for which a request holds a slot from its first token on. With the time before, a queue of prompts
    /// would look like a lack of slots.
    pub service_ms: f32,
    /// Milliseconds between two tokens of an answer.
    pub token_ms: f32,
}

/// The parts of the expected time to the first token, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Expected {
    /// Waiting for a slot.
    pub wait: f32,
    /// Reading what came before, meanwhile.
    pub queue: f32,
    /// Reading the prompt.
    pub read: f32,
    /// Sharing the engine with answers that run.
    pub decode: f32,
}

impl Expected {
    /// All together. What came before is read while the request waits for a slot, so the longer of both counts.
    pub fn total(self) -> f32 {
        self.wait.max(self.queue) + self.read + self.decode
    }

    /// The time, and what it costs others: every token that is read delays those behind it. `crowding` is that of
    /// [`crowding`]; with 1 the cost is the time.
    pub fn cost(self, crowding: f32) -> f32 {
        self.total() + (sane(crowding).max(1.0) - 1.0) * self.read
    }
}

/// How many times over the reading of a prompt counts, where workers spend the part `busy` of their time reading: the
/// time itself, and the delay of those who come while the queue lasts, which grows as `busy / (1 - busy)`. Without it,
/// a loaded cluster reads again what another worker holds, so the load grows and more is read again.
pub fn crowding(busy: f32) -> f32 {
    (1.0 / (1.0 - sane(busy)).max(0.01)).clamp(1.0, MOST_CROWDED)
}

/// The expected time to the first token of a prompt of which `uncached` tokens must be read. Always finite and not
/// negative, whatever a worker reports.
pub fn expected(uncached: f32, facts: &Facts) -> Expected {
    let slots = number(facts.slots.max(1));
    let busy = slots - number(facts.free.min(facts.slots));
    let wait = if facts.free > 0 {
        0.0
    } else {
        (number(facts.queued) + 1.0) / slots * sane(facts.service_ms)
    };
    let rate = sane(facts.prefill).max(0.001);
    Expected {
        wait,
        queue: sane(facts.base_ms) + sane(facts.pending) / rate,
        read: sane(uncached) / rate,
        decode: busy / slots * DECODE_STEPS * sane(facts.token_ms),
    }
}

/// Reports are bounded: no worker is worse than this, and none is better than nothing.
fn sane(value: f32) -> f32 {
    if value.is_finite() { value.clamp(0.0, 1e9) } else { 0.0 }
}

#[allow(clippy::cast_precision_loss, reason = "counts of slots and requests are small")]
fn number(count: u32) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Facts = Facts {
        slots: 8,
        free: 8,
        queued: 0,
        pending: 0.0,
        prefill: 5.0,
        base_ms: 10.0,
        service_ms: 4000.0,
        token_ms: 20.0,
    };

    fn ms(uncached: f32, facts: Facts) -> f32 {
        expected(uncached, &facts).total()
    }

    #[test]
    fn the_parts_are_times() {
        assert_eq!(
            expected(1000.0, &IDLE),
            Expected {
                wait: 0.0,
                queue: 10.0,
                read: 200.0,
                decode: 0.0
            }
        );
        let busy = Facts {
            free: 0,
            queued: 3,
            pending: 500.0,
            ..IDLE
        };
        assert_eq!(
            expected(0.0, &busy),
            Expected {
                wait: 2000.0,
                queue: 110.0,
                read: 0.0,
                decode: 80.0
            }
        );
        assert_eq!(ms(0.0, busy), 2080.0, "the queue is read while the request waits");
    }

    #[test]
    fn a_cached_prompt_outweighs_load_as_far_as_it_saves_time() {
        let busy = Facts { free: 2, ..IDLE };
        assert!(
            ms(0.0, busy) < ms(6000.0, IDLE),
            "1.2 s of prefill against shared decoding"
        );
        assert!(ms(0.0, busy) > ms(100.0, IDLE), "20 ms of prefill");
        let waiting = Facts {
            free: 0,
            queued: 9,
            ..IDLE
        };
        assert!(ms(0.0, waiting) > ms(6000.0, IDLE), "5 s of waiting");
    }

    #[test]
    fn in_a_crowd_reading_again_costs_more_than_waiting() {
        let holder = Facts {
            pending: 15_000.0,
            ..IDLE
        };
        let other = Facts {
            pending: 5_000.0,
            ..IDLE
        };
        let cost = |busy, uncached, facts| expected(uncached, &facts).cost(crowding(busy));
        assert!(
            cost(0.0, 0.0, holder) > cost(0.0, 8_000.0, other),
            "3 s of queue against 1 s and 1.6 s"
        );
        assert!(
            cost(0.8, 0.0, holder) < cost(0.8, 8_000.0, other),
            "8 s of delay for others"
        );
        assert_eq!((crowding(0.0), crowding(0.5), crowding(f32::NAN)), (1.0, 2.0, 1.0));
        assert!(crowding(5.0) <= MOST_CROWDED);
    }

    #[test]
    fn a_faster_worker_takes_more() {
        let fast = Facts {
            prefill: 20.0,
            token_ms: 5.0,
            service_ms: 1000.0,
            ..IDLE
        };
        assert!(ms(1000.0, Facts { free: 1, ..fast }) < ms(1000.0, IDLE));
    }

    proptest! {
        #[test]
        fn nonsense_is_no_harm(
            counts in any::<(u32, u32, u32)>(),
            rates in any::<(f32, f32, f32, f32, f32, f32)>(),
        ) {
            let facts = Facts {
                slots: counts.0, free: counts.1, queued: counts.2,
                pending: rates.0, prefill: rates.1, base_ms: rates.2, service_ms: rates.3, token_ms: rates.4,
            };
            let total = ms(rates.5, facts);
            prop_assert!(total.is_finite() && total >= 0.0);
        }
    }
}
