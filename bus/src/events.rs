//! What the NATS client reports beside messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_nats::Event;
use tokio::sync::watch;

use crate::limits;
use crate::link::Link;
use crate::metrics::BusMetrics;
use crate::refusals::{Refusals, Violation};
use crate::task;

/// Takes the client's reports, in their order.
pub(crate) struct Events {
    link: Arc<watch::Sender<Link>>,
    metrics: BusMetrics,
    refusals: Arc<watch::Sender<Refusals>>,
    /// The server's last complaint during this connection. It often says why the server then closed it.
    complaint: Mutex<Complaint>,
    /// Changes with each connection that is made or lost.
    generation: AtomicU64,
}

#[derive(Default)]
struct Complaint {
    text: String,
    /// The last one that was said, and when.
    said: Option<(String, Instant)>,
    /// The last connection ended with a complaint, so the next may too.
    is_likely: bool,
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
            generation: AtomicU64::default(),
        }
    }

    pub(crate) fn take(self: &Arc<Self>, event: &Event) {
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

    /// A server that refuses a login may first take the connection. After such an end, the next connection counts only
    /// once it has lasted a moment.
    fn connected(self: &Arc<Self>) {
        self.metrics.connects.inc();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        if !self.complaint().is_likely {
            self.up();
            return;
        }
        let events = Arc::clone(self);
        drop(task::spawn("nats-probation", async move {
            tokio::time::sleep(limits::PROBATION).await;
            if events.generation.load(Ordering::Acquire) == generation {
                events.complaint().is_likely = false;
                events.up();
            }
        }));
    }

    fn up(&self) {
        self.metrics.connected.set(1);
        self.link.send_modify(|link| {
            *link = Link {
                connected: true,
                epoch: link.epoch + 1,
                connected_at: Some(Instant::now()),
                ..Link::default()
            }
        });
        tracing::info!("connected to NATS");
    }

    fn disconnected(&self, event: &Event) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.metrics.disconnects.inc();
        self.metrics.connected.set(0);
        let complaint = self.end_with_complaint();
        let reason = complaint.unwrap_or_else(|| event.to_string());
        let was_up = self.link.borrow().connected;
        if matches!(event, Event::Closed) {
            tracing::debug!(%event, "connection to NATS"); // our own doing
        } else if was_up {
            tracing::warn!(reason, "connection to NATS lost");
        }
        self.link.send_modify(|link| {
            link.connected = false;
            link.reason = reason;
        });
    }

    /// What the server complained of before it closed the connection.
    fn end_with_complaint(&self) -> Option<String> {
        let mut complaint = self.complaint();
        let text = std::mem::take(&mut complaint.text);
        complaint.is_likely |= !text.is_empty();
        (!text.is_empty()).then_some(text)
    }

    fn server_error(&self, error: &str) {
        match Violation::parse(error) {
            Some(violation) => self.refused(violation),
            None => {
                let (mut complaint, now) = (self.complaint(), Instant::now());
                complaint.text = error.to_owned();
                let said = complaint.said.as_ref();
                if said.is_none_or(|(text, at)| text != error || now >= *at + limits::SAY_AGAIN) {
                    tracing::error!(error, "NATS refused something");
                    complaint.said = Some((error.to_owned(), now));
                }
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

    fn complaint(&self) -> std::sync::MutexGuard<'_, Complaint> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
