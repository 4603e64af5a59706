//! What a worker's engine holds in its prefix cache, as far as its worker can tell: the cuts of the prompts that it read,
//! the least recently used forgotten first.
//!
//! 20 bytes a cut, and a table of 5.7 to 11.5 bytes.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::chain::{Cut, Prompt};
use crate::limits::KEPT_CHANGES;
use crate::news::{CHANGE_BYTES, Change, News, ShortCut};

/// No place: the end of the list.
const NONE: u32 = u32::MAX;

/// Most tokens between two cuts, as they are counted.
const MAX_WEIGHT: u32 = u32::MAX >> 8;

/// Part of the assumed room that is taken away when the engine had forgotten what it should hold, and a tenth of it is
/// given back when it had not.
const SHRINK: f64 = 0.1;

/// Part of the room that the engine was said to have, below which nothing is taken away.
const LEAST_ROOM: f64 = 0.01;

/// The cuts that an engine holds.
#[derive(Debug)]
pub struct Held {
    places: HashTable<u32>,
    hashes: Vec<u64>,
    /// Tokens between each cut and the one before, and its length class in the lowest byte.
    weights: Vec<u32>,
    /// Towards the more recently used.
    newer: Vec<u32>,
    /// Towards the less recently used.
    older: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// Places that are empty, linked by `older`.
    empty: u32,
    /// Tokens that the cuts stand for, each counted once.
    used: u64,
    /// Tokens that the engine can hold, as it was told.
    nominal: u64,
    /// Tokens that it seems to hold, at most `nominal`.
    room: f64,
    max_cuts: usize,
    epoch: u64,
    /// Changes of this epoch that are not in `log` any more.
    before_log: u64,
    log: VecDeque<Change>,
}

impl Held {
    /// Nothing is held yet. `room` is how many tokens the engine can hold, `max_cuts` the bound of this memory.
    pub fn new(room: u64, max_cuts: usize, epoch: u64) -> Self {
        Self {
            places: HashTable::new(),
            hashes: Vec::new(),
            weights: Vec::new(),
            newer: Vec::new(),
            older: Vec::new(),
            newest: NONE,
            oldest: NONE,
            empty: NONE,
            used: 0,
            nominal: room,
            room: as_float(room),
            max_cuts: max_cuts.min(NONE as usize),
            epoch,
            before_log: 0,
            log: VecDeque::new(),
        }
    }

    /// The engine can hold this many tokens.
    pub fn set_room(&mut self, room: u64) {
        if room != self.nominal {
            self.nominal = room;
            self.room = as_float(room);
            self.shrink();
        }
    }

    /// Tokens of the longest held prefix of `prompt`.
    pub fn holds(&self, prompt: &Prompt) -> u32 {
        let held = |cut: &&Cut| self.place(cut.hash).is_some();
        prompt.cuts().iter().rev().find(held).map_or(0, |cut| cut.tokens)
    }

    /// The engine reads `prompt`, and holds it from now on.
    pub fn read(&mut self, prompt: &Prompt) {
        // The end first, so that it is the first to be forgotten.
        for (n, cut) in prompt.cuts().iter().enumerate().rev() {
            if let Some(place) = self.place(cut.hash) {
                self.unlink(place);
                self.link(place);
            } else {
                let before = n.checked_sub(1).and_then(|n| prompt.cuts().get(n));
                self.insert(*cut, before.map_or(0, |before| before.tokens));
            }
        }
        self.shrink();
    }

    /// The engine found `found` tokens of a prompt in its cache, where this memory had expected `expected`.
    pub fn found(&mut self, expected: u32, found: u32) {
        let (expected, found) = (f64::from(expected), f64::from(found));
        if found < expected * 0.5 {
            // It has forgotten what was used within the last `used` tokens.
            let least = as_float(self.nominal) * LEAST_ROOM;
            self.room = (self.room.min(as_float(self.used)) * (1.0 - SHRINK)).max(least);
        } else if expected > 0.0 {
            self.room = (self.room * (1.0 + SHRINK / 10.0)).min(as_float(self.nominal));
        }
        self.shrink();
    }

    /// The engine was restarted, and holds nothing.
    pub fn clear(&mut self) {
        if self.is_empty() && self.log.is_empty() && self.before_log == 0 {
            return;
        }
        let next = Self::new(self.nominal, self.max_cuts, self.epoch.wrapping_add(1));
        *self = next;
    }

    /// Cuts that are held.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Tokens that the engine seems to have room for.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is never negative"
    )]
    pub fn room(&self) -> u64 {
        self.room as u64
    }

    /// Tokens that the held cuts stand for.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Bytes that this memory takes.
    pub fn bytes(&self) -> usize {
        let lists =
            self.hashes.capacity() * 8 + (self.weights.capacity() + self.newer.capacity() + self.older.capacity()) * 4;
        lists + self.places.allocation_size() + self.log.capacity() * size_of::<Change>()
    }

    /// The number of changes of this epoch.
    pub fn changes(&self) -> u64 {
        self.before_log + self.log.len() as u64
    }

    /// The changes since `from`, or `None` if some of them are not kept any more.
    pub fn news(&self, from: u64) -> Option<News> {
        let skip = usize::try_from(from.checked_sub(self.before_log)?).ok()?;
        let changes = self.log.iter().skip(skip).flat_map(|change| change.to_bytes());
        Some(News {
            epoch: self.epoch,
            from,
            full: false,
            changes: changes.collect(),
        })
    }

    /// Everything that is held, the most recently used first, at most `at_most` cuts.
    pub fn all(&self, at_most: usize) -> News {
        let mut changes = Vec::with_capacity(self.len().min(at_most) * CHANGE_BYTES);
        let mut place = self.newest;
        for _ in 0..at_most {
            let Some(cut) = self.cut(place) else { break };
            let change = Change { cut, gone: false };
            changes.extend_from_slice(&change.to_bytes());
            place = get(&self.older, place);
        }
        News {
            epoch: self.epoch,
            from: self.changes(),
            full: true,
            changes,
        }
    }

    /// Forgets the changes before `before`: everybody has heard of them.
    pub fn forget_changes(&mut self, before: u64) {
        while self.before_log < before && self.log.pop_front().is_some() {
            self.before_log += 1;
        }
    }

    fn place(&self, hash: u64) -> Option<u32> {
        self.places.find(hash, |place| self.hash_at(*place) == hash).copied()
    }

    fn hash_at(&self, place: u32) -> u64 {
        self.hashes.get(place as usize).copied().unwrap_or_default()
    }

    fn cut(&self, place: u32) -> Option<ShortCut> {
        let (hash, weight) = (*self.hashes.get(place as usize)?, *self.weights.get(place as usize)?);
        let [class, ..] = weight.to_le_bytes();
        Some(ShortCut::new(hash, class))
    }

    fn insert(&mut self, cut: Cut, before: u32) {
        if self.max_cuts == 0 {
            return;
        }
        while self.len() >= self.max_cuts {
            self.forget_oldest();
        }
        let place = self.empty_place();
        set(&mut self.hashes, place, cut.hash);
        let short = ShortCut::from(cut);
        let own = cut.tokens.saturating_sub(before).min(MAX_WEIGHT);
        set(&mut self.weights, place, own << 8 | u32::from(short.class));
        let hashes = &self.hashes;
        let rehash = |place: &u32| hashes.get(*place as usize).copied().unwrap_or_default();
        self.places.insert_unique(cut.hash, place, rehash);
        self.link(place);
        self.used += u64::from(own);
        self.note(Change {
            cut: short,
            gone: false,
        });
    }

    /// A place for a new cut. The lists grow by a small part, so that they have little unused space.
    fn empty_place(&mut self) -> u32 {
        if self.empty != NONE {
            let place = self.empty;
            self.empty = get(&self.older, place);
            return place;
        }
        let len = self.hashes.len();
        if len == self.hashes.capacity() {
            let more = (len / 64).max(16);
            self.hashes.reserve_exact(more);
            self.weights.reserve_exact(more);
            self.newer.reserve_exact(more);
            self.older.reserve_exact(more);
        }
        self.hashes.push(0);
        self.weights.push(0);
        self.newer.push(NONE);
        self.older.push(NONE);
        u32::try_from(len).unwrap_or(NONE)
    }

    fn shrink(&mut self) {
        while as_float(self.used) > self.room && self.oldest != NONE {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let place = self.oldest;
        let Some(cut) = self.cut(place) else { return };
        self.unlink(place);
        if let Ok(entry) = self.places.find_entry(self.hash_at(place), |other| *other == place) {
            entry.remove();
        }
        self.used = self.used.saturating_sub(u64::from(get(&self.weights, place) >> 8));
        set(&mut self.older, place, self.empty);
        self.empty = place;
        self.note(Change { cut, gone: true });
    }

    fn note(&mut self, change: Change) {
        self.log.push_back(change);
        if self.log.len() > KEPT_CHANGES {
            self.log.pop_front();
            self.before_log += 1;
        }
    }

    fn link(&mut self, place: u32) {
        set(&mut self.newer, place, NONE);
        set(&mut self.older, place, self.newest);
        if self.newest == NONE {
            self.oldest = place;
        } else {
            let newest = self.newest;
            set(&mut self.newer, newest, place);
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let (newer, older) = (get(&self.newer, place), get(&self.older, place));
        if newer == NONE {
            self.newest = older;
        } else {
            set(&mut self.older, newer, older);
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            set(&mut self.newer, older, newer);
        }
    }
}

fn get(list: &[u32], place: u32) -> u32 {
    list.get(place as usize).copied().unwrap_or(NONE)
}

fn set<T>(list: &mut [T], place: u32, value: T) {
    if let Some(entry) = list.get_mut(place as usize) {
        *entry = value;
    }
}

#[allow(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
fn as_float(tokens: u64) -> f64 {
    tokens as f64
}

#[cfg(test)]
#[path = "held_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
