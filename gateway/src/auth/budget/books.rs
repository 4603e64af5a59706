//! The budgets of all keys, as one gateway knows them, pure.

use std::collections::{HashMap, HashSet};

use tokenbus_protocol::{Amount, Date, Name, Spending};

use super::calendar;
use super::entry::Entry;
use super::key_budget::{Budget, Budgets, Exhausted, KeyBudget, Told};

/// What a write to the bucket is to do.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) key: Name,
    pub(crate) entry: Entry,
    /// The revision that it replaces; 0 if there is none.
    pub(crate) over: u64,
}

/// The budgets of all keys. What a key has used is remembered also when the key is gone: it may come back.
#[derive(Debug)]
pub(crate) struct Books {
    me: Name,
    seq: u64,
    keys: HashMap<Name, KeyBudget>,
    /// Keys with something to write.
    dirty: HashSet<Name>,
    /// What was used before is known.
    loaded: bool,
    /// It is kept in a bucket.
    kept: bool,
    seconds: u64,
    today: Date,
}

impl Books {
    /// The books of the gateway `me`.
    pub(crate) fn new(me: Name) -> Self {
        Self {
            me,
            seq: 0,
            keys: HashMap::new(),
            dirty: HashSet::new(),
            loaded: false,
            kept: false,
            seconds: 0,
            today: Date::default(),
        }
    }

    /// It is `seconds` of Unix time now.
    pub(crate) fn at(&mut self, seconds: u64) {
        if seconds != self.seconds {
            self.seconds = seconds;
            self.today = calendar::date(seconds);
        }
    }

    /// Unix time in seconds.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Whether it is known what was used before.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// What was used before is known now: from a bucket, or, if nothing is `kept`, nothing.
    pub(crate) fn loaded(&mut self, kept: bool) {
        (self.loaded, self.kept) = (true, kept);
    }

    /// Checks the budgets of `key`.
    pub(crate) fn check(&self, key: &Name, budgets: &Budgets, others: Told) -> Result<(), Exhausted> {
        let none = KeyBudget::default();
        let budget = self.keys.get(key).unwrap_or(&none);
        budget.check(budgets, others, self.kept, self.today)
    }

    /// Whether the other gateways should hear now of what is expected and used here: if each of them had as much that
    /// nobody knows, they might together use up half of what is left. They were `told` before.
    pub(crate) fn is_urgent(
        &self,
        key: &Name,
        budgets: &Budgets,
        (told, others): (Told, Told),
        gateways: usize,
    ) -> bool {
        let Some(budget) = self.keys.get(key).filter(|_| !budgets.is_none()) else {
            return false;
        };
        let all = |told: Told| {
            Spending::on(self.today, told.expected)
                .plus(told.unsaved)
                .at(self.today)
        };
        let (here, told) = (all(budget.tell()), all(told));
        let used = budget
            .spent(self.today)
            .plus(all(others))
            .plus(Spending::on(self.today, budget.tell().expected));
        Budget::ALL.iter().any(|one| {
            let Some(limit) = budgets.limit(*one) else { return false };
            let untold = one.of(&here).saturating_sub(one.of(&told));
            let left = limit.saturating_sub(one.of(&used));
            untold > 0 && untold.saturating_mul(2 * gateways as u64) >= left
        })
    }

    /// What was used of the budgets of `key`, as far as it is known here.
    pub(crate) fn spent(&self, key: &Name) -> Spending {
        let budget = self.keys.get(key);
        budget.map_or_else(Spending::default, |budget| budget.spent(self.today))
    }

    /// What the others must know of `key`.
    pub(crate) fn tell(&self, key: &Name) -> Told {
        self.keys.get(key).map_or_else(Told::default, KeyBudget::tell)
    }

    /// A request of `key` runs that will probably use `amount`.
    pub(crate) fn expect(&mut self, key: &Name, amount: Amount) {
        self.entry(key).expect(amount);
    }

    /// A request of `key` of which `expected` was expected has used `amount`.
    pub(crate) fn settle(&mut self, key: &Name, expected: Amount, amount: Amount) {
        let today = self.today;
        self.entry(key).settle(expected, amount, today);
        self.note(key);
    }

    /// The bucket has `entry` for `key` at `revision`; none if somebody deleted it.
    pub(crate) fn stored(&mut self, key: &Name, entry: Option<Entry>, revision: u64) {
        let me = self.me.clone();
        let budget = self.entry(key);
        match entry {
            Some(entry) => budget.stored(&me, entry, revision),
            None => budget.deleted(revision),
        }
        self.note(key);
    }

    /// The bucket is opened anew. What it does not have of what is known here is written to it.
    pub(crate) fn reopened(&mut self) {
        for (key, budget) in &mut self.keys {
            budget.forget_revision();
            self.dirty.insert(key.clone());
        }
    }

    /// What is to be written.
    pub(crate) fn writes(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let Some(budget) = self.keys.get_mut(&key) else {
                continue;
            };
            self.seq += 1;
            if let Some((entry, over)) = budget.send(&self.me, self.seq) {
                self.dirty.insert(key.clone());
                writes.push(Write { key, entry, over });
            }
        }
        writes
    }

    /// Keys of which something waits to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.dirty.len()
    }

    fn entry(&mut self, key: &Name) -> &mut KeyBudget {
        self.keys.entry(key.clone()).or_default()
    }

    fn note(&mut self, key: &Name) {
        if self.keys.get(key).is_some_and(KeyBudget::is_unsaved) {
            self.dirty.insert(key.clone());
        } else {
            self.dirty.remove(key);
        }
    }
}
