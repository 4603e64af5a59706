//! Small messages beside the frames: control replies. The loop drops them here and goes on; a task of its own waits for
//! NATS.

use bytes::Bytes;
use serde::Serialize;
use tokenbus_bus::Bus;
use tokio::sync::mpsc;

use crate::limits;
use crate::report::metrics::Metrics;

/// One message to publish.
pub(crate) struct Letter {
    /// Where to.
    pub(crate) subject: String,
    /// The encoded message.
    pub(crate) payload: Bytes,
}

/// Takes messages without waiting.
#[derive(Clone)]
pub(crate) struct Post {
    letters: mpsc::Sender<Letter>,
    metrics: Metrics,
}

impl Post {
    /// A post of [`limits::POST_QUEUE`] messages, and where they come out.
    pub(crate) fn new(metrics: Metrics) -> (Self, mpsc::Receiver<Letter>) {
        let (letters, out) = mpsc::channel(limits::POST_QUEUE);
        (Self { letters, metrics }, out)
    }

    /// Queues `message` for `subject`. When the queue is full it is dropped and counted: who asked for a reply asks
    /// again.
    pub(crate) fn send<T: Serialize>(&self, subject: String, message: &T) {
        let payload = match tokenbus_protocol::encode(message) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(%error, subject, "a message cannot be encoded");
                return;
            }
        };
        if self.letters.try_send(Letter { subject, payload }).is_err() {
            self.metrics.unsent_answers.inc();
        }
    }
}

/// Publishes what comes out of the post until it is closed.
pub(crate) async fn deliver(bus: Bus, mut letters: mpsc::Receiver<Letter>, metrics: Metrics) {
    while let Some(Letter { subject, payload }) = letters.recv().await {
        if let Err(error) = bus.publish(subject.clone(), payload).await {
            metrics.unsent_answers.inc();
            tracing::debug!(%error, subject, "a message was not sent");
        }
    }
}
