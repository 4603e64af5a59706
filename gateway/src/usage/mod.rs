//! Usage records: one for each request, published when it ends. See docs/limits.md.
//!
//! A request never waits for it: records go through a bounded queue to the loop in `publish.rs`, and
//! those that find it full are counted and gone.

mod publish;

use std::time::Duration;

use tokenbus_protocol::{Name, UsageOutcome, UsageRecord};
use tokio::sync::mpsc;

pub use publish::run;

use crate::metrics::{Metrics, Outcome};

/// Records that wait to be published: some seconds of a busy gateway, while the bus is away.
const QUEUE: usize = 16 * 1024;

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
}

impl Usage {
    /// Of the gateway `gateway`, and the queue that [`run`] publishes.
    pub fn new(gateway: Name, metrics: Metrics) -> (Self, mpsc::Receiver<UsageRecord>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let usage = Self {
            gateway,
            queue,
            metrics,
        };
        (usage, records)
    }

    /// Whose records these are.
    pub fn gateway(&self) -> &Name {
        &self.gateway
    }

    /// Hands a record over, without waiting.
    pub fn offer(&self, record: UsageRecord) {
        if self.queue.try_send(record).is_err() {
            self.metrics.usage_dropped().inc();
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
