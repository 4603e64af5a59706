//! The limits of keys over all gateways, pure: what is admitted, and what gateways tell each other.
//!
//! Each gateway has, for each key, the buckets of the whole cluster as far as it knows: its own
//! consumption at once, that of the others as they tell it. Counts told are sums since the teller's
//! start, so that a lost message is made good by the next. What it means and how far off it can be
//! is in docs/limits.md.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokenbus_protocol::{Consumption, KeyConsumption, Name};
use tokio::time::Instant;

use super::key_table::Limits;
use super::limits::{KEYS_PER_MESSAGE, MAX_PEERS, PEER_LOST};
use super::state::{Charge, State};

/// Why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its requests a minute are used up.
    Requests {
        /// How many they are.
        limit: u64,
        /// When there is one again.
        after: Duration,
    },
    /// Its tokens a minute are used up.
    Tokens {
        /// How many they are.
        limit: u64,
        /// How many this request was estimated to need.
        asked: u64,
        /// When there are as many.
        after: Duration,
    },
    /// As many requests run as may.
    Streams {
        /// How many that are.
        limit: u64,
    },
}

/// How much is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// When all of it is there again, if nothing is consumed.
    pub reset: Duration,
}

/// How much is left of a key's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Of its requests a minute.
    pub requests: Option<Left>,
    /// Of its tokens a minute.
    pub tokens: Option<Left>,
}

/// What there is to tell others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct News {
    /// Something they do not know.
    pub some: bool,
    /// It matters now: so much of a limit is used up that they might go beyond it, or there is room
    /// again where there was none.
    pub urgent: bool,
}

/// Which keys a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that matter now.
    Urgent,
    /// Those with news.
    Changed,
    /// All that are not idle.
    Active,
}

/// Another gateway.
#[derive(Debug)]
struct Peer {
    seq: u64,
    heard: Instant,
    /// It has told everything once, so that a key of which it tells for the first time was idle
    /// there until then.
    complete: bool,
}

/// The limits of all keys, as one gateway knows them.
#[derive(Debug)]
pub struct Limiter {
    me: Name,
    seq: u64,
    keys: HashMap<Name, State>,
    peers: HashMap<Name, Peer>,
    /// Keys that are not idle.
    active: HashSet<Name>,
    changed: HashSet<Name>,
    urgent: HashSet<Name>,
    /// A gateway has come that knows nothing.
    asked: bool,
}

impl Limiter {
    /// Of the gateway `me`; nothing has been consumed yet.
    pub fn new(me: Name) -> Self {
        Self {
            me,
            seq: 0,
            keys: HashMap::new(),
            peers: HashMap::new(),
            active: HashSet::new(),
            changed: HashSet::new(),
            urgent: HashSet::new(),
            asked: false,
        }
    }

    /// Lets a request of `key` in that will use about `tokens` tokens. It runs until
    /// [`Limiter::settle`] is called with the charge.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is consumed then.
    pub fn admit(&mut self, key: &Name, limits: Limits, tokens: u64, now: Instant) -> Result<(Charge, News), Refusal> {
        let state = self.keys.entry(key.clone()).or_insert_with(|| State::new(limits, now));
        state.limits = limits;
        let charge = state.admit(tokens, now)?;
        let news = if self.peers.is_empty() {
            News::default()
        } else {
            News {
                some: true,
                urgent: state.is_urgent(self.peers.len() + 1, now),
            }
        };
        self.note(key, news);
        Ok((charge, news))
    }

    /// A request has ended and used `tokens` tokens.
    pub fn settle(&mut self, key: &Name, charge: &Charge, tokens: u64, now: Instant) -> News {
        let Some(state) = self.keys.get_mut(key) else {
            return News::default();
        };
        // Others refuse requests for which there is room now.
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

    /// What is left for `key`.
    pub fn standing(&self, key: &Name, limits: Limits, now: Instant) -> Standing {
        match self.keys.get(key) {
            Some(state) => state.standing(limits, now),
            None => State::new(limits, now).standing(limits, now),
        }
    }

    /// Takes in what another gateway tells. `limits` are those of a key, where it is known here.
    pub fn hear(&mut self, told: &Consumption, limits: impl Fn(&str) -> Option<(Name, Limits)>, now: Instant) -> News {
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
            let state = self.keys.entry(name.clone()).or_insert_with(|| State::new(limits, now));
            state.limits = limits;
            state.hear(&told.gateway, key, complete, now);
            self.active.insert(name);
        }
        self.asked |= told.hello;
        News {
            some: false,
            urgent: told.hello,
        }
    }

    /// Whether the teller had told everything before; `None` when the message is void.
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
    pub fn hello(&mut self) -> Consumption {
        Consumption {
            hello: true,
            complete: true,
            ..self.message(Vec::new())
        }
    }

    /// What there is to tell: messages of bounded size. For [`Scope::Active`] at least one, which
    /// says that this gateway lives; that is also what is urgent when a gateway has come that knows
    /// nothing. What was urgent is told once more with what has changed, in
    /// case it was lost.
    pub fn tell(&mut self, scope: Scope, now: Instant) -> Vec<Consumption> {
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

    /// Forgets gateways that are gone, with what runs there, and which keys are idle. Call it about
    /// as often as gateways refresh.
    pub fn age(&mut self, now: Instant) {
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
        let keys = &self.keys;
        self.active
            .retain(|name| keys.get(name).is_some_and(|state| !state.is_idle(now)));
    }

    /// Keeps only the keys that `known` knows.
    pub fn retain(&mut self, known: impl Fn(&Name) -> bool) {
        self.keys.retain(|name, _| known(name));
        for set in [&mut self.active, &mut self.changed, &mut self.urgent] {
            set.retain(&known);
        }
    }

    /// Other gateways that are there.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }
}

/// Without a copy of the name where it is there already, as it mostly is.
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "limiter_sim_tests.rs"]
mod simulation;
