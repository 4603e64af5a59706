//! Short locks that survive a panic of another holder, and the channel that jobs report on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

/// Locks `mutex`. What our locks guard is consistent at every moment, so a holder that panicked
/// leaves nothing half done; an engine's panic must not stop the other streams.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel for messages of which each job that was admitted sends at most two in its life, so
/// that slots and queue bound what waits in it. Its senders must not wait: they are the engine's
/// threads and destructors.
#[allow(clippy::disallowed_methods)]
pub(crate) fn job_channel<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}
