//! Usage records: one for each request, published when it ends. See docs/limits.md.
//!
//! A request never waits for it: records go through a bounded queue to the loop in `publish.rs` (in
//! `keep.rs`, where a stream keeps them), and those that find it full are counted and gone.

pub mod limits;
mod publish;
mod stream_publisher;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokenbus_protocol::{Name, UsageOutcome, UsageRecord};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use publish::run;

use crate::metrics::{Metrics, Outcome};
use limits::{COMPLAIN, QUEUE};

/// A stream that keeps the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageStream {
    /// Its name. Where there is one of this name, it is used as it is.
    pub name: String,
    /// How long a record is kept.
    pub age: Duration,
    /// Bytes of records that are kept; the oldest go first.
    pub bytes: u64,
}

/// Takes records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage {
    gateway: Name,
    queue: mpsc::Sender<UsageRecord>,
    metrics: Metrics,
    /// When it was last said that records are lost.
    complained: Arc<Mutex<Option<Instant>>>,
}

impl Usage {
    /// Of the gateway `gateway`, and the queue that [`run`] publishes.
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

    /// Whose records these are.
    pub fn gateway(&self) -> &Name {
        &self.gateway
    }

    /// Hands a record over, without waiting.
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
