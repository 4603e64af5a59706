//! An entry of the bucket of budgets: what one key has used over all gateways. Pure.

use serde::{Deserialize, Serialize};
use tokenbus_protocol::{Name, Spending};

/// Gateways that an entry remembers.
const WRITERS: usize = 64;

/// What a key has used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// By all gateways.
    #[serde(default)]
    pub(crate) spending: Spending,
    /// The gateways that wrote last, the last one at the end, each with the number of its last amount. By that a
    /// gateway whose write was not confirmed finds out whether it counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    writers: Vec<(Name, u64)>,
}

impl Entry {
    /// The entry after `gateway` has added `spending` as its amount `seq`.
    #[must_use]
    pub(crate) fn with(&self, gateway: &Name, seq: u64, spending: Spending) -> Self {
        let mut writers = self.writers.clone();
        writers.retain(|(name, _)| name != gateway);
        let excess = (writers.len() + 1).saturating_sub(WRITERS);
        writers.drain(..excess);
        writers.push((gateway.clone(), seq));
        Self {
            spending: self.spending.plus(spending),
            writers,
        }
    }

    /// Whether the amount `seq` of `gateway` is in it.
    pub(crate) fn has(&self, gateway: &Name, seq: u64) -> bool {
        self.writers.iter().any(|(name, last)| name == gateway && *last >= seq)
    }
}
