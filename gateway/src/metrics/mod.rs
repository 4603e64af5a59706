//! The gateway's metrics, and the meter of each request.

mod connections;
mod families;
mod histogram;
mod keys;
mod labels;
mod meter;
mod pace;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

pub(crate) use keys::Tokens;
pub(crate) use labels::{CLIENT_GONE, Class, Outcome};
use labels::{CauseLabel, DeadlyLabel, PlacementLabel};
pub(crate) use meter::Meter;
pub(crate) use pace::Pace;

use connections::Connections;
use families::Families;

/// The gateway's metrics; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Families>);

impl Metrics {
    /// Registers all metrics under the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        self.0.register(registry);
    }

    /// Requests that wait for a free slot, all classes together.
    pub fn waiting(&self) -> i64 {
        self.0.waiting.iter().map(Gauge::get).sum()
    }

    /// Requests of this class that wait for a free slot. The waiting room sets it.
    pub(crate) fn waiting_of(&self, class: Class) -> Option<&Gauge> {
        self.0.waiting.get(class as usize)
    }

    /// Bytes of the bodies of waiting requests. The waiting room sets it.
    pub fn waiting_bytes(&self) -> &Gauge {
        &self.0.waiting_bytes
    }

    /// The clients' connections. The server sets them.
    pub(crate) fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// Publishes of requests. The stream's driver counts them.
    pub fn attempts(&self) -> &Counter {
        &self.0.attempts
    }

    /// Publishes after a request's first. The stream's driver counts them.
    pub fn republishes(&self) -> &Counter {
        &self.0.republishes
    }

    /// Counts a request that moved to another worker, for this cause.
    pub fn moved(&self, cause: &'static str) {
        self.0.failovers.get_or_create(&CauseLabel { cause }).inc();
    }

    /// Counts a request that was sent to a chosen worker, for this reason.
    pub fn placed(&self, reason: &'static str) {
        self.0.placements.get_or_create(&PlacementLabel { reason }).inc();
    }

    /// Counts a request of which engines died, `here` or where another gateway saw it.
    pub fn deadly(&self, here: bool) {
        let seen = if here { "here" } else { "elsewhere" };
        self.0.deadly.get_or_create(&DeadlyLabel { seen }).inc();
    }

    /// Sets how many cuts of prompts are known to be held, and the bytes that this knowledge takes.
    pub fn prefixes(&self, cuts: usize, bytes: usize) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.prefix_cuts.set(gauge(cuts));
        self.0.prefix_bytes.set(gauge(bytes));
    }

    /// Known API keys. Whoever loads them sets it.
    pub fn keys(&self) -> &Gauge {
        &self.0.keys.known
    }

    /// API keys that vanished without being revoked and are still valid for a while. Whoever loads them sets it.
    pub fn keys_held(&self) -> &Gauge {
        &self.0.keys.held
    }

    /// Times that the key bucket was found wiped.
    pub fn key_losses(&self) -> &Counter {
        &self.0.keys.losses
    }

    /// Counts a request with the API key `key` that has ended.
    pub fn key_used(&self, key: &str, tokens: Tokens) {
        self.0.keys.used(key, tokens);
    }

    /// Counts a request that was refused by its key's limit named `limit`.
    pub fn key_limited(&self, key: &str, limit: &'static str) {
        self.0.keys.limited(key, limit);
    }

    /// Counts a request without an API key or with a wrong one.
    pub fn unauthorized(&self, reason: &'static str) {
        self.0.keys.unauthorized(reason);
    }

    /// Counts a reload of settings; `applied` says whether they were valid.
    pub fn reloaded(&self, what: &'static str, applied: bool) {
        self.0.keys.reloaded(what, applied);
    }

    /// The number of reloads.
    #[cfg(any(test, feature = "testing"))]
    pub fn reloads(&self, what: &'static str, applied: bool) -> u64 {
        self.0.keys.reloads(what, applied)
    }

    /// Shows the budgets of keys: key, budget, limit and what was used.
    pub fn budgets<'a>(&self, budgets: impl Iterator<Item = (&'a str, &'static str, f64, f64)>) {
        self.0.keys.budgets(budgets);
    }

    /// Shows of how many keys something waits to be written to the bucket of budgets.
    pub fn budget_writes_waiting(&self, keys: usize) {
        self.0.keys.budget_writes.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// Usage records that wait to be published or confirmed.
    pub fn usage_waiting(&self) -> &Gauge {
        &self.0.keys.usage_waiting
    }

    /// Counts a usage record that no longer waits: it was published, or it is lost.
    pub fn usage_done(&self, published: bool) {
        self.0.keys.usage_done(published);
    }

    /// Lost usage records.
    pub fn usage_dropped(&self) -> &Counter {
        &self.0.keys.usage_dropped
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> i64 {
        self.0.in_flight.get()
    }

    /// Starts to measure a request that arrived at `now`. It counts as in flight until the meter is dropped.
    pub fn begin(&self, now: Instant) -> Meter {
        Meter::begin(Arc::clone(&self.0), now)
    }
}

#[cfg(test)]
mod tests;
