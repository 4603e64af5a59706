//! Which of a model's workers gets a request, and why.

use std::fmt;

use crate::limits::{
    COMMON_PART, DRAWN, IDLE_PART, MUCH_SLOWER, MUCH_SLOWER_MS, SLACK, SLACK_MS, SPILLED_TOKENS, SPREAD_ONE_IN,
};

/// A worker that may get the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// What the caller calls it.
    pub id: u32,
    /// A hash of its name, the same at every gateway.
    pub name: u64,
    /// Expected milliseconds to the first token.
    pub expected_ms: f32,
    /// That time and what it costs others, in milliseconds: by this, candidates are compared.
    pub cost: f32,
    /// Tokens of the prompt that it holds.
    pub cached: u32,
    /// The part of its slots that is taken.
    pub busy: f32,
    /// Whether it can be sent the request now.
    pub room: Room,
}

/// Whether a worker can be sent a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Room {
    /// Now.
    Free,
    /// When one of its requests ends: expected in so many milliseconds, which its cost contains.
    In(f32),
    /// Nobody can tell when.
    None,
}

/// Why a worker was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It holds the beginning of the prompt, and is expected to be the fastest.
    Prefix,
    /// Another one holds more of the prompt, but waiting for it costs more than reading the prompt here.
    Spilled,
    /// Many hold the beginning of the prompt; this one has little to do, and is to hold it too.
    Spread,
    /// Nobody holds any of the prompt: all gateways choose the same worker for its beginning, or for its session.
    Agreed,
    /// It is expected to be the fastest, and no prefix matters.
    Fastest,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Prefix, Self::Spilled, Self::Spread, Self::Agreed, Self::Fastest];

    /// Its name in logs, metrics and headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Spilled => "spilled",
            Self::Spread => "spread",
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
}

/// A worker that is full, and sooner all the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hold {
    /// The worker.
    pub id: u32,
    /// Milliseconds after which it would have been better to go elsewhere.
    pub bound_ms: f32,
}

/// What is best for a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// To send it now.
    Send(Decision),
    /// To let it wait for this worker, although others could take it.
    Wait(Hold),
    /// No candidate can take it now.
    Nobody,
}

/// Chooses among candidates. Kept between requests, to need no memory of its own.
#[derive(Debug, Default)]
pub struct Pick {
    open: Vec<Candidate>,
    /// Places of those that hold most of it.
    holders: Vec<usize>,
    /// The most of the prompt that anyone holds.
    most_cached: u32,
    /// The best of those that are full, and the wait for it.
    full: Option<(Candidate, f32)>,
}

impl Pick {
    /// Forgets the candidates.
    pub fn clear(&mut self) {
        self.open.clear();
        self.most_cached = 0;
        self.full = None;
    }

    /// Adds a candidate.
    pub fn offer(&mut self, candidate: Candidate) {
        self.most_cached = self.most_cached.max(candidate.cached);
        match candidate.room {
            Room::Free => self.open.push(candidate),
            Room::In(wait) if self.full.is_none_or(|(best, _)| candidate.cost < best.cost) => {
                self.full = Some((candidate, wait));
            }
            Room::In(_) | Room::None => {}
        }
    }

    /// The best candidate.
    ///
    /// It is the best of eight that hold most of the prompt, or of eight of all, whichever costs less; or the fastest of
    /// all if both are much slower. Chance draws the eight, because gateways with the same knowledge must not all choose
    /// the same worker. A session (`session`) draws two by its hash, and so does the beginning of a prompt that nobody
    /// holds (`beginning`): then all gateways draw the same two, and prefer the first.
    ///
    /// One request in sixteen of a prompt that many hold goes to a worker with little to do that does not hold it yet.
    ///
    /// A full worker that holds more of the prompt than the chosen one is waited for if that costs clearly less.
    pub fn decide(&mut self, session: Option<u64>, beginning: Option<u64>, random: &mut fastrand::Rng) -> Verdict {
        let Some(best) = self.best(session, beginning, random) else {
            return Verdict::Nobody;
        };
        if let Some(idle) = self.idle(random) {
            return Verdict::Send(idle.chosen(Reason::Spread));
        }
        if let Some((full, wait)) = self.full
            && full.cached >= best.cached + SPILLED_TOKENS
            && full.cost * MUCH_SLOWER + SLACK_MS < best.cost
        {
            let bound_ms = best.cost - (full.cost - wait);
            return Verdict::Wait(Hold { id: full.id, bound_ms });
        }
        let agreed = session.is_some() || self.most_cached == 0 && beginning.is_some();
        let reason = if self.most_cached.saturating_sub(best.cached) >= SPILLED_TOKENS {
            Reason::Spilled
        } else if best.cached > 0 {
            Reason::Prefix
        } else if agreed {
            Reason::Agreed
        } else {
            Reason::Fastest
        };
        Verdict::Send(best.chosen(reason))
    }

    /// The best of those that can be sent the request now.
    fn best(&mut self, session: Option<u64>, beginning: Option<u64>, random: &mut fastrand::Rng) -> Option<Candidate> {
        let fastest = *self.open.iter().min_by(|one, other| one.cost.total_cmp(&other.cost))?;
        let most = self.open.iter().map(|one| one.cached).max().unwrap_or(0);
        let least = (most - most / 8).max(1);
        self.holders.clear();
        let holders = self.open.iter().enumerate().filter(|(_, one)| one.cached >= least);
        self.holders.extend(holders.map(|(place, _)| place));
        let key = session.or(beginning.filter(|_| self.most_cached == 0));
        let any = match key {
            Some(key) => first_of_two(&self.open, 0, key),
            None => best_of_some(self.open.len(), |place| self.open.get(place), random),
        }?;
        let holder = match session {
            Some(session) => first_of_two(&self.open, least, session),
            None => best_of_some(
                self.holders.len(),
                |place| self.open.get(*self.holders.get(place)?),
                random,
            ),
        };
        let best = holder.filter(|holder| holder.cost <= any.cost).unwrap_or(any);
        let much_slower = best.cost > fastest.cost * MUCH_SLOWER + MUCH_SLOWER_MS;
        Some(if much_slower { fastest } else { best })
    }

    /// Now and then, where many hold the prompt: one that does not, and has much less to do than they.
    #[allow(clippy::cast_precision_loss, reason = "workers are few")]
    fn idle(&self, random: &mut fastrand::Rng) -> Option<Candidate> {
        // Of three workers one is more than a quarter, but a conversation is always at one.
        let common = self.holders.len() > 1 && self.holders.len() * COMMON_PART as usize > self.open.len();
        if !common || self.holders.len() == self.open.len() || random.u32(..SPREAD_ONE_IN) > 0 {
            return None;
        }
        let load = self.holders.iter().filter_map(|place| self.open.get(*place));
        let load = load.map(|one| one.busy).sum::<f32>() / self.holders.len() as f32;
        let mut next = self.holders.iter().copied().peekable();
        let others = self.open.iter().enumerate();
        let others = others.filter(|(place, _)| next.next_if_eq(place).is_none());
        let (_, idle) = others.min_by(|(_, one), (_, other)| one.busy.total_cmp(&other.busy))?;
        (idle.busy < load * IDLE_PART).then_some(*idle)
    }
}

impl Candidate {
    fn chosen(self, reason: Reason) -> Decision {
        Decision {
            id: self.id,
            reason,
            expected_ms: self.expected_ms,
            cached: self.cached,
        }
    }
}

/// The one that costs least of [`DRAWN`] that chance draws, or of all if they are so few.
fn best_of_some<'c>(
    count: usize,
    at: impl Fn(usize) -> Option<&'c Candidate>,
    random: &mut fastrand::Rng,
) -> Option<Candidate> {
    // From a random place on: equals share the requests.
    let first = if count > 0 { random.usize(..count) } else { 0 };
    let drawn = (0..count.min(DRAWN)).map(|n| {
        if count > DRAWN {
            random.usize(..count)
        } else {
            (first + n) % count
        }
    });
    drawn
        .filter_map(at)
        .min_by(|one, other| one.cost.total_cmp(&other.cost))
        .copied()
}

/// Of those that hold at least `least` tokens, the first two by `key`: the first, unless it is slower by more than what
/// nobody can know.
fn first_of_two(all: &[Candidate], least: u32, key: u64) -> Option<Candidate> {
    let mut drawn: [Option<(u64, Candidate)>; 2] = [None, None];
    for one in all.iter().filter(|one| one.cached >= least) {
        let rank = mix(key ^ one.name);
        let above = |place: Option<(u64, Candidate)>| place.is_none_or(|(best, _)| rank > best);
        if above(drawn[0]) {
            drawn = [Some((rank, *one)), drawn[0]];
        } else if above(drawn[1]) {
            drawn[1] = Some((rank, *one));
        }
    }
    let [(_, first), (_, second)] = match drawn {
        [Some(first), Some(second)] => [first, second],
        [first, _] => return first.map(|(_, one)| one),
    };
    let slack = (second.cost * SLACK).max(SLACK_MS);
    Some(if first.cost <= second.cost + slack {
        first
    } else {
        second
    })
}

/// Spreads a number over all its bits.
fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    number = (number ^ number >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number ^ number >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn one(id: u32, expected_ms: f32, cached: u32) -> Candidate {
        let name = mix(u64::from(id) + 77);
        Candidate {
            id,
            name,
            expected_ms,
            cost: expected_ms,
            cached,
            busy: 0.0,
            room: Room::Free,
        }
    }

    fn verdict(candidates: &[Candidate], session: Option<u64>, beginning: Option<u64>, seed: u64) -> Verdict {
        let mut pick = Pick::default();
        candidates.iter().for_each(|candidate| pick.offer(*candidate));
        pick.decide(session, beginning, &mut fastrand::Rng::with_seed(seed))
    }

    fn decide(candidates: &[Candidate], session: Option<u64>, beginning: Option<u64>, seed: u64) -> Option<Decision> {
        match verdict(candidates, session, beginning, seed) {
            Verdict::Send(decision) => Some(decision),
            Verdict::Wait(_) | Verdict::Nobody => None,
        }
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
    }

    #[test]
    fn a_full_holder_is_waited_for_where_that_is_sooner_and_for_no_longer() {
        let full = |wait: f32, cost: f32, cached| Candidate {
            room: Room::In(wait),
            ..one(3, cost, cached)
        };
        let other = one(2, 500.0, 0);
        // 100 ms for the slot and 20 for the rest: it was worth it for 480.
        assert_eq!(
            verdict(&[full(100.0, 120.0, 4000), other], None, None, 1),
            Verdict::Wait(Hold { id: 3, bound_ms: 480.0 })
        );
        let spilled = |candidates: &[Candidate]| decide(candidates, None, None, 1).map(|it| (it.id, it.reason));
        assert_eq!(
            spilled(&[full(450.0, 470.0, 4000), other]),
            Some((2, Reason::Spilled)),
            "it gains hardly anything"
        );
        assert_eq!(
            spilled(&[full(100.0, 120.0, 60), other]),
            Some((2, Reason::Fastest)),
            "it holds nothing that counts: it is only faster, and others get its slot too"
        );
        let shut = Candidate {
            room: Room::None,
            ..one(3, 20.0, 4000)
        };
        assert_eq!(
            spilled(&[shut, other]),
            Some((2, Reason::Spilled)),
            "nobody knows for how long"
        );
        for nobody in [&[shut][..], &[full(100.0, 120.0, 4000)], &[]] {
            assert_eq!(verdict(nobody, None, None, 1), Verdict::Nobody);
        }
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
        let mut homes = HashSet::new();
        for key in 0..50 {
            let agreed: HashSet<_> = (0..20)
                .filter_map(|seed| decide(&all, None, Some(key), seed))
                .map(|it| it.id)
                .collect();
            assert_eq!(agreed.len(), 1);
            homes.extend(agreed);
        }
        assert_eq!(homes.len(), 8);
    }

    #[test]
    fn of_unequal_ones_most_get_something_and_the_slowest_nothing() {
        let all: Vec<Candidate> = (0_u8..10).map(|id| one(id.into(), f32::from(id) * 8.0, 0)).collect();
        let chosen: HashSet<_> = (0..1000)
            .filter_map(|seed| decide(&all, None, None, seed))
            .map(|it| it.id)
            .collect();
        assert!(chosen.len() >= 5 && !chosen.contains(&9), "{chosen:?}");
    }

    #[test]
    fn a_session_never_beats_load_and_a_common_prefix_leads_nobody_to_one_place() {
        let mut all: Vec<Candidate> = (0..8).map(|id| one(id, 100.0, 1000)).collect();
        let home = decide(&all, Some(5), None, 1).map(|it| it.id);
        assert_eq!(home, decide(&all, Some(5), Some(9), 2).map(|it| it.id));
        for candidate in &mut all {
            if Some(candidate.id) == home {
                candidate.cost = 120.0;
            }
        }
        assert_ne!(home, decide(&all, Some(5), None, 1).map(|it| it.id));
        let spread: HashSet<_> = (0..200)
            .filter_map(|seed| decide(&all, None, Some(9), seed))
            .map(|it| it.id)
            .collect();
        assert_eq!(spread.len(), 7);
    }

    #[test]
    fn what_many_hold_spreads_and_what_one_holds_stays_there() {
        let reasons = |holders: u32, workers: u32| -> HashSet<Reason> {
            let all: Vec<Candidate> = (0..workers)
                .map(|id| {
                    let holds = id < holders;
                    Candidate {
                        busy: if holds { 0.5 } else { 0.0 },
                        ..one(id, if holds { 100.0 } else { 900.0 }, if holds { 1000 } else { 0 })
                    }
                })
                .collect();
            let seeds = 0..500;
            seeds
                .filter_map(|seed| decide(&all, None, None, seed))
                .map(|it| it.reason)
                .collect()
        };
        assert_eq!(
            reasons(1, 3),
            [Reason::Prefix].into(),
            "a conversation among three workers"
        );
        assert_eq!(reasons(2, 3), [Reason::Prefix, Reason::Spread].into());
        assert_eq!(reasons(8, 16), [Reason::Prefix, Reason::Spread].into());
        assert_eq!(reasons(3, 16), [Reason::Prefix].into());
    }

    proptest! {
        #[test]
        fn nobody_much_slower_than_the_fastest_is_chosen(
            times in proptest::collection::vec((0.0..1e6_f32, 0..9000_u32), 1..50), seed in any::<u64>(), key in any::<Option<u64>>()
        ) {
            let all: Vec<Candidate> = (0..).zip(&times).map(|(id, (ms, cached))| one(id, *ms, *cached)).collect();
            let fastest = times.iter().map(|(ms, _)| *ms).fold(f32::MAX, f32::min);
            let chosen = decide(&all, key, None, seed).map_or(f32::MAX, |it| it.expected_ms);
            prop_assert!(chosen <= fastest * MUCH_SLOWER + MUCH_SLOWER_MS);
        }
    }
}
