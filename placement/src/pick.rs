//! Which of a model's workers gets a request, and why.

use std::fmt;

use crate::limits::{SLACK, SLACK_MS, SPILLED_TOKENS};

/// A worker that may get the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// What the caller calls it.
    pub id: u32,
    /// A hash of its name, the same at every gateway.
    pub name: u64,
    /// Expected milliseconds to the first token.
    pub expected_ms: f32,
    /// Tokens of the prompt that it holds.
    pub cached: u32,
    /// It can be sent the request now.
    pub open: bool,
}

/// Why a worker was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It holds the beginning of the prompt, and is expected to be the fastest.
    Prefix,
    /// Another one holds more of the prompt, but waiting for it costs more than reading the prompt here.
    Spilled,
    /// Nobody holds any of the prompt: all gateways choose the same worker for its beginning, or for its session.
    Agreed,
    /// It is expected to be the fastest, and no prefix matters.
    Fastest,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Prefix, Self::Spilled, Self::Agreed, Self::Fastest];

    /// Its name in logs, metrics and headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Spilled => "spilled",
            Self::Agreed => "agreed",
            Self::Fastest => "fastest",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// The chosen worker.
    pub id: u32,
    /// Why.
    pub reason: Reason,
    /// Expected milliseconds to the first token.
    pub expected_ms: f32,
    /// Tokens of the prompt that it holds.
    pub cached: u32,
    /// A worker that cannot be sent the request now, but is expected to be faster all the same: it has only to become
    /// free.
    pub better_to_wait_for: Option<u32>,
}

/// Chooses among candidates. Kept between requests, to need no memory of its own.
#[derive(Debug, Default)]
pub struct Pick {
    open: Vec<Candidate>,
    /// The most of the prompt that anyone holds.
    most_cached: u32,
    /// The best of those that cannot be sent the request.
    closed: Option<Candidate>,
}

impl Pick {
    /// Forgets the candidates.
    pub fn clear(&mut self) {
        self.open.clear();
        self.most_cached = 0;
        self.closed = None;
    }

    /// Adds a candidate.
    pub fn offer(&mut self, candidate: Candidate) {
        self.most_cached = self.most_cached.max(candidate.cached);
        if candidate.open {
            self.open.push(candidate);
        } else if self.closed.is_none_or(|best| candidate.expected_ms < best.expected_ms) {
            self.closed = Some(candidate);
        }
    }

    /// The best candidate; `None` if no one is open. Among those that are nearly as fast as the fastest, a session
    /// (`session`) stays with the worker that its hash leads to; a prompt that nobody holds goes where the hash of its
    /// beginning leads to (`beginning`); otherwise chance decides, so that gateways with the same knowledge do not all
    /// choose the same worker.
    pub fn decide(&self, session: Option<u64>, beginning: Option<u64>, random: &mut fastrand::Rng) -> Option<Decision> {
        let fastest = self.open.iter().map(|one| one.expected_ms).min_by(f32::total_cmp)?;
        let bound = fastest + (fastest * SLACK).max(SLACK_MS);
        let near = || self.open.iter().filter(|one| one.expected_ms <= bound);
        let key = session.or_else(|| beginning.filter(|_| self.most_cached == 0));
        let best = match key {
            Some(key) => near().max_by_key(|one| mix(key ^ one.name))?,
            None => near().nth(random.usize(..near().count()))?,
        };
        let reason = if self.most_cached.saturating_sub(best.cached) >= SPILLED_TOKENS {
            Reason::Spilled
        } else if best.cached > 0 {
            Reason::Prefix
        } else if key.is_some() {
            Reason::Agreed
        } else {
            Reason::Fastest
        };
        Some(Decision {
            id: best.id,
            reason,
            expected_ms: best.expected_ms,
            cached: best.cached,
            better_to_wait_for: self
                .closed
                .filter(|closed| closed.expected_ms < fastest)
                .map(|closed| closed.id),
        })
    }
}

/// Spreads a number over all its bits.
fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    number = (number ^ number >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number ^ number >> 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(id: u32, expected_ms: f32, cached: u32) -> Candidate {
        let name = mix(u64::from(id) + 77);
        Candidate {
            id,
            name,
            expected_ms,
            cached,
            open: true,
        }
    }

    fn decide(candidates: &[Candidate], session: Option<u64>, beginning: Option<u64>, seed: u64) -> Option<Decision> {
        let mut pick = Pick::default();
        candidates.iter().for_each(|candidate| pick.offer(*candidate));
        pick.decide(session, beginning, &mut fastrand::Rng::with_seed(seed))
    }

    #[test]
    fn the_fastest_wins_and_the_reason_is_told() {
        let reason = |candidates: &[Candidate]| decide(candidates, None, Some(1), 1).map(|it| (it.id, it.reason));
        assert_eq!(reason(&[]), None);
        assert_eq!(
            reason(&[one(1, 10.0, 4000), one(2, 500.0, 0)]),
            Some((1, Reason::Prefix))
        );
        assert_eq!(
            reason(&[one(1, 900.0, 4000), one(2, 500.0, 0)]),
            Some((2, Reason::Spilled))
        );
        assert_eq!(reason(&[one(1, 900.0, 0), one(2, 500.0, 0)]), Some((2, Reason::Agreed)));
        assert_eq!(
            reason(&[one(1, 900.0, 60), one(2, 500.0, 0)]),
            Some((2, Reason::Fastest))
        );
        let closed = Candidate {
            open: false,
            ..one(3, 20.0, 4000)
        };
        let chosen = decide(&[closed, one(2, 500.0, 0)], None, None, 1);
        assert_eq!(
            chosen.map(|it| (it.id, it.reason, it.better_to_wait_for)),
            Some((2, Reason::Spilled, Some(3)))
        );
        assert_eq!(decide(&[closed], None, None, 1), None);
    }

    #[test]
    fn equals_share_the_requests_and_gateways_agree_on_a_beginning() {
        let all: Vec<Candidate> = (0..8).map(|id| one(id, 100.0, 0)).collect();
        let mut counts = [0; 8];
        for seed in 0..8000 {
            if let Some(place) = decide(&all, None, None, seed).and_then(|it| counts.get_mut(it.id as usize)) {
                *place += 1;
            }
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        let agreed = |key| {
            (0..20)
                .map(|seed| decide(&all, None, Some(key), seed).map(|it| it.id))
                .collect::<Vec<_>>()
        };
        for key in 0..50 {
            let chosen = agreed(key);
            assert!(chosen.iter().all(|id| *id == chosen[0]));
        }
    }

    #[test]
    fn a_session_never_beats_load_and_a_common_prefix_leads_nobody_to_one_place() {
        let mut all: Vec<Candidate> = (0..8).map(|id| one(id, 100.0, 1000)).collect();
        let home = decide(&all, Some(5), None, 1).map(|it| it.id);
        assert_eq!(home, decide(&all, Some(5), Some(9), 2).map(|it| it.id));
        for candidate in &mut all {
            if Some(candidate.id) == home {
                candidate.expected_ms = 110.0;
            }
        }
        assert_ne!(home, decide(&all, Some(5), None, 1).map(|it| it.id));
        let spread: std::collections::HashSet<_> = (0..100)
            .filter_map(|seed| decide(&all, None, Some(9), seed))
            .map(|it| it.id)
            .collect();
        assert_eq!(spread.len(), 7);
    }

    proptest! {
        #[test]
        fn nobody_much_slower_than_the_fastest_is_chosen(
            times in proptest::collection::vec((0.0..1e6_f32, 0..9000_u32), 1..50), seed in any::<u64>(), key in any::<Option<u64>>()
        ) {
            let all: Vec<Candidate> = (0..).zip(&times).map(|(id, (ms, cached))| one(id, *ms, *cached)).collect();
            let fastest = times.iter().map(|(ms, _)| *ms).fold(f32::MAX, f32::min);
            let chosen = decide(&all, key, None, seed).map_or(f32::MAX, |it| it.expected_ms);
            prop_assert!(chosen <= fastest + (fastest * SLACK).max(SLACK_MS));
        }
    }
}
