//! Why the limits of a key refuse a request, and what is left of them.

use std::time::Duration;

use super::budget::Budget;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The key's requests per minute are used up.
    Requests {
        /// The limit.
        limit: u64,
        /// When the next request fits.
        after: Duration,
    },
    /// The key's tokens per minute are used up.
    Tokens {
        /// The limit.
        limit: u64,
        /// The estimated tokens of this request.
        asked: u64,
        /// When they fit.
        after: Duration,
    },
    /// The key's concurrent requests have reached their limit.
    Streams {
        /// The limit.
        limit: u64,
    },
    /// A budget of the key is used up.
    Spent {
        /// The budget.
        budget: Budget,
        /// Its limit: tokens, or billionths of money.
        limit: u64,
        /// When it begins anew.
        after: Duration,
    },
    /// Running requests may use up the rest of a budget of the key.
    Expected {
        /// The budget.
        budget: Budget,
        /// Its limit: tokens, or billionths of money.
        limit: u64,
    },
    /// It is not known yet what was used of the key's budgets.
    BudgetsUnknown,
}

impl Refusal {
    /// The name of the limit in metrics.
    pub(crate) fn limit(&self) -> &'static str {
        match self {
            Self::Requests { .. } => "requests",
            Self::Tokens { .. } => "tokens",
            Self::Streams { .. } => "streams",
            Self::Spent { budget, .. } | Self::Expected { budget, .. } => budget.name(),
            Self::BudgetsUnknown => "budgets",
        }
    }
}

/// How much of one limit remains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// The limit.
    pub limit: u64,
    /// How much of it remains.
    pub remaining: u64,
    /// When all of it is available again, if nothing more is consumed.
    pub reset: Duration,
}

/// How much of a key's limits remains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemainingLimits {
    /// Of its requests per minute.
    pub requests: Option<Remaining>,
    /// Of its tokens per minute.
    pub tokens: Option<Remaining>,
    /// Of its budgets, in the order of [`Budget::ALL`]; money in billionths.
    pub budgets: [Option<Remaining>; 4],
}
