//! Whose turn it is to have a free slot, while several gateways wait for one.
//!
//! Each free slot is offered to the next gateway of the round, and kept for it for a moment. So a gateway gets slots as
//! often as any other, however many requests it has and however fast it is. One that declines an offer, or lets it pass,
//! leaves the round until it says again that requests wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A slot that is kept for a gateway.
#[derive(Debug)]
struct Kept<G> {
    gateway: G,
    until: Instant,
}

/// The round of the waiting gateways, and the slots that are kept for them. `G` names a gateway.
#[derive(Debug)]
pub struct Turns<G> {
    /// Each gateway once, the next one first.
    round: VecDeque<G>,
    /// The oldest offer first.
    kept: VecDeque<Kept<G>>,
    /// Gateways in the round at most.
    bound: usize,
    /// How long an offer holds.
    patience: Duration,
}

impl<G: Clone + PartialEq> Turns<G> {
    /// A round of at most `bound` gateways, whose offers hold for `patience`.
    pub fn new(bound: usize, patience: Duration) -> Self {
        Self {
            round: VecDeque::new(),
            kept: VecDeque::new(),
            bound,
            patience,
        }
    }

    /// Requests wait at `gateway`.
    pub fn waits(&mut self, gateway: &G) {
        if self.round.len() < self.bound && !self.round.contains(gateway) {
            self.round.push_back(gateway.clone());
        }
    }

    /// Offers slots of which `free` are free, offered ones among them, and returns for whom they are, one name for each.
    pub fn offer(&mut self, free: u32, now: Instant) -> Vec<G> {
        let mut offered = Vec::new();
        while self.kept() < free
            && let Some(gateway) = self.round.pop_front()
        {
            self.round.push_back(gateway.clone());
            self.kept.push_back(Kept {
                gateway: gateway.clone(),
                until: now + self.patience,
            });
            offered.push(gateway);
        }
        offered
    }

    /// A request of `gateway` takes a slot that was kept for it, or needs none. False if none was.
    pub fn redeem(&mut self, gateway: &G) -> bool {
        let index = self.kept.iter().position(|kept| kept.gateway == *gateway);
        index.is_some_and(|index| self.kept.remove(index).is_some())
    }

    /// `gateway` has no request for `slots` of the slots that it was offered.
    pub fn decline(&mut self, gateway: &G, slots: u32) {
        for _ in 0..slots {
            if !self.redeem(gateway) {
                break;
            }
        }
        self.round.retain(|waiting| waiting != gateway);
    }

    /// `gateway` is gone.
    pub fn forget(&mut self, gateway: &G) {
        self.kept.retain(|kept| kept.gateway != *gateway);
        self.round.retain(|waiting| waiting != gateway);
    }

    /// Ends the offers that nobody took in time, and returns their gateways, which leave the round.
    pub fn lapse(&mut self, now: Instant) -> Vec<G> {
        let mut lapsed = Vec::new();
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.until <= now) {
            self.round.retain(|waiting| *waiting != kept.gateway);
            lapsed.push(kept.gateway);
        }
        lapsed
    }

    /// Nobody gets a slot any more.
    pub fn clear(&mut self) {
        self.round.clear();
        self.kept.clear();
    }

    /// Slots that are kept.
    pub fn kept(&self) -> u32 {
        u32::try_from(self.kept.len()).unwrap_or(u32::MAX)
    }

    /// Slots that are kept for `gateway`.
    pub fn kept_for(&self, gateway: &G) -> u32 {
        let kept = self.kept.iter().filter(|kept| kept.gateway == *gateway).count();
        u32::try_from(kept).unwrap_or(u32::MAX)
    }

    /// Whether free slots go by turns: somebody waits.
    pub fn is_on(&self) -> bool {
        !self.round.is_empty() || !self.kept.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn gateways(count: usize) -> Vec<usize> {
        (0..count).collect()
    }

    fn round(count: usize) -> (Turns<usize>, Vec<usize>) {
        let (mut turns, gateways) = (Turns::new(8, PATIENCE), gateways(count));
        for gateway in &gateways {
            turns.waits(gateway);
            turns.waits(gateway);
        }
        (turns, gateways)
    }

    #[test]
    fn each_gateway_has_its_turn_however_often_it_asks() {
        let (mut turns, g) = round(3);
        let now = Instant::now();
        let mut had = Vec::new();
        for _ in 0..6 {
            turns.waits(&g[0]);
            let offered = turns.offer(1, now);
            assert_eq!(turns.offer(1, now), [], "one slot, one offer");
            assert!(turns.redeem(&offered[0]));
            had.extend(offered);
        }
        assert_eq!(had, [&g[..], &g[..]].concat());
    }

    #[test]
    fn who_declines_or_lets_an_offer_pass_leaves_the_round() {
        let (mut turns, g) = round(3);
        let now = Instant::now();
        assert_eq!(turns.offer(4, now), [g[0], g[1], g[2], g[0]]);
        turns.decline(&g[0], 1);
        assert_eq!((turns.kept_for(&g[0]), turns.kept()), (1, 3), "it takes the other one");
        assert!(turns.redeem(&g[0]) && turns.redeem(&g[1]));
        assert_eq!(turns.lapse(now + PATIENCE / 2), []);
        assert_eq!(turns.lapse(now + PATIENCE), [g[2]]);
        assert_eq!(turns.offer(1, now), [g[1]], "the only one left");
        turns.forget(&g[1]);
        assert!(!turns.is_on());
    }

    #[test]
    fn invented_gateways_are_bounded() {
        let (turns, _) = round(100);
        assert_eq!(turns.round.len(), 8);
    }
}
