//! What the NATS client reports beside messages.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::Event;
use tokio::sync::watch;

use crate::link::Link;
use crate::metrics::BusMetrics;
use crate::refusals::{Refusals, Violation};

/// Takes the client's reports, in their order.
pub(crate) struct Events {
    link: Arc<watch::Sender<Link>>,
    metrics: BusMetrics,
    refusals: Arc<watch::Sender<Refusals>>,
    /// The server's last complaint during this connection. It often says why the server then closed it.
    complaint: Mutex<String>,
}

impl Events {
    pub(crate) fn new(
        link: Arc<watch::Sender<Link>>,
        refusals: Arc<watch::Sender<Refusals>>,
        metrics: BusMetrics,
    ) -> Self {
        Self {
            link,
            metrics,
            refusals,
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
                self.server_error(&error.to_string());
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

    fn server_error(&self, error: &str) {
        match Violation::parse(error) {
            Some(violation) => self.refused(violation),
            None => {
                tracing::error!(error, "NATS refused something");
                *self.complaint() = error.to_owned();
            }
        }
    }

    /// Says each refusal once, not each time that it is repeated.
    fn refused(&self, violation: Violation) {
        let (epoch, now) = (self.link.borrow().epoch, Instant::now());
        self.refusals.send_modify(|refusals| {
            if refusals.is_new(&violation) {
                violation.log();
            }
            refusals.add(violation, epoch, now);
        });
    }

    fn complaint(&self) -> std::sync::MutexGuard<'_, String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
