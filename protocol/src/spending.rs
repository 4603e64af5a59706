//! What a key has used in a day and a month, so that its budgets hold across all gateways.

use serde::{Deserialize, Serialize};

use crate::wire::is_default;

/// Something used: tokens, and their price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amount {
    /// Tokens of prompts and answers.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub tokens: u64,
    /// Their price in billionths of the operator's currency.
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    pub cost: u64,
}

impl Amount {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.saturating_add(other.cost),
        }
    }

    /// What is left of it without `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost: self.cost.saturating_sub(other.cost),
        }
    }
}

/// A day and its month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Date {
    /// Days since 1 January 1970.
    #[serde(rename = "d")]
    pub day: u32,
    /// Months since January of the year 0.
    #[serde(rename = "m")]
    pub month: u32,
}

/// What was used in one day, and in its month until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spending {
    /// The latest day on which something was used.
    #[serde(rename = "a", default)]
    pub date: Date,
    /// On that day.
    #[serde(rename = "D", default, skip_serializing_if = "is_default")]
    pub daily: Amount,
    /// In that month.
    #[serde(rename = "M", default, skip_serializing_if = "is_default")]
    pub monthly: Amount,
}

impl Spending {
    /// `amount`, used on `date`.
    pub fn on(date: Date, amount: Amount) -> Self {
        Self {
            date,
            daily: amount,
            monthly: amount,
        }
    }

    /// Whether nothing was used.
    pub fn is_none(&self) -> bool {
        self.monthly == Amount::default()
    }

    /// The sum at the later of the two dates: what was used before its day or its month is over.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let date = self.date.max(other.date);
        let (one, two) = (self.at(date), other.at(date));
        Self {
            date,
            daily: one.daily.plus(two.daily),
            monthly: one.monthly.plus(two.monthly),
        }
    }

    /// What of it counts on `date`. A date ahead of `date` counts as it: the clocks of gateways differ by moments.
    #[must_use]
    pub fn at(self, date: Date) -> Self {
        let current = |there: u32, now: u32, amount| if there >= now { amount } else { Amount::default() };
        Self {
            date: date.max(self.date),
            daily: current(self.date.day, date.day, self.daily),
            monthly: current(self.date.month, date.month, self.monthly),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn date(day: u32, month: u32) -> Date {
        Date { day, month }
    }

    fn tokens(tokens: u64) -> Amount {
        Amount {
            tokens,
            cost: 2 * tokens,
        }
    }

    #[test]
    fn a_day_and_a_month_begin_anew() {
        let (first, next, month) = (date(30, 1), date(31, 1), date(32, 2));
        let used = Spending::on(first, tokens(5)).plus(Spending::on(first, tokens(2)));
        assert_eq!((used.daily, used.monthly), (tokens(7), tokens(7)));
        let used = used.plus(Spending::on(next, tokens(1)));
        assert_eq!((used.date, used.daily, used.monthly), (next, tokens(1), tokens(8)));
        // What comes late counts for its month only, in either order.
        for used in [
            used.plus(Spending::on(first, tokens(3))),
            Spending::on(first, tokens(3)).plus(used),
        ] {
            assert_eq!((used.date, used.daily, used.monthly), (next, tokens(1), tokens(11)));
        }
        assert!(used.at(month).is_none());
        let used = used.plus(Spending::on(month, tokens(4)));
        assert_eq!((used.daily, used.monthly), (tokens(4), tokens(4)));
        // A clock that is behind sees what there is.
        assert_eq!(used.at(next), used);
        assert_eq!(used.plus(Spending::default()), used);
    }
}
