//! The outboxes of all gateways that this worker talks to. Owned by the worker's loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::metrics::gauge::Gauge;
use tokenbus_protocol::Name;
use tokio::task::JoinHandle;

use crate::limits;
use crate::outbox::Outbox;
use crate::report::load::Load;
use crate::report::metrics::Metrics;

/// Starts the task that sends an outbox's content to a gateway.
pub(crate) type StartSender = Box<dyn Fn(&Name, Arc<Outbox>) -> JoinHandle<()> + Send>;

struct Open {
    outbox: Arc<Outbox>,
    sender: JoinHandle<()>,
    last_used: Instant,
}

/// One outbox for each gateway.
pub(crate) struct Outboxes {
    open: HashMap<Name, Open>,
    start: StartSender,
    bound: usize,
    load: Arc<Load>,
    metrics: Metrics,
}

impl Outboxes {
    /// No outboxes yet; each will hold about `bound` bytes and be sent by a task of `start`.
    pub(crate) fn new(bound: usize, load: Arc<Load>, metrics: Metrics, start: StartSender) -> Self {
        Self {
            open: HashMap::new(),
            start,
            bound,
            load,
            metrics,
        }
    }

    /// The outbox of `gateway`. `None` when there are [`limits::GATEWAYS`] others.
    pub(crate) fn of(&mut self, gateway: &Name, now: Instant) -> Option<Arc<Outbox>> {
        if let Some(open) = self.open.get_mut(gateway) {
            open.last_used = now;
            return Some(Arc::clone(&open.outbox));
        }
        if self.open.len() >= limits::GATEWAYS {
            return None;
        }
        let outbox = Arc::new(Outbox::new(self.bound, Arc::clone(&self.load)));
        let open = Open {
            outbox: Arc::clone(&outbox),
            sender: (self.start)(gateway, Arc::clone(&outbox)),
            last_used: now,
        };
        self.open.insert(gateway.clone(), open);
        self.note();
        Some(outbox)
    }

    /// Closes the outboxes of gateways that have had no stream for a while, and restarts a sender
    /// that ended unasked (a bug: it was logged where it happened; no frame is lost by it).
    pub(crate) fn sweep(&mut self, now: Instant) {
        let start = &self.start;
        self.open.retain(|gateway, open| {
            if open.sender.is_finished() {
                tracing::error!(%gateway, "the sender of an outbox ended and is started again");
                open.sender = start(gateway, Arc::clone(&open.outbox));
                // The frames that wait signalled the old one.
                open.outbox.nudge();
            }
            // Besides this map and the sender, only streams hold an outbox.
            if Arc::strong_count(&open.outbox) > 2 {
                open.last_used = now;
            }
            let idle = now.saturating_duration_since(open.last_used) >= limits::OUTBOX_IDLE;
            let keep = !idle || !open.outbox.is_empty();
            if !keep {
                open.outbox.close();
            }
            keep
        });
        self.note();
    }

    /// The gateways that have an outbox.
    pub(crate) fn gateways(&self) -> Vec<Name> {
        self.open.keys().cloned().collect()
    }

    /// Tells `gateway` with the next batch that so many slots are kept for it.
    pub(crate) fn set_kept(&self, gateway: &Name, slots: u32) {
        if let Some(open) = self.open.get(gateway) {
            open.outbox.set_kept(slots);
        }
    }

    /// No slots are kept any more.
    pub(crate) fn keep_nothing(&self) {
        for open in self.open.values() {
            open.outbox.set_kept(0);
        }
    }

    /// Finds out whether anybody is subscribed as `gateway`: NATS says so if not.
    pub(crate) fn probe(&self, gateway: &Name) {
        if let Some(open) = self.open.get(gateway) {
            open.outbox.probe();
        }
    }

    /// Forgets the outbox of a gateway that is gone; its sender ends when nothing waits any more.
    pub(crate) fn close_one(&mut self, gateway: &Name) {
        if let Some(open) = self.open.remove(gateway) {
            open.outbox.close();
        }
        self.note();
    }

    /// Closes all and returns their senders, which end when everything is sent.
    pub(crate) fn close(&mut self) -> Vec<JoinHandle<()>> {
        let senders = self
            .open
            .drain()
            .map(|(_, open)| {
                open.outbox.close();
                open.sender
            })
            .collect();
        self.note();
        senders
    }

    fn note(&self) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.metrics.gateways, self.open.len());
        set(
            &self.metrics.outbox_bytes,
            self.open.values().map(|open| open.outbox.bytes()).sum(),
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use tokenbus_bus::task;

    use super::*;

    fn outboxes() -> Outboxes {
        let start: StartSender = Box::new(|_, outbox| {
            task::spawn("test-sender", async move {
                let _kept = outbox;
                std::future::pending::<()>().await;
            })
        });
        Outboxes::new(1000, Arc::new(Load::default()), Metrics::default(), start)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_gateway_has_one_outbox_and_loses_it_after_a_while_without_streams() {
        let mut all = outboxes();
        let now = Instant::now();
        let first = all.of(&name("g1"), now).unwrap();
        let again = all.of(&name("g1"), now).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        drop(again);
        all.sweep(now + limits::OUTBOX_IDLE * 2);
        assert_eq!(all.open.len(), 1, "a stream holds it");
        drop(first);
        all.sweep(now + limits::OUTBOX_IDLE * 3 - limits::TICK);
        assert_eq!(all.open.len(), 1, "not long enough");
        all.sweep(now + limits::OUTBOX_IDLE * 3);
        assert_eq!(all.open.len(), 0);
    }

    #[tokio::test]
    async fn invented_gateways_are_bounded() {
        let mut all = outboxes();
        let now = Instant::now();
        for n in 0..limits::GATEWAYS {
            assert!(all.of(&name(&format!("g{n}")), now).is_some());
        }
        assert!(all.of(&name("one-more"), now).is_none());
        assert!(all.of(&name("g0"), now).is_some());
    }

    #[tokio::test]
    async fn a_sender_that_died_is_replaced_and_finds_the_frames() {
        let start: StartSender = Box::new(|_, outbox| {
            task::spawn("test-sender", async move {
                outbox.ready().await;
            })
        });
        let mut all = Outboxes::new(1000, Arc::new(Load::default()), Metrics::default(), start);
        let now = Instant::now();
        let outbox = all.of(&name("g"), now).unwrap();
        let frame = tokenbus_protocol::Frame {
            stream: 1,
            attempt: 0,
            seq: 0,
            body: tokenbus_protocol::Body::Room(tokenbus_protocol::Room::default()),
        };
        outbox.push(&frame, crate::outbox::Press::Stream).unwrap();
        (&mut all.open.get_mut(&name("g")).unwrap().sender).await.unwrap();
        all.sweep(now);
        // The second sender ends only if it is woken for what the first left behind.
        (&mut all.open.get_mut(&name("g")).unwrap().sender).await.unwrap();
        assert!(outbox.take().is_some());
    }
}
