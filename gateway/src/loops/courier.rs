//! The loop that sends messages for which no stream waits.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::shared::Shared;

/// Sends the queued cancels.
pub(crate) async fn run(shared: Arc<Shared>, mut outgoing: mpsc::Receiver<(String, Bytes)>) {
    while let Some((subject, payload)) = outgoing.recv().await {
        if let Err(error) = shared.bus.publish(subject, payload).await {
            tracing::warn!(%error, "cancel not sent");
        }
    }
}
