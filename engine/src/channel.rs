//! The channel that jobs report on.

use tokio::sync::mpsc;

/// A channel for messages of which each job that was admitted sends at most two in its life, so
/// that slots and queue bound what waits in it. Its senders must not wait: they are the engine's
/// threads and destructors.
#[allow(clippy::disallowed_methods)]
pub fn job_channel<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}
