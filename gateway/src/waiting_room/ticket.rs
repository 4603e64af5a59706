//! The place of one waiting request.

use std::time::Duration;

use tokenbus_protocol::{Features, Name};
use tokio::time::Instant;

use crate::metrics::Class;

/// The level of requests that have begun.
pub(super) const BEGUN: i64 = i64::MIN;

/// A line: whose slots its requests wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineKey {
    /// The needs that some workers of the model lack.
    pub needs: Features,
    /// The only worker whose slots they wait for; `None` for any.
    pub worker: Option<Name>,
}

impl From<Features> for LineKey {
    fn from(needs: Features) -> Self {
        Self { needs, worker: None }
    }
}

impl From<&Self> for LineKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

/// The place of one waiting request. The request keeps it when it was woken in vain, so that it does not lose its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Order of arrival over all models.
    pub order: u64,
    /// When it arrived.
    pub since: Instant,
    /// The model.
    pub model: String,
    /// Its line.
    pub line: LineKey,
    /// Higher goes first.
    pub priority: i32,
    /// Who takes turns with the others: its [`Call::party`](crate::call::Call::party).
    pub tenant: Option<String>,
    /// Bytes of its body, which stays in memory while it waits.
    pub bytes: usize,
    /// Tokens that it will probably cost, prompt and answers.
    pub tokens: u64,
    /// How long it can wait at most; `None` once it was admitted, or if it may wait for ever.
    pub limit: Option<Duration>,
    /// It has paused instead of being refused.
    pub paused: bool,
    /// A worker has had it before: it goes before all others, and is always admitted.
    pub begun: bool,
    /// It was given a turn, for which its tenant was charged. If it waits again, the turn was in vain.
    pub had_turn: bool,
}

impl Ticket {
    /// Its class.
    pub(crate) fn class(&self) -> Class {
        match self.priority {
            _ if self.begun => Class::Begun,
            1.. => Class::High,
            0 => Class::Normal,
            _ => Class::Low,
        }
    }

    /// Its level in its line. The lowest goes first.
    pub(super) fn level(&self) -> i64 {
        if self.begun { BEGUN } else { -i64::from(self.priority) }
    }

    /// What its turn costs. A request whose tokens nobody can estimate costs something too.
    pub(super) fn cost(&self) -> u64 {
        self.tokens.max(1)
    }
}
