//! The task that publishes usage records.

use tokenbus_bus::task::{self, AbortOnDrop};
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::usage::{self, Usage, UsageStream};

/// The loop that publishes usage records. It outlives the requests.
pub(super) struct UsageTask {
    closing: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    metrics: Metrics,
}

impl UsageTask {
    /// Starts the loop.
    pub(super) fn start(shared: &Shared, keep: Option<UsageStream>) -> (Usage, Self) {
        let (usage, records) = Usage::new(shared.gateway.clone(), shared.metrics.clone());
        let closing = CancellationToken::new();
        let publishing = usage::run(
            shared.bus.clone(),
            shared.subjects.usage(),
            records,
            keep,
            shared.metrics.clone(),
            closing.clone(),
        );
        let task = task::spawn("usage", publishing);
        let metrics = shared.metrics.clone();
        (usage, Self { closing, task, metrics })
    }

    /// Lets the loop publish the remaining records.
    pub(super) async fn close(self) {
        self.closing.cancel();
        let task = AbortOnDrop::new(self.task);
        if tokio::time::timeout(limits::LAST_RECORDS, task.ended()).await.is_err() {
            let lost = self.metrics.usage_waiting().get();
            tracing::error!(lost, "the last usage records are lost: they were not published in time");
        }
    }
}
