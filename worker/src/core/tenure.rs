//! How a worker holds its id: when it claims it again, and which of two that claim one id stays. Pure.

use std::time::Instant;

use tokenbus_protocol::Claim;

use crate::limits;

/// What is known of the id while the worker runs.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    /// When the claim was said last.
    said: Option<Instant>,
    /// The instance that has the id instead.
    lost_to: Option<u64>,
}

impl Tenure {
    /// The claim is said now.
    pub(crate) fn say(&mut self, now: Instant) {
        self.said = Some(now);
    }

    /// `instance` has the id from now on.
    pub(crate) fn lose_to(&mut self, instance: u64) {
        self.lost_to = Some(instance);
    }

    /// Whether the claim is to be said again. The first is said when NATS knows that the worker listens.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.said.is_some_and(|said| now >= said + limits::CLAIM_EVERY)
    }

    /// The instance that has the id now instead of this one.
    pub(crate) fn lost_to(&self) -> Option<u64> {
        self.lost_to
    }
}

/// What another's claim to an id means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimVerdict {
    /// It is one's own.
    Own,
    /// The other has to end, and is told so.
    Stay,
    /// The other stays.
    Yield,
}

/// Of two the one that was started later stays. Both decide by the same numbers, so never both or neither.
pub(crate) fn weigh(own: Claim, other: Claim) -> ClaimVerdict {
    let rank = |claim: Claim| (claim.started_at_ms, claim.instance);
    match rank(other).cmp(&rank(own)) {
        _ if other.instance == own.instance => ClaimVerdict::Own,
        std::cmp::Ordering::Greater => ClaimVerdict::Yield,
        std::cmp::Ordering::Less | std::cmp::Ordering::Equal => ClaimVerdict::Stay,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn claim(started_at_ms: u64, instance: u64) -> Claim {
        Claim {
            instance,
            started_at_ms,
        }
    }

    #[test]
    fn of_two_exactly_one_stays_whatever_their_numbers() {
        for (a, b) in [
            (claim(1, 5), claim(2, 4)),
            (claim(2, 4), claim(1, 5)),
            (claim(3, 4), claim(3, 5)),
            (claim(0, 1), claim(u64::MAX, 2)),
        ] {
            let verdicts = [weigh(a, b), weigh(b, a)];
            assert!(
                verdicts == [ClaimVerdict::Stay, ClaimVerdict::Yield]
                    || verdicts == [ClaimVerdict::Yield, ClaimVerdict::Stay],
                "{a:?} {b:?}: {verdicts:?}"
            );
        }
        assert_eq!(
            weigh(claim(1, 5), claim(2, 4)),
            ClaimVerdict::Yield,
            "the later one stays"
        );
    }

    #[test]
    fn an_own_claim_that_comes_back_counts_for_nothing() {
        assert_eq!(weigh(claim(1, 5), claim(1, 5)), ClaimVerdict::Own);
    }

    #[test]
    fn a_claim_is_repeated_but_not_begun_by_the_clock() {
        let now = Instant::now();
        let mut tenure = Tenure::default();
        assert!(!tenure.is_due(now), "nobody listens yet");
        tenure.said = Some(now);
        assert!(!tenure.is_due(now));
        assert!(tenure.is_due(now + limits::CLAIM_EVERY));
    }
}
