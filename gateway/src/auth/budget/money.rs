//! Amounts of money and the prices of models, pure. The currency is the operator's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokenbus_protocol::Amount;

use crate::metrics::Tokens;

/// Units of [`Money`] in one of the currency.
const BILLION: f64 = 1e9;

/// Most money of one budget or price, in the currency: its billionths still fit.
const MOST: f64 = 1e9;

/// An amount of money in billionths of the currency; more than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Money(u64);

/// The number is no amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an amount of money is more than 0 and at most a billion")]
pub struct MoneyError;

impl Money {
    /// In billionths of the currency.
    pub fn billionths(self) -> u64 {
        self.0
    }
}

impl TryFrom<f64> for Money {
    type Error = MoneyError;

    fn try_from(amount: f64) -> Result<Self, MoneyError> {
        if !(amount > 0.0 && amount <= MOST) {
            return Err(MoneyError);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 1e18
        Ok(Self(((amount * BILLION).round() as u64).max(1)))
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        text.parse::<f64>().map_err(|_| MoneyError)?.try_into()
    }
}

impl From<Money> for f64 {
    fn from(money: Money) -> Self {
        currency(money.0)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        currency(self.0).fmt(f)
    }
}

/// Billionths as a number of the currency.
#[allow(clippy::cast_precision_loss)] // 15 digits are exact
pub(crate) fn currency(billionths: u64) -> f64 {
    billionths as f64 / BILLION
}

/// A price in the currency for a million tokens; 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(try_from = "f64")]
struct PerMillion(f64);

impl TryFrom<f64> for PerMillion {
    type Error = MoneyError;

    fn try_from(price: f64) -> Result<Self, MoneyError> {
        let sound = (0.0..=MOST).contains(&price);
        sound.then_some(Self(price)).ok_or(MoneyError)
    }
}

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    #[serde(default)]
    prompt: PerMillion,
    /// Tokens of a prompt that the engine had in its cache; like the others if absent.
    cached: Option<PerMillion>,
    #[serde(default)]
    completion: PerMillion,
}

impl Price {
    /// What `tokens` cost, and their number. The cost is rounded up.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub(crate) fn of(self, tokens: Tokens) -> Amount {
        let cached = tokens.cached.min(tokens.prompt);
        let parts = [
            (tokens.prompt - cached, self.prompt),
            (cached, self.cached.unwrap_or(self.prompt)),
            (tokens.completion, self.completion),
        ];
        // A millionth of the currency is 1000 billionths. The cast saturates.
        let cost: f64 = parts.iter().map(|(tokens, price)| *tokens as f64 * price.0 * 1e3).sum();
        Amount {
            tokens: tokens.prompt.saturating_add(tokens.completion),
            cost: (cost - 1e-6).ceil() as u64,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_price() {
        let tokens = Tokens {
            prompt: 1000,
            completion: 100,
            cached: 400,
        };
        let price = |text: &str| toml::from_str::<Price>(text).unwrap().of(tokens);
        // 600 · 0.15 + 400 · 0.075 + 100 · 0.6 millionths.
        let all = price("prompt = 0.15\ncached = 0.075\ncompletion = 0.6");
        assert_eq!((all.tokens, all.cost), (1100, 180_000));
        assert_eq!(price("prompt = 1").cost, 1_000_000);
        assert_eq!(price("cached = 0.0\nprompt = 1").cost, 600_000);
        assert_eq!(price("completion = 0.000001").cost, 1, "rounded up");
        assert_eq!(price("").cost, 0);
        for wrong in ["prompt = -1", "prompt = nan", "prompt = 1e10", "price = 1"] {
            toml::from_str::<Price>(wrong).unwrap_err();
        }
    }

    #[test]
    fn money_comes_back_as_it_was_written() {
        for text in ["0.5", "10", "0.000000001", "1000000000"] {
            let money: Money = text.parse().unwrap();
            assert_eq!(money.to_string(), text);
            let json = serde_json::to_string(&money).unwrap();
            assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
        }
        for wrong in ["0", "-1", "nan", "inf", "1e10", "x", ""] {
            assert_eq!(wrong.parse::<Money>(), Err(MoneyError), "{wrong}");
        }
    }
}
