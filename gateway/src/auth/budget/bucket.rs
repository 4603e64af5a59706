//! The bucket that has what keys have used of their budgets, over all gateways.

use std::collections::HashMap;

use async_nats::jetstream::kv::{self, Operation};
use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, StreamError, WantedStream};
use tokenbus_protocol::{Date, Name, Spending, Subjects};
use tokio::time::timeout;

use super::calendar;
pub(crate) use super::entry::Entry as Stored;
use super::key_budget::Budget;
use crate::auth::limits::{BUDGET_ANSWER, BUDGET_KEEP};
use tokenbus_bus::clock::unix_seconds;

pub(crate) fn wanted(bucket: &str) -> WantedStream {
    let mut wanted = WantedStream::bucket(bucket, "What API keys of tokenbus have used of their budgets");
    wanted.config.max_age = BUDGET_KEEP;
    // A replica that lags behind would not know of what was used last.
    wanted.config.allow_direct = false;
    wanted.same_reads = true;
    wanted
}

/// An entry as the bucket has it: `None` if somebody deleted it.
pub(crate) fn read(entry: &kv::Entry) -> Result<Option<Stored>, serde_json::Error> {
    match entry.operation {
        Operation::Put => serde_json::from_slice(&entry.value).map(Some),
        Operation::Delete | Operation::Purge => Ok(None),
    }
}

/// What was used of the budgets of all keys.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    keys: HashMap<String, Spending>,
    today: Date,
}

impl Spent {
    /// What was used of a budget of `key` until now: tokens, or billionths of money.
    pub fn of(&self, key: &str, budget: Budget) -> u64 {
        let spending = self.keys.get(key).copied().unwrap_or_default();
        budget.of(&spending.at(self.today))
    }
}

/// Reads what was used of all budgets. Without a bucket, nothing was.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub async fn spent(bus: &Bus, namespace: &Name) -> Result<Spent, String> {
    let name = Subjects::new(namespace.clone()).budgets_bucket();
    let streams = bus.streams(BUDGET_ANSWER);
    let found = match streams.look(&name).await {
        Ok(found) => found,
        Err(StreamError::Gone(_)) => return Ok(Spent::default()),
        Err(error) => return Err(error.to_string()),
    };
    let mut spent = Spent {
        today: calendar::date(unix_seconds()),
        ..Spent::default()
    };
    if found.messages == 0 {
        return Ok(spent);
    }
    let store = streams.context().get_key_value(&name).await;
    let store = store.map_err(|error| error.to_string())?;
    let watch = store.watch_with_history(">").await;
    let mut watch = watch.map_err(|error| error.to_string())?;
    loop {
        let next = timeout(BUDGET_ANSWER, watch.next()).await;
        let Some(entry) = next.map_err(|_| "the bucket does not answer".to_owned())? else {
            return Ok(spent);
        };
        let entry = entry.map_err(|error| error.to_string())?;
        if let Ok(Some(read)) = read(&entry) {
            spent.keys.insert(entry.key, read.spending);
        }
        if entry.seen_current {
            return Ok(spent);
        }
    }
}
