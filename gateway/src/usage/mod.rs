//! Usage records: one for each request, published when it ends. See docs/limits.md.
//!
//! No request waits for its record. Records go through a bounded queue to the loop in `publish.rs`
//! (`stream_publisher.rs`, if a stream stores them). If the queue is full, a record is counted and dropped.

pub(crate) mod limits;
mod options;
mod publish;
mod stream_publisher;

use std::sync::{Arc, Mutex, PoisonError};

use tokenbus_protocol::{Name, UsageOutcome, UsageRecord};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use options::UsageStream;
pub(crate) use publish::run;

use crate::metrics::{Metrics, Outcome};
use limits::{COMPLAIN, QUEUE};

/// Accepts records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage {
    gateway: Name,
    queue: mpsc::Sender<UsageRecord>,
    metrics: Metrics,
    /// When the loss of records was last logged.
    complained: Arc<Mutex<Option<Instant>>>,
}

impl Usage {
    /// For the gateway `gateway`; also returns the queue that [`run`] publishes.
    pub fn new(gateway: Name, metrics: Metrics) -> (Self, mpsc::Receiver<UsageRecord>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let usage = Self {
            gateway,
            queue,
            metrics,
            complained: Arc::default(),
        };
        (usage, records)
    }

    /// The gateway whose records these are.
    pub fn gateway(&self) -> &Name {
        &self.gateway
    }

    /// Queues a record without waiting.
    pub fn offer(&self, record: UsageRecord) {
        self.metrics.usage_waiting().inc();
        if self.queue.try_send(record).is_err() {
            self.metrics.usage_done(false);
            self.complain();
        }
    }

    fn complain(&self) {
        let now = Instant::now();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| now >= at + COMPLAIN) {
            *complained = Some(now);
            let lost = self.metrics.usage_dropped().get();
            tracing::error!(
                lost,
                room = QUEUE,
                "usage records are lost: too many wait to be published"
            );
        }
    }
}

impl From<Outcome> for UsageOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Rejected => Self::Rejected,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::RequestKind;

    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_too_much_is_counted() {
        let metrics = Metrics::default();
        let (usage, mut queue) = Usage::new(Name::new("g").unwrap(), metrics.clone());
        let record = UsageRecord {
            id: uuid::Uuid::nil(),
            request: "r".into(),
            gateway: usage.gateway().clone(),
            worker: None,
            tier: 0,
            key: None,
            tenant: None,
            kind: RequestKind::Chat,
            model: "m".into(),
            served: None,
            prompt_tokens: 1,
            completion_tokens: 1,
            cached_tokens: 0,
            estimated: false,
            cost: 0,
            outcome: UsageOutcome::Succeeded,
            status: 200,
            ttft_ms: None,
            duration_ms: 1,
            at_ms: 1,
        };
        for _ in 0..QUEUE + 3 {
            usage.offer(record.clone());
        }
        assert_eq!(metrics.usage_dropped().get(), 3);
        assert_eq!(usize::try_from(metrics.usage_waiting().get()).unwrap(), QUEUE);
        assert!(usage.complained.lock().unwrap().is_some(), "the log says so");
        queue.try_recv().unwrap();
        usage.offer(record);
        assert_eq!(metrics.usage_dropped().get(), 3, "there is room again");
    }
}
