//! The tasks that publish usage records, and write what keys have used of their budgets.

use tokenbus_bus::task::{self, AbortOnDrop};
use tokio_util::sync::CancellationToken;

use crate::auth::limits::BUDGET_LAST;
use crate::auth::{self, Auth};
use crate::limits;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::usage::{self, Usage, UsageStream};

/// The loop that writes what keys have used of their budgets. It outlives the requests.
pub(super) struct BudgetTask {
    closing: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl BudgetTask {
    /// Starts the loop.
    pub(super) fn start(shared: &Shared, auth: Auth) -> Self {
        let closing = CancellationToken::new();
        let bucket = shared.subjects.budgets_bucket();
        let keeping = auth::keep_budgets(auth, shared.bus.clone(), bucket, closing.clone());
        let task = task::spawn("budgets", keeping);
        Self { closing, task }
    }

    /// Lets the loop write the rest.
    pub(super) async fn close(self) {
        self.closing.cancel();
        let task = AbortOnDrop::new(self.task);
        if tokio::time::timeout(BUDGET_LAST, task.ended()).await.is_err() {
            tracing::error!("what keys used of their budgets last is lost: it was not written in time");
        }
    }
}

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
