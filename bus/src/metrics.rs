//! Counters of one bus connection.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one bus connection; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct BusMetrics {
    /// 1 while connected.
    pub connected: Gauge,
    /// Connections made, including the first.
    pub connects: Counter,
    /// Connections lost.
    pub disconnects: Counter,
    /// The client's reports that a subscription dropped messages.
    pub slow_consumers: Counter,
    /// Errors that the server reported, for example a forbidden subject.
    pub server_errors: Counter,
    /// Publishes that failed or timed out.
    pub publish_failures: Counter,
    /// Messages that could not be decoded.
    pub malformed: Counter,
    /// Streams and buckets that had vanished and were made again.
    pub streams_remade: Counter,
}

impl BusMetrics {
    /// Registers all of them as `nats_*` under the prefix of the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("nats_connected", "1 while connected to NATS", self.connected.clone());
        registry.register("nats_connects", "Connections made to NATS", self.connects.clone());
        registry.register("nats_disconnects", "Connections to NATS lost", self.disconnects.clone());
        registry.register(
            "nats_slow_consumers",
            "Reports that a subscription dropped messages",
            self.slow_consumers.clone(),
        );
        registry.register(
            "nats_server_errors",
            "Errors reported by the NATS server",
            self.server_errors.clone(),
        );
        registry.register(
            "nats_publish_failures",
            "Publishes that failed or timed out",
            self.publish_failures.clone(),
        );
        registry.register(
            "nats_malformed",
            "Messages that could not be decoded",
            self.malformed.clone(),
        );
        registry.register(
            "nats_streams_remade",
            "Streams and buckets that had vanished and were made again, by any process",
            self.streams_remade.clone(),
        );
    }
}
