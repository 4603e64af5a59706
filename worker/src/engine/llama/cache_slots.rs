//! Which of llama.cpp's slots a prompt goes to, so that conversations do not push each other out of the cache. Pure.
//!
//! Each slot holds the one prompt that it read last. Left to itself, the server takes the slot that holds most of a new
//! prompt. Conversations with one system prompt then all go through one slot: each loses what followed its system
//! prompt, while other slots are empty. And the server looks into its host cache only where it gives up more than half of
//! a slot. So here the server is told not to look for alike slots, and is given the slot wherever one is right:
//!
//! - A prompt that continues what a slot holds goes there.
//! - One that shares only its beginning goes there if the rest has a copy in the host cache, or is little. Otherwise two
//!   conversations that take turns would push each other out each time; to read the beginning once more, in another slot,
//!   is done once.
//! - Any other goes to no slot in particular. The server then takes the least recently used one, saves what that holds
//!   in the host cache, and loads from there what fits the prompt best.
//!
//! What the host cache holds is followed by the server's own rules: at each start of a request it saves a copy of every
//! idle slot, and what it loads is no longer there.

use std::cmp::Reverse;
use std::collections::VecDeque;

use tokenbus_placement::Cut;
use uuid::Uuid;

use super::limits::SAVED_PROMPTS;

/// A part of a saved prompt below which the server does not load it for a prompt that shares this part.
const LEAST_KEPT: f64 = 0.25;

/// The part of what a prompt finds in a slot that may be lost for it.
const LITTLE: u32 = 8;

/// What the slots and the host cache hold.
#[derive(Debug)]
pub(super) struct CacheSlots {
    slots: Vec<Slot>,
    /// Prompts in the host cache, the oldest first.
    saved: VecDeque<Vec<Cut>>,
    /// Whether there is a host cache.
    has_host: bool,
    /// Requests that have ended.
    ended: u64,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    held: Vec<Cut>,
    /// Which request it runs.
    job: Option<Uuid>,
    /// The number of the request that ended in it last; 0 for none.
    used: u64,
    /// The host cache has a copy of what it holds.
    is_saved: bool,
}

impl CacheSlots {
    /// All slots are empty.
    pub(super) fn new(slots: u32, has_host: bool) -> Self {
        Self {
            slots: vec![Slot::default(); slots as usize],
            saved: VecDeque::new(),
            has_host,
            ended: 0,
        }
    }

    /// A request with this prompt begins. The slot that it is to have; `None`, if the server shall choose.
    pub(super) fn begin(&mut self, id: Uuid, cuts: &[Cut]) -> Option<u32> {
        let chosen = self.chosen(cuts);
        let place = match chosen {
            Some(place) => place,
            None => self.exchange(cuts)?,
        };
        let slot = self.slots.get_mut(place)?;
        slot.held = cuts.to_vec();
        slot.job = Some(id);
        slot.is_saved = false;
        self.save_idle();
        chosen.and_then(|place| u32::try_from(place).ok())
    }

    /// A request that takes slots which nobody can know. What was idle may hold something else now.
    pub(super) fn scatter(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.job.is_none()) {
            slot.held.clear();
        }
    }

    /// The request has ended, and its slot is idle.
    pub(super) fn end(&mut self, id: Uuid) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.job == Some(id)) {
            self.ended += 1;
            slot.job = None;
            slot.used = self.ended;
        }
    }

    /// The idle slot that is right for the prompt.
    fn chosen(&self, cuts: &[Cut]) -> Option<usize> {
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| slot.job.is_none());
        // Of those that share as much, one that loses nothing, and the one that is longest out of use.
        let best = idle.max_by_key(|(_, slot)| (shared(&slot.held, cuts), slot.is_saved, Reverse(slot.used)));
        let (place, slot) = best?;
        let gain = shared(&slot.held, cuts);
        let is_one_empty = self.slots.iter().any(|slot| slot.job.is_none() && slot.held.is_empty());
        let in_host = self.saved.iter().map(|saved| shared(saved, cuts)).max().unwrap_or(0);
        let loss = if slot.is_saved {
            0
        } else {
            tokens(&slot.held).saturating_sub(gain)
        };
        let most_loss = match (is_one_empty, self.has_host) {
            (true, _) => 0,
            (false, true) => gain / LITTLE,
            (false, false) => gain,
        };
        (gain > 0 && in_host <= gain && loss <= most_loss).then_some(place)
    }

    /// The server's own choice: what it saves and loads. The slot.
    fn exchange(&mut self, cuts: &[Cut]) -> Option<usize> {
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| slot.job.is_none());
        // The last one of those that were never used.
        let (place, slot) = idle.min_by_key(|(place, slot)| (slot.used, Reverse(*place)))?;
        let (held, is_saved) = (slot.held.clone(), slot.is_saved);
        let mut most = shared(&held, cuts);
        let mut keep = part(&held, most);
        if !is_saved {
            self.save(held);
        }
        let mut best = None;
        for (number, saved) in self.saved.iter().enumerate() {
            let gain = shared(saved, cuts);
            let kept = part(saved, gain);
            if kept >= LEAST_KEPT && kept > keep && gain > most {
                (keep, most, best) = (kept, gain, Some(number));
            }
        }
        if let Some(number) = best {
            self.saved.remove(number);
        }
        Some(place)
    }

    /// At the start of a request every idle slot is saved.
    fn save_idle(&mut self) {
        if !self.has_host {
            return;
        }
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else {
                continue;
            };
            if slot.job.is_none() && !slot.is_saved && !slot.held.is_empty() {
                slot.is_saved = true;
                let held = slot.held.clone();
                self.save(held);
            }
        }
    }

    fn save(&mut self, held: Vec<Cut>) {
        let whole = tokens(&held);
        if !self.has_host || whole == 0 || self.saved.iter().any(|saved| shared(saved, &held) == whole) {
            return;
        }
        // An earlier turn of the same conversation is contained in it.
        self.saved.retain(|saved| shared(saved, &held) < tokens(saved));
        if self.saved.len() >= SAVED_PROMPTS {
            self.saved.pop_front();
        }
        self.saved.push_back(held);
    }
}

/// Tokens of the longest beginning that both have.
fn shared(held: &[Cut], cuts: &[Cut]) -> u32 {
    // The first cut is always at the same place.
    if held.first().map(|cut| cut.hash) != cuts.first().map(|cut| cut.hash) {
        return 0;
    }
    let is_held = |cut: &&Cut| held.iter().any(|other| other.hash == cut.hash);
    cuts.iter().rev().find(is_held).map_or(0, |cut| cut.tokens)
}

fn tokens(held: &[Cut]) -> u32 {
    held.last().map_or(0, |cut| cut.tokens)
}

/// The part of what is held that a prompt would keep which shares so many tokens.
fn part(held: &[Cut], shared: u32) -> f64 {
    f64::from(shared) / f64::from(tokens(held).max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// A prompt of messages: each has its number and its tokens.
    fn prompt(messages: &[(u64, u32)]) -> Vec<Cut> {
        let (mut hash, mut tokens) = (0_u64, 0);
        let cut = |(number, more): &(u64, u32)| {
            hash = hash.wrapping_mul(1_000_003).wrapping_add(*number);
            tokens += more;
            Cut {
                hash,
                bytes: tokens * 4,
                tokens,
            }
        };
        messages.iter().map(cut).collect()
    }

    fn run(slots: &mut CacheSlots, messages: &[(u64, u32)]) -> Option<u32> {
        let id = Uuid::now_v7();
        let slot = slots.begin(id, &prompt(messages));
        slots.end(id);
        slot
    }

    const SYSTEM: (u64, u32) = (1, 1000);

    #[test]
    fn a_conversation_goes_on_where_it_was() {
        let mut slots = CacheSlots::new(3, true);
        assert_eq!(
            run(&mut slots, &[SYSTEM, (10, 50)]),
            None,
            "the server takes the last one"
        );
        assert_eq!(run(&mut slots, &[SYSTEM, (10, 50), (11, 50)]), Some(2));
        assert_eq!(
            run(&mut slots, &[(2, 900), (20, 50)]),
            None,
            "another system prompt: slot 1"
        );
        assert_eq!(run(&mut slots, &[(2, 900), (20, 50), (21, 9)]), Some(1));
        assert_eq!(run(&mut slots, &[SYSTEM, (10, 50), (11, 50), (12, 50)]), Some(2));
    }

    #[test]
    fn a_system_prompt_is_shared_without_loss() {
        let mut slots = CacheSlots::new(2, true);
        run(&mut slots, &[SYSTEM, (10, 50), (11, 250)]);
        run(&mut slots, &[(2, 900), (20, 50)]);
        // Slot 1 has a copy in the host cache by now.
        assert_eq!(run(&mut slots, &[SYSTEM, (30, 50)]), Some(1));
        // It comes back from there, into the slot that was used longest ago.
        assert_eq!(run(&mut slots, &[SYSTEM, (10, 50), (11, 250), (12, 50)]), None);
        assert_eq!(slots.slots[0].held, prompt(&[SYSTEM, (10, 50), (11, 250), (12, 50)]));
        assert_eq!(run(&mut slots, &[SYSTEM, (30, 50), (31, 50)]), Some(1));
        assert_eq!(
            run(&mut slots, &[SYSTEM, (10, 50), (11, 250), (12, 50), (13, 50)]),
            Some(0)
        );
    }

    #[test]
    fn what_has_no_copy_is_given_up_only_for_much_more() {
        for (tail, has_host, slot) in [
            (90, true, None),
            (10, true, Some(1)),
            (90, false, Some(1)),
            (110, false, None),
        ] {
            let mut slots = CacheSlots::new(2, has_host);
            slots.begin(Uuid::now_v7(), &prompt(&[(4, 10)]));
            slots.end(slots.slots[1].job.unwrap());
            slots.begin(Uuid::now_v7(), &prompt(&[(5, 10)]));
            run(&mut slots, &[(3, 100), (40, tail)]);
            assert_eq!(run(&mut slots, &[(3, 100), (41, 10)]), slot, "{tail}");
        }
    }

    #[test]
    fn two_conversations_with_one_system_prompt_have_a_slot_each() {
        let mut slots = CacheSlots::new(2, true);
        let places = |slots: &mut CacheSlots| {
            let mut say = |user, turns: u64| {
                let turns = (0..turns).map(|turn| (user + turn, 50));
                run(slots, &[SYSTEM].into_iter().chain(turns).collect::<Vec<_>>())
            };
            (1..5).map(|turns| [say(10, turns), say(20, turns)]).collect::<Vec<_>>()
        };
        assert_eq!(
            places(&mut slots),
            [[None, None], [Some(1), Some(0)], [Some(1), Some(0)], [Some(1), Some(0)]]
        );
    }

    #[test]
    fn without_a_host_cache_nothing_has_a_copy() {
        let mut slots = CacheSlots::new(2, false);
        run(&mut slots, &[SYSTEM, (10, 50), (11, 1250)]);
        run(&mut slots, &[(2, 900), (20, 50)]);
        assert_eq!(run(&mut slots, &[SYSTEM, (30, 50)]), None);
        assert!(slots.saved.is_empty());
    }

    #[test]
    fn a_slot_at_work_is_not_given_away() {
        let mut slots = CacheSlots::new(2, true);
        let (one, other, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        slots.begin(one, &prompt(&[SYSTEM, (10, 50)]));
        assert_eq!(slots.begin(other, &prompt(&[SYSTEM, (10, 50), (11, 50)])), None);
        assert_eq!(slots.slots[0].job, Some(other));
        assert_eq!(slots.begin(third, &prompt(&[SYSTEM, (10, 50)])), None, "there is none");
        slots.end(other);
        slots.end(third);
        assert_eq!(
            slots.begin(third, &prompt(&[SYSTEM, (10, 50), (11, 50), (12, 5)])),
            Some(0)
        );
    }

    #[test]
    fn scattered_requests_make_idle_slots_unknown() {
        let mut slots = CacheSlots::new(2, true);
        run(&mut slots, &[SYSTEM, (10, 50)]);
        slots.scatter();
        assert_eq!(run(&mut slots, &[SYSTEM, (10, 50), (11, 50)]), None);
    }

    #[test]
    fn the_memory_of_saved_prompts_is_bounded() {
        let mut slots = CacheSlots::new(1, true);
        for number in 0..1000 {
            run(&mut slots, &[(number, 100)]);
        }
        assert_eq!(slots.saved.len(), SAVED_PROMPTS);
    }
}
