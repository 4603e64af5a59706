//! The limits of keys over all gateways, pure: what is admitted, and what gateways tell each other.
//!
//! Each gateway keeps, for each key, the buckets of the whole cluster as far as it knows: its own consumption at once,
//! and that of the others when they report it. Reported counts are totals since the reporter's start, so the next
//! message makes up for a lost one. docs/limits.md explains the rules and how inexact they are.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokenbus_protocol::{Amount, Consumption, KeyConsumption, Name};
use tokio::time::Instant;

use super::budget::books::Books;
use super::budget::bucket::Stored;
use super::budget::{Budget, Exhausted};
use super::key_table::Limits;
use super::limits::{KEYS_PER_MESSAGE, MAX_PEERS, MAX_TOLD, PEER_LOST};
pub(crate) use super::refusal::{Refusal, Remaining, RemainingLimits};
use super::state::{Charge, KeyState};

/// What must be told to the other gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct News {
    /// There is something that they do not know.
    pub some: bool,
    /// They must know now: so much of a limit is used up that they might exceed it, or a full limit has room again.
    pub urgent: bool,
}

impl News {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            some: self.some || other.some,
            urgent: self.urgent || other.urgent,
        }
    }
}

/// Which keys a message covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The urgent ones.
    Urgent,
    /// The changed ones.
    Changed,
    /// All that are not idle.
    Active,
}

/// Another gateway.
#[derive(Debug)]
struct Peer {
    seq: u64,
    heard: Instant,
    /// It has sent its full state once. A key in its later messages that is new was idle there until then.
    complete: bool,
}

/// The limits of all keys, as one gateway knows them.
#[derive(Debug)]
pub(crate) struct Limiter {
    me: Name,
    seq: u64,
    keys: HashMap<Name, KeyState>,
    peers: HashMap<Name, Peer>,
    /// Counts of a key at a peer, at most.
    told: usize,
    /// Keys that are not idle.
    active: HashSet<Name>,
    changed: HashSet<Name>,
    urgent: HashSet<Name>,
    /// A new gateway needs the full state.
    asked: bool,
    /// The keys' budgets.
    pub(super) books: Books,
}

impl Limiter {
    /// A limiter of the gateway `me`, without any consumption.
    pub(crate) fn new(me: Name) -> Self {
        Self {
            books: Books::new(me.clone()),
            me,
            seq: 0,
            keys: HashMap::new(),
            peers: HashMap::new(),
            told: 0,
            active: HashSet::new(),
            changed: HashSet::new(),
            urgent: HashSet::new(),
            asked: false,
        }
    }

    /// Admits a request of `key` by what is known before its body is read. It counts as running until
    /// [`Limiter::settle`] gets the charge.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is consumed then.
    pub(crate) fn admit(&mut self, key: &Name, limits: Limits, now: Instant) -> Result<(Charge, News), Refusal> {
        let state = self
            .keys
            .entry(key.clone())
            .or_insert_with(|| KeyState::new(limits, now));
        state.limits = limits;
        check(&self.books, key, state)?;
        let charge = state.admit(now)?;
        Ok((charge, self.consumed(key, now)))
    }

    /// Charges an admitted request for the `tokens` that it will probably use.
    ///
    /// # Errors
    /// [`Refusal`]; the request still counts, as one that was refused.
    pub(crate) fn charge(
        &mut self,
        key: &Name,
        charge: &mut Charge,
        tokens: u64,
        now: Instant,
    ) -> Result<News, Refusal> {
        let Some(state) = self.keys.get_mut(key) else {
            return Ok(News::default());
        };
        state.charge(charge, tokens, now)?;
        Ok(self.consumed(key, now))
    }

    /// Holds back what an admitted request will probably use of the key's budgets.
    ///
    /// # Errors
    /// [`Refusal`]; the request still counts, as one that was refused.
    pub(crate) fn expect(
        &mut self,
        key: &Name,
        charge: &mut Charge,
        amount: Amount,
        now: Instant,
    ) -> Result<News, Refusal> {
        let Some(state) = self.keys.get_mut(key) else {
            return Ok(News::default());
        };
        check(&self.books, key, state)?;
        charge.expected = amount;
        self.books.expect(key, amount);
        state.own.budget = self.books.tell(key);
        Ok(self.consumed(key, now))
    }

    /// A request has ended and used `amount` of its key's budgets.
    pub(crate) fn spend(&mut self, key: &Name, charge: &Charge, amount: Amount, now: Instant) -> News {
        self.books.settle(key, charge.expected, amount);
        self.told_budget(key, now)
    }

    /// The bucket has `entry` for `key` at `revision`; none if somebody deleted it.
    pub(crate) fn stored(&mut self, key: &Name, entry: Option<Stored>, revision: u64, now: Instant) -> News {
        self.books.stored(key, entry, revision);
        self.told_budget(key, now)
    }

    /// What the others must know of the budgets of `key` has changed.
    fn told_budget(&mut self, key: &Name, now: Instant) -> News {
        let Some(state) = self.keys.get_mut(key) else {
            return News::default();
        };
        let before = std::mem::replace(&mut state.own.budget, self.books.tell(key));
        if before == state.own.budget {
            return News::default();
        }
        self.consumed(key, now)
    }

    /// Notes that `key` has consumed something.
    fn consumed(&mut self, key: &Name, now: Instant) -> News {
        let gateways = self.peers.len() + 1;
        let state = self.keys.get(key).filter(|_| gateways > 1);
        let news = state.map_or_else(News::default, |state| {
            let told = (state.told.budget, state.others_budget());
            let budgets = &state.limits.budgets;
            News {
                some: true,
                urgent: state.is_urgent(gateways, now) || self.books.is_urgent(key, budgets, told, gateways),
            }
        });
        self.note(key, news);
        news
    }

    /// A request has ended and used `tokens` tokens.
    pub(crate) fn settle(&mut self, key: &Name, charge: &Charge, tokens: u64, now: Instant) -> News {
        let Some(state) = self.keys.get_mut(key) else {
            return News::default();
        };
        // The others still refuse requests that now fit.
        let was_full = state.is_full();
        state.settle(charge, tokens, now);
        let some = !self.peers.is_empty();
        let news = News {
            some,
            urgent: some && was_full,
        };
        self.note(key, news);
        news
    }

    fn note(&mut self, key: &Name, news: News) {
        add(&mut self.active, key);
        if news.some {
            add(&mut self.changed, key);
        }
        if news.urgent {
            add(&mut self.urgent, key);
        }
    }

    /// What remains for `key`.
    pub(crate) fn remaining(&self, key: &Name, limits: Limits, now: Instant) -> RemainingLimits {
        let remaining = match self.keys.get(key) {
            Some(state) => state.remaining(limits, now),
            None => KeyState::new(limits, now).remaining(limits, now),
        };
        let spent = self.books.spent(key);
        RemainingLimits {
            budgets: Budget::ALL.map(|budget| {
                let limit = limits.budgets.limit(budget)?;
                Some(Remaining {
                    limit,
                    remaining: limit.saturating_sub(budget.of(&spent)),
                    reset: Duration::from_secs(budget.resets(self.books.seconds())),
                })
            }),
            ..remaining
        }
    }

    /// Applies another gateway's message. `limits` finds a key's limits, if the key is known here.
    pub(crate) fn hear(
        &mut self,
        told: &Consumption,
        limits: impl Fn(&str) -> Option<(Name, Limits)>,
        now: Instant,
    ) -> News {
        if told.gateway == self.me {
            return News::default();
        }
        let Some(complete) = self.meet(told, now) else {
            return News::default();
        };
        for key in &told.keys {
            let Some((name, limits)) = limits(&key.key) else {
                continue;
            };
            let state = self
                .keys
                .entry(name.clone())
                .or_insert_with(|| KeyState::new(limits, now));
            state.limits = limits;
            if !state.knows(&told.gateway) {
                if self.told >= MAX_TOLD {
                    continue;
                }
                self.told += 1;
            }
            state.hear(&told.gateway, key, complete, now);
            self.active.insert(name);
        }
        self.asked |= told.hello;
        News {
            some: false,
            urgent: told.hello,
        }
    }

    /// Whether the sender had sent its full state before; `None` if the message must be ignored.
    fn meet(&mut self, told: &Consumption, now: Instant) -> Option<bool> {
        if let Some(peer) = self.peers.get_mut(&told.gateway) {
            if told.seq <= peer.seq {
                return None;
            }
            peer.seq = told.seq;
            peer.heard = now;
            let before = peer.complete;
            peer.complete |= told.complete;
            return Some(before);
        }
        if self.peers.len() >= MAX_PEERS {
            return None;
        }
        let peer = Peer {
            seq: told.seq,
            heard: now,
            complete: told.complete,
        };
        self.peers.insert(told.gateway.clone(), peer);
        Some(false)
    }

    /// The first message of this gateway's life.
    pub(crate) fn hello(&mut self) -> Consumption {
        Consumption {
            hello: true,
            complete: true,
            ..self.message(Vec::new())
        }
    }

    /// The messages to send, each of bounded size. [`Scope::Active`] yields at least one, as a sign of life, and
    /// replaces [`Scope::Urgent`] when a new gateway needs the full state. Urgent news is sent again with the changed
    /// keys, in case it was lost.
    pub(crate) fn tell(&mut self, scope: Scope, now: Instant) -> Vec<Consumption> {
        let asked = scope == Scope::Urgent && std::mem::take(&mut self.asked);
        let scope = if asked { Scope::Active } else { scope };
        let names = match scope {
            Scope::Urgent => std::mem::take(&mut self.urgent),
            Scope::Changed => std::mem::take(&mut self.changed),
            Scope::Active => self.active.clone(),
        };
        let mut told = Vec::with_capacity(names.len());
        for name in names {
            if let Some(state) = self.keys.get_mut(&name) {
                told.push(state.tell(&name, now));
            }
        }
        let mut messages: Vec<Consumption> = Vec::new();
        for keys in told.chunks(KEYS_PER_MESSAGE) {
            messages.push(self.message(keys.to_vec()));
        }
        if scope == Scope::Active {
            if messages.is_empty() {
                messages.push(self.message(Vec::new()));
            }
            if let Some(last) = messages.last_mut() {
                last.complete = true;
            }
        }
        messages
    }

    fn message(&mut self, keys: Vec<KeyConsumption>) -> Consumption {
        let seq = self.seq;
        self.seq += 1;
        Consumption {
            gateway: self.me.clone(),
            seq,
            hello: false,
            complete: false,
            keys,
        }
    }

    /// Forgets gateways that are gone, with their running requests, and drops idle keys. Call it about as often as
    /// gateways refresh.
    pub(crate) fn age(&mut self, now: Instant) {
        let lost = |peer: &Peer| now.saturating_duration_since(peer.heard) > PEER_LOST;
        let gone: Vec<Name> = self
            .peers
            .extract_if(|_, peer| lost(peer))
            .map(|(name, _)| name)
            .collect();
        if !gone.is_empty() {
            for state in self.keys.values_mut() {
                state.forget(&gone);
            }
        }
        self.told = self.keys.values().map(KeyState::told_by).sum();
        let keys = &self.keys;
        self.active
            .retain(|name| keys.get(name).is_some_and(|state| !state.is_idle(now)));
    }

    /// Keeps only the keys for which `known` holds.
    pub(crate) fn retain(&mut self, known: impl Fn(&Name) -> bool) {
        self.keys.retain(|name, _| known(name));
        for set in [&mut self.active, &mut self.changed, &mut self.urgent] {
            set.retain(&known);
        }
    }
}

/// Checks the budgets of `key`.
fn check(books: &Books, key: &Name, state: &KeyState) -> Result<(), Refusal> {
    let budgets = state.limits.budgets;
    if budgets.is_none() {
        return Ok(());
    }
    if !books.is_loaded() {
        return Err(Refusal::BudgetsUnknown);
    }
    let limit = |budget| budgets.limit(budget).unwrap_or_default();
    let checked = books.check(key, &budgets, state.others_budget());
    checked.map_err(|exhausted| match exhausted {
        Exhausted::Spent(budget) => Refusal::Spent {
            budget,
            limit: limit(budget),
            after: Duration::from_secs(budget.resets(books.seconds())),
        },
        Exhausted::Expected(budget) => Refusal::Expected {
            budget,
            limit: limit(budget),
        },
    })
}

/// Copies the name only if it is new, which is rare.
fn add(set: &mut HashSet<Name>, name: &Name) {
    if !set.contains(name) {
        set.insert(name.clone());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "limiter_tests.rs"]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "limiter_budget_tests.rs"]
mod budget_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "limiter_sim_tests.rs"]
mod simulation;
