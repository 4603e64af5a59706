//! What a model's tokens cost, which may differ between its workers; pure.

use serde::Deserialize;
use tokenbus_protocol::Labels;

use crate::auth::budget::Price;
use crate::placement::Selector;

/// A price at the workers with a label.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceAt {
    label: Selector,
    price: Price,
}

/// The prices of one name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Prices {
    any: Option<Price>,
    at: Vec<PriceAt>,
}

impl Prices {
    /// `any` counts for workers of which none of `at` speaks.
    pub(super) fn new(any: Option<Price>, at: Vec<PriceAt>) -> Self {
        Self { any, at }
    }

    /// The price at a worker with these labels: the first that speaks of it.
    pub(super) fn at(&self, labels: &Labels) -> Option<Price> {
        let own = self.at.iter().find(|price| price.label.selects(labels));
        own.map(|own| own.price).or(self.any)
    }
}
