//! What the gateway counts, and the meter that each request carries.

mod families;
mod histogram;
mod keys;
mod labels;
mod meter;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

pub use histogram::Histogram;
pub use keys::Tokens;
pub use labels::{CLIENT_GONE, Outcome};
pub use meter::Meter;

use families::Families;

/// The gateway's metrics; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Families>);

impl Metrics {
    /// Registers everything under the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        self.0.register(registry);
    }

    /// Requests that wait for room; the waiting room sets it.
    pub fn waiting(&self) -> &Gauge {
        &self.0.waiting
    }

    /// Bytes of their bodies; the waiting room sets it.
    pub fn waiting_bytes(&self) -> &Gauge {
        &self.0.waiting_bytes
    }

    /// Publishes of requests; the dispatcher counts.
    pub fn attempts(&self) -> &Counter {
        &self.0.attempts
    }

    /// Publishes beyond the first of a request; the dispatcher counts.
    pub fn republishes(&self) -> &Counter {
        &self.0.republishes
    }

    /// API keys that are known; whoever reads them sets it.
    pub fn keys(&self) -> &Gauge {
        &self.0.keys.known
    }

    /// API keys that vanished without being revoked, and hold for a time; whoever reads them sets it.
    pub fn keys_held(&self) -> &Gauge {
        &self.0.keys.held
    }

    /// Times that the bucket of keys was found wiped.
    pub fn key_losses(&self) -> &Counter {
        &self.0.keys.losses
    }

    /// A request with the API key `key` has ended.
    pub fn key_used(&self, key: &str, tokens: Tokens) {
        self.0.keys.used(key, tokens);
    }

    /// A request was refused because its key's limit of `limit` was reached.
    pub fn key_limited(&self, key: &str, limit: &'static str) {
        self.0.keys.limited(key, limit);
    }

    /// A request was refused because it had no API key or a wrong one.
    pub fn unauthorized(&self, reason: &'static str) {
        self.0.keys.unauthorized(reason);
    }

    /// Settings were read again; `applied` says whether they could be used.
    pub fn reloaded(&self, what: &'static str, applied: bool) {
        self.0.keys.reloaded(what, applied);
    }

    /// How often they were.
    pub fn reloads(&self, what: &'static str, applied: bool) -> u64 {
        self.0.keys.reloads(what, applied)
    }

    /// Usage records that wait to be published, or for their confirmation.
    pub fn usage_waiting(&self) -> &Gauge {
        &self.0.keys.usage_waiting
    }

    /// One of them waits no longer: it was published, or is lost.
    pub fn usage_done(&self, published: bool) {
        self.0.keys.usage_done(published);
    }

    /// Usage records that are lost.
    pub fn usage_dropped(&self) -> &Counter {
        &self.0.keys.usage_dropped
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> i64 {
        self.0.in_flight.get()
    }

    /// Starts measuring a request that arrived at `now`; it counts as in flight until the meter
    /// is dropped.
    pub fn begin(&self, now: Instant) -> Meter {
        Meter::begin(Arc::clone(&self.0), now)
    }
}

#[cfg(test)]
mod tests;
