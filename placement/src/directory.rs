//! What a gateway knows of all workers' prefix caches: for each cut, who holds it.
//!
//! The cuts are in shards, so that no step takes long: growing, and forgetting a worker that has gone, happen shard by
//! shard. About 20 to 40 bytes a cut; many holders of one cut are bits of a set.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::chain::Prompt;
use crate::news::{Change, News, ShortCut, changes};

/// Shards; a power of two.
const SHARDS: usize = 64;

/// Holders of a cut that need no set.
const FEW: usize = 3;

/// Members of a set that is kept. With fewer it is given up, and not made again at the next holder.
const KEEP_SET: u32 = 2;

/// Bytes of a cut in a shard's table: key, holders and a byte of the table.
const ENTRY_BYTES: usize = size_of::<(u64, Holders)>() + 1;

/// The number of a worker at one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerNumber(pub u16);

/// No worker.
const NOBODY: u16 = u16::MAX;

/// The effect of a worker's news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The worker's cuts are known.
    Known,
    /// Something was missed: the worker is to tell everything.
    Gap,
}

/// Who holds which cut.
#[derive(Debug)]
pub struct Directory {
    /// None until there is something to know.
    shards: Vec<Shard>,
    workers: Vec<Known>,
    /// Numbers that are free again.
    free: Vec<u16>,
    /// The next shard to be cleared of workers that have gone.
    swept: usize,
    /// Most cuts of a shard.
    bound: usize,
}

#[derive(Debug, Default)]
struct Shard {
    cuts: HashMap<u64, Holders, FxBuildHasher>,
    sets: Vec<Vec<u64>>,
    free_sets: Vec<u32>,
}

/// Who holds one cut.
#[derive(Debug, Clone, Copy)]
enum Holders {
    /// These, [`NOBODY`] for an unused place.
    Few([u16; FEW]),
    /// Those in a set of the shard.
    Set(u32),
}

/// What is known of one worker.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    state: State,
    /// The epoch of its news, and the number of its changes that were heard; `None` while its cuts are not known.
    heard: Option<(u64, u64)>,
    cuts: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Here,
    /// It has gone; so many shards still have to be cleared of it.
    Gone(usize),
    Free,
}

impl Directory {
    /// Nothing is known. `bytes` is the bound of the tables.
    pub fn new(bytes: usize) -> Self {
        Self {
            shards: Vec::new(),
            workers: Vec::new(),
            free: Vec::new(),
            swept: 0,
            bound: most_cuts(bytes / SHARDS),
        }
    }

    /// A worker appears: its number. `None` when there are 65,535 already.
    pub fn join(&mut self) -> Option<WorkerNumber> {
        if let Some(number) = self.free.pop() {
            *self.workers.get_mut(usize::from(number))? = Known::default();
            return Some(WorkerNumber(number));
        }
        let number = u16::try_from(self.workers.len())
            .ok()
            .filter(|number| *number != NOBODY)?;
        self.workers.push(Known::default());
        Some(WorkerNumber(number))
    }

    /// A worker has gone. Its number is used again once nothing mentions it any more.
    pub fn leave(&mut self, worker: WorkerNumber) {
        if let Some(known) = self.workers.get_mut(usize::from(worker.0))
            && known.state == State::Here
        {
            known.state = State::Gone(SHARDS);
            known.heard = None;
        }
    }

    /// Clears one shard of workers that have gone. To be called now and then: each time that news come.
    pub fn sweep(&mut self) {
        let gone = |number: u16, workers: &[Known]| {
            let known = workers.get(usize::from(number));
            known.is_none_or(|known| known.state != State::Here)
        };
        if !self.workers.iter().any(|known| matches!(known.state, State::Gone(_))) {
            return;
        }
        self.swept = (self.swept + 1) % SHARDS;
        if let Some(shard) = self.shards.get_mut(self.swept) {
            shard.retain(|number| !gone(number, &self.workers));
        }
        for (number, known) in (0..).zip(&mut self.workers) {
            if let State::Gone(left) = &mut known.state {
                *left -= 1;
                if *left == 0 {
                    known.state = State::Free;
                    self.free.push(number);
                }
            }
        }
    }

    /// Takes in what `worker` tells. It gets another number where all that was known of it is to be forgotten.
    pub fn apply(&mut self, worker: &mut WorkerNumber, news: &News) -> Applied {
        let heard = self.known(*worker).and_then(|known| known.heard);
        let new_epoch = heard.is_some_and(|(epoch, _)| epoch != news.epoch);
        let skip = match heard {
            _ if news.full => Some(0),
            // A worker that begins, or begins again, has nothing to tell of before.
            None => (news.from == 0).then_some(0),
            Some(_) if new_epoch => (news.from == 0).then_some(0),
            Some((_, next)) => next.checked_sub(news.from),
        };
        if heard.is_some() && (news.full || new_epoch || skip.is_none()) {
            *worker = self.renew(*worker);
        }
        let Some(skip) = skip else { return Applied::Gap };
        let all = changes(&news.changes);
        let told = news.from + if news.full { 0 } else { all.len() as u64 };
        for change in all.skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            self.change(*worker, change);
        }
        if let Some(known) = self.workers.get_mut(usize::from(worker.0)) {
            known.heard = Some((news.epoch, told.max(news.from + skip)));
        }
        Applied::Known
    }

    fn known(&self, worker: WorkerNumber) -> Option<&Known> {
        self.workers.get(usize::from(worker.0))
    }

    /// Another number for a worker of which everything is to be forgotten.
    fn renew(&mut self, worker: WorkerNumber) -> WorkerNumber {
        let Some(next) = self.join() else {
            self.forget(worker);
            return worker;
        };
        self.leave(worker);
        next
    }

    /// Notes in `holdings` how many tokens of `prompt` each worker holds.
    pub fn look(&self, prompt: &Prompt, holdings: &mut Holdings) {
        for cut in prompt.cuts().iter().rev() {
            let key = ShortCut::from(*cut).key();
            let Some(shard) = self.shard(key) else { return };
            shard.each_holder(key, |number| {
                let here = self.workers.get(usize::from(number));
                if here.is_some_and(|known| known.state == State::Here && known.heard.is_some()) {
                    holdings.note(WorkerNumber(number), cut.tokens);
                }
            });
            if holdings.noted.len() + self.free.len() >= self.workers.len() {
                return;
            }
        }
    }

    /// Cuts that are known, each once.
    pub fn cuts(&self) -> usize {
        self.shards.iter().map(|shard| shard.cuts.len()).sum()
    }

    /// Cuts that this worker is known to hold.
    pub fn cuts_of(&self, worker: WorkerNumber) -> u32 {
        self.known(worker).map_or(0, |known| known.cuts)
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(Shard::bytes).sum()
    }

    fn shard(&self, key: u64) -> Option<&Shard> {
        self.shards.get(shard_of(key))
    }

    fn change(&mut self, worker: WorkerNumber, change: Change) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let key = change.cut.key();
        let (Some(shard), Some(known)) = (
            self.shards.get_mut(shard_of(key)),
            self.workers.get_mut(usize::from(worker.0)),
        ) else {
            return;
        };
        if change.gone {
            if shard.remove(key, worker.0) {
                known.cuts = known.cuts.saturating_sub(1);
            }
        } else if (shard.cuts.len() < self.bound || shard.cuts.contains_key(&key)) && shard.insert(key, worker.0) {
            known.cuts = known.cuts.saturating_add(1);
        }
    }

    /// Forgets the cuts of a worker that keeps its number, because there is no other.
    fn forget(&mut self, worker: WorkerNumber) {
        let Some(known) = self.workers.get_mut(usize::from(worker.0)) else {
            return;
        };
        known.heard = None;
        if std::mem::take(&mut known.cuts) > 0 {
            self.shards
                .iter_mut()
                .for_each(|shard| shard.retain(|number| number != worker.0));
        }
    }
}

impl Shard {
    fn each_holder(&self, key: u64, mut holder: impl FnMut(u16)) {
        match self.cuts.get(&key) {
            None => {}
            Some(Holders::Few(few)) => few.iter().copied().filter(|number| *number != NOBODY).for_each(holder),
            Some(Holders::Set(set)) => members(self.set(*set)).for_each(&mut holder),
        }
    }

    fn set(&self, set: u32) -> &[u64] {
        self.sets.get(set as usize).map_or(&[], Vec::as_slice)
    }

    /// True if it was not a holder.
    fn insert(&mut self, key: u64, number: u16) -> bool {
        let holders = self.cuts.entry(key).or_insert(Holders::Few([NOBODY; FEW]));
        match holders {
            Holders::Few(few) => {
                if few.contains(&number) {
                    return false;
                }
                if let Some(place) = few.iter_mut().find(|place| **place == NOBODY) {
                    *place = number;
                    return true;
                }
                let mut bits = Vec::new();
                few.iter().for_each(|few| set_bit(&mut bits, *few));
                set_bit(&mut bits, number);
                let place = if let Some(free) = self.free_sets.pop() {
                    if let Some(set) = self.sets.get_mut(free as usize) {
                        *set = bits;
                    }
                    free
                } else {
                    self.sets.push(bits);
                    u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
                };
                *holders = Holders::Set(place);
                true
            }
            Holders::Set(set) => self.sets.get_mut(*set as usize).is_some_and(|bits| {
                let is_new = !has_bit(bits, number);
                set_bit(bits, number);
                is_new
            }),
        }
    }

    /// True if it was a holder.
    fn remove(&mut self, key: u64, number: u16) -> bool {
        let Some(holders) = self.cuts.get_mut(&key) else {
            return false;
        };
        let removed = take_out(*holders, &mut self.sets, &mut self.free_sets, |other| other != number);
        let was = removed.was;
        match removed.left {
            Some(left) => *holders = left,
            None => {
                self.cuts.remove(&key);
            }
        }
        was
    }

    /// Keeps only holders for which `keep` holds.
    fn retain(&mut self, keep: impl Fn(u16) -> bool) {
        let (sets, free) = (&mut self.sets, &mut self.free_sets);
        self.cuts
            .retain(|_, holders| match take_out(*holders, sets, free, &keep).left {
                Some(left) => {
                    *holders = left;
                    true
                }
                None => false,
            });
        if self.cuts.len() < self.cuts.capacity() / 4 {
            self.cuts.shrink_to(self.cuts.len() * 2);
        }
    }

    fn bytes(&self) -> usize {
        let sets: usize = self
            .sets
            .iter()
            .map(|set| set.capacity() * 8 + size_of::<Vec<u64>>())
            .sum();
        table_bytes(self.cuts.capacity()) + sets + self.free_sets.capacity() * 4
    }
}

/// What is left of some holders.
struct Removed {
    /// Somebody was taken out.
    was: bool,
    left: Option<Holders>,
}

/// Takes those out of `holders` for which `keep` does not hold.
fn take_out(holders: Holders, sets: &mut [Vec<u64>], free: &mut Vec<u32>, keep: impl Fn(u16) -> bool) -> Removed {
    match holders {
        Holders::Few(few) => {
            let left = few.map(|number| {
                if number != NOBODY && keep(number) {
                    number
                } else {
                    NOBODY
                }
            });
            Removed {
                was: left != few,
                left: (left != [NOBODY; FEW]).then_some(Holders::Few(left)),
            }
        }
        Holders::Set(place) => {
            let Some(set) = sets.get_mut(place as usize) else {
                return Removed { was: false, left: None };
            };
            let mut was = false;
            let mut left = 0_u32;
            for (word, bits) in (0_u16..).zip(set.iter_mut()) {
                let before = *bits;
                for number in members(&[before]).map(|bit| word * 64 + bit) {
                    if !keep(number) {
                        *bits &= !(1 << (number % 64));
                    }
                }
                was |= before != *bits;
                left += bits.count_ones();
            }
            if left > KEEP_SET {
                return Removed {
                    was,
                    left: Some(holders),
                };
            }
            let mut few = [NOBODY; FEW];
            few.iter_mut()
                .zip(members(set))
                .for_each(|(place, number)| *place = number);
            set.clear();
            set.shrink_to_fit();
            free.push(place);
            Removed {
                was,
                left: (left > 0).then_some(Holders::Few(few)),
            }
        }
    }
}

fn has_bit(bits: &[u64], number: u16) -> bool {
    bits.get(usize::from(number / 64))
        .is_some_and(|word| word & 1 << (number % 64) != 0)
}

fn set_bit(bits: &mut Vec<u64>, number: u16) {
    let word = usize::from(number / 64);
    if bits.len() <= word {
        bits.reserve_exact(word + 1 - bits.len());
        bits.resize(word + 1, 0);
    }
    if let Some(word) = bits.get_mut(word) {
        *word |= 1 << (number % 64);
    }
}

fn members(bits: &[u64]) -> impl Iterator<Item = u16> + '_ {
    (0_u16..).zip(bits).flat_map(|(word, bits)| {
        let mut left = *bits;
        std::iter::from_fn(move || {
            let bit = u16::try_from(left.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
            left &= left - 1;
            Some(word * 64 + bit)
        })
    })
}

fn shard_of(key: u64) -> usize {
    usize::try_from(key).unwrap_or_default() % SHARDS
}

/// Bytes of a table with room for `capacity` entries: its places are a power of two, seven of eight used.
fn table_bytes(capacity: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    (capacity * 8 / 7).next_power_of_two() * ENTRY_BYTES
}

/// Most entries of a table that takes at most `bytes`.
fn most_cuts(bytes: usize) -> usize {
    let places = (bytes / ENTRY_BYTES).max(16) + 1;
    places.next_power_of_two() / 2 * 7 / 8
}

/// How many tokens of one prompt each worker holds. Kept between requests, to need no memory of its own.
#[derive(Debug, Default)]
pub struct Holdings {
    tokens: Vec<u32>,
    noted: Vec<u16>,
}

impl Holdings {
    /// Forgets the last prompt.
    pub fn clear(&mut self) {
        for number in self.noted.drain(..) {
            if let Some(tokens) = self.tokens.get_mut(usize::from(number)) {
                *tokens = 0;
            }
        }
    }

    /// Tokens that this worker holds.
    pub fn of(&self, worker: WorkerNumber) -> u32 {
        self.tokens.get(usize::from(worker.0)).copied().unwrap_or(0)
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }

    /// `worker` holds at least `tokens`.
    pub(crate) fn note(&mut self, worker: WorkerNumber, tokens: u32) {
        let place = usize::from(worker.0);
        if self.tokens.len() <= place {
            self.tokens.resize(place + 1, 0);
        }
        if let Some(held) = self.tokens.get_mut(place)
            && tokens > *held
        {
            if *held == 0 {
                self.noted.push(worker.0);
            }
            *held = tokens;
        }
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
