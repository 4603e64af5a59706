//! What the NATS client reports beside messages.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::Event;
use tokio::sync::watch;

use crate::link::Link;
use crate::metrics::BusMetrics;

/// Takes the client's reports, in their order.
pub(crate) struct Events {
    link: Arc<watch::Sender<Link>>,
    metrics: BusMetrics,
    /// The server's last complaint during this connection. It often says why the server then closed it.
    complaint: Mutex<String>,
}

impl Events {
    pub(crate) fn new(link: Arc<watch::Sender<Link>>, metrics: BusMetrics) -> Self {
        Self {
            link,
            metrics,
            complaint: Mutex::default(),
        }
    }

    pub(crate) fn take(&self, event: &Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected | Event::Closed => self.disconnected(event),
            Event::SlowConsumer(_) => {
                self.metrics.slow_consumers.inc();
                tracing::warn!(%event, "messages from NATS were dropped: this process cannot keep up");
            }
            Event::ServerError(error) => {
                self.metrics.server_errors.inc();
                tracing::error!(%error, "NATS refused something");
                *self.complaint() = error.to_string();
            }
            // The dialer says why a server could not be reached.
            Event::ClientError(_) => tracing::debug!(%event, "NATS client"),
            Event::LameDuckMode | Event::Draining => tracing::info!(%event, "NATS"),
        }
    }

    fn connected(&self) {
        self.metrics.connects.inc();
        self.metrics.connected.set(1);
        self.complaint().clear();
        self.link.send_modify(|link| {
            *link = Link {
                connected: true,
                epoch: link.epoch + 1,
                reason: String::new(),
                connected_at: Some(Instant::now()),
            }
        });
        tracing::info!("connected to NATS");
    }

    fn disconnected(&self, event: &Event) {
        self.metrics.disconnects.inc();
        self.metrics.connected.set(0);
        let complaint = std::mem::take(&mut *self.complaint());
        let reason = if complaint.is_empty() {
            event.to_string()
        } else {
            complaint
        };
        if matches!(event, Event::Closed) {
            tracing::debug!(%event, "connection to NATS"); // our own doing
        } else {
            tracing::warn!(reason, "connection to NATS lost");
        }
        self.link.send_modify(|link| {
            link.connected = false;
            link.reason = reason;
        });
    }

    fn complaint(&self) -> std::sync::MutexGuard<'_, String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
