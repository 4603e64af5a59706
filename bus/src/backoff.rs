//! Doubling pauses with jitter.

use std::time::Duration;

/// The pause before attempt number `attempt`, counted from 1. The full pause is `first`, doubled with each attempt,
/// up to `max`. The result is a random part of it between half and all ("equal jitter"), so that clients that lost
/// one server do not return together.
pub fn jittered(attempt: usize, first: Duration, max: Duration) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    let full = first.saturating_mul(1 << doublings).min(max);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_stays_in_the_upper_half() {
        let (first, max) = (Duration::from_millis(50), Duration::from_secs(2));
        for attempt in 0..100_usize {
            let full = first.saturating_mul(1 << (attempt.clamp(1, 21) - 1)).min(max);
            for _ in 0..100 {
                let pause = jittered(attempt, first, max);
                assert!(
                    pause <= full && pause >= full / 2,
                    "attempt {attempt}: {pause:?} of {full:?}"
                );
            }
        }
    }
}
