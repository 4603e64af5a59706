//! The one way to spawn a task. Each task has a name, and its panic is logged.

use std::future::Future;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Spawns `future` as a task named `name`. A panic is logged with the name and then reaches the [`JoinHandle`], so
/// that an owner that awaits the task sees it too.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let guarded = async move {
        match std::panic::AssertUnwindSafe(future).catch_unwind().await {
            Ok(output) => output,
            Err(panic) => {
                let reason = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                tracing::error!(task = name, reason, "task panicked");
                std::panic::resume_unwind(panic)
            }
        }
    };
    #[allow(clippy::disallowed_methods)] // the one place that the ban points to
    tokio::spawn(guarded.instrument(tracing::debug_span!("task", name)))
}

/// Runs `future` as a task named `name` and returns what it returns. A panic goes on to the caller; the task ends when this
/// is dropped.
///
/// For what a process spends its time in: a wake-up of the future that a runtime was started with costs a system call and
/// an empty turn of the poller, one of a task costs neither.
pub async fn apart<F>(name: &'static str, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut task = AbortOnDrop(spawn(name, future));
    match (&mut task.0).await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the end of the runtime cancels it, and nobody is left to be told.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Aborts its task when dropped.
#[derive(Debug)]
pub struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    /// Ties the task of `handle` to the life of this value.
    pub fn new(handle: JoinHandle<T>) -> Self {
        Self(handle)
    }

    /// Waits for the end of the task, also by a panic.
    pub async fn ended(mut self) {
        // A panic was logged where it happened.
        let _ = (&mut self.0).await;
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
