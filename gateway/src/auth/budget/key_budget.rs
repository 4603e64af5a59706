//! The budgets of one key over all gateways, pure.
//!
//! What all gateways have used together is stored in a bucket (`entry.rs`). To that a gateway adds what it has used
//! itself and not stored yet, and what the others have told of themselves.

use std::num::NonZeroU64;

use tokenbus_protocol::{Amount, Date, Name, Spending};

use super::calendar;
use super::entry::Entry;
use super::money::Money;

/// What a key may use in a day and in a month of the UTC calendar, over all gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budgets {
    /// Tokens a day.
    pub tokens_day: Option<NonZeroU64>,
    /// Tokens a month.
    pub tokens_month: Option<NonZeroU64>,
    /// Money a day.
    pub cost_day: Option<Money>,
    /// Money a month.
    pub cost_month: Option<Money>,
}

/// One of a key's budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Tokens a day.
    TokensDay,
    /// Tokens a month.
    TokensMonth,
    /// Money a day.
    CostDay,
    /// Money a month.
    CostMonth,
}

impl Budget {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::TokensDay, Self::TokensMonth, Self::CostDay, Self::CostMonth];

    /// Its name in metrics and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokensDay => "tokens-day",
            Self::TokensMonth => "tokens-month",
            Self::CostDay => "cost-day",
            Self::CostMonth => "cost-month",
        }
    }

    /// Whether it is one of money, in billionths, and not of tokens.
    pub fn is_money(self) -> bool {
        matches!(self, Self::CostDay | Self::CostMonth)
    }

    /// What counts for it of `spending`.
    pub fn of(self, spending: &Spending) -> u64 {
        match self {
            Self::TokensDay => spending.daily.tokens,
            Self::TokensMonth => spending.monthly.tokens,
            Self::CostDay => spending.daily.cost,
            Self::CostMonth => spending.monthly.cost,
        }
    }

    /// Seconds from `seconds` of Unix time until it begins anew.
    pub(crate) fn resets(self, seconds: u64) -> u64 {
        let (day, month) = calendar::left(seconds);
        match self {
            Self::TokensDay | Self::CostDay => day,
            Self::TokensMonth | Self::CostMonth => month,
        }
    }
}

impl Budgets {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The limit of one of them, if it is set: tokens, or billionths of money.
    pub fn limit(&self, budget: Budget) -> Option<u64> {
        match budget {
            Budget::TokensDay => self.tokens_day.map(NonZeroU64::get),
            Budget::TokensMonth => self.tokens_month.map(NonZeroU64::get),
            Budget::CostDay => self.cost_day.map(Money::billionths),
            Budget::CostMonth => self.cost_month.map(Money::billionths),
        }
    }
}

/// Why a key's budget admits no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// It is used up.
    Spent(Budget),
    /// Running requests may use the rest of it.
    Expected(Budget),
}

/// What another gateway has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) expected: Amount,
    pub(crate) unsaved: Spending,
}

impl Told {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            expected: self.expected.plus(other.expected),
            unsaved: self.unsaved.plus(other.unsaved),
        }
    }
}

/// What was used of one key's budgets.
#[derive(Debug, Default)]
pub(crate) struct KeyBudget {
    /// The bucket's entry, and its revision; 0 if there is none.
    stored: Entry,
    revision: u64,
    /// Being stored, with this gateway's number for it.
    sending: Option<(u64, Spending)>,
    /// To be stored next.
    unsaved: Spending,
    /// Expected of this gateway's running requests.
    expected: Amount,
}

impl KeyBudget {
    /// Checks the budgets. `others` is the sum of the other gateways. Where nothing is `kept` in a bucket, what they
    /// have used is known from them alone.
    pub(crate) fn check(&self, budgets: &Budgets, others: Told, kept: bool, date: Date) -> Result<(), Exhausted> {
        if budgets.is_none() {
            return Ok(());
        }
        let mut spent = self.spent(date);
        let mut expected = Spending::on(date, self.expected.plus(others.expected));
        let unsaved = others.unsaved.at(date);
        // It may be in the bucket already. Then it counts twice for a moment, which must not be taken for the end.
        let other = if kept { &mut expected } else { &mut spent };
        *other = other.plus(unsaved);
        for budget in Budget::ALL {
            let Some(limit) = budgets.limit(budget) else { continue };
            let spent = budget.of(&spent);
            if spent >= limit {
                return Err(Exhausted::Spent(budget));
            }
            if spent.saturating_add(budget.of(&expected)) >= limit {
                return Err(Exhausted::Expected(budget));
            }
        }
        Ok(())
    }

    /// What was used until now, as far as this gateway knows it without the others' last moments.
    pub(crate) fn spent(&self, date: Date) -> Spending {
        let sending = self.sending.map_or_else(Spending::default, |(_, sending)| sending);
        self.stored.spending.plus(sending).plus(self.unsaved).at(date)
    }

    /// A request runs that will probably use `amount`.
    pub(crate) fn expect(&mut self, amount: Amount) {
        self.expected = self.expected.plus(amount);
    }

    /// A request of which `expected` was expected has used `amount`.
    pub(crate) fn settle(&mut self, expected: Amount, amount: Amount, date: Date) {
        self.expected = self.expected.minus(expected);
        if amount != Amount::default() {
            self.unsaved = self.unsaved.plus(Spending::on(date, amount));
        }
    }

    /// What the others must know.
    pub(crate) fn tell(&self) -> Told {
        let sending = self.sending.map_or_else(Spending::default, |(_, sending)| sending);
        Told {
            expected: self.expected,
            unsaved: sending.plus(self.unsaved),
        }
    }

    /// Whether something waits to be stored.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.sending.is_some() || !self.unsaved.is_none() || self.is_lost()
    }

    /// The bucket has lost what was in it.
    fn is_lost(&self) -> bool {
        self.revision == 0 && !self.stored.spending.is_none()
    }

    /// The entry to write over the revision, and that revision. `seq` numbers it, if it is a new one.
    pub(crate) fn send(&mut self, gateway: &Name, seq: u64) -> Option<(Entry, u64)> {
        if self.sending.is_none() && !self.unsaved.is_none() {
            self.sending = Some((seq, std::mem::take(&mut self.unsaved)));
        }
        match self.sending {
            Some((seq, spending)) => Some((self.stored.with(gateway, seq, spending), self.revision)),
            None if self.is_lost() => Some((self.stored.clone(), 0)),
            None => None,
        }
    }

    /// The bucket has `entry` at `revision`: this gateway wrote it, or reads it.
    pub(crate) fn stored(&mut self, gateway: &Name, entry: Entry, revision: u64) {
        if revision <= self.revision {
            return;
        }
        if self.sending.is_some_and(|(seq, _)| entry.has(gateway, seq)) {
            self.sending = None;
        }
        self.stored = entry;
        self.revision = revision;
    }

    /// Somebody deleted the entry, with this `revision`: its key begins anew.
    pub(crate) fn deleted(&mut self, revision: u64) {
        if revision > self.revision {
            self.stored = Entry::default();
            self.revision = revision;
        }
    }

    /// The bucket is a new one.
    pub(crate) fn forget_revision(&mut self) {
        self.revision = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "key_budget_tests.rs"]
mod tests;
