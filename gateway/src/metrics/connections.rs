//! Metrics of what clients may hold of the gateway.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What clients hold.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Open connections.
    pub(crate) open: Gauge,
    /// Most connections that may be open.
    pub(crate) limit: Gauge,
    /// Connections that were refused because there were that many.
    pub(crate) refused: Counter,
    /// Bytes of all request bodies in memory.
    pub(crate) bodies: Gauge,
    /// Requests that were refused because of those.
    pub(crate) bodies_refused: Counter,
}

impl Connections {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections of clients", self.open.clone());
        registry.register(
            "connections_limit",
            "Most connections of clients that may be open at once",
            self.limit.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections refused with 503 because of that limit",
            self.refused.clone(),
        );
        registry.register_with_unit(
            "bodies",
            "Request bodies in memory, as they came and as they are passed on",
            Unit::Bytes,
            self.bodies.clone(),
        );
        registry.register(
            "bodies_refused",
            "Requests refused with 503 because of as many bytes of bodies in memory as may be",
            self.bodies_refused.clone(),
        );
    }
}
