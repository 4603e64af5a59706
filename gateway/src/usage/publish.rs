//! The loop that publishes usage records, with confirmation if a stream stores them.

use tokenbus_bus::Bus;
use tokenbus_protocol::{UsageRecord, encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::options::UsageStream;
use super::stream_publisher::StreamPublisher;
use crate::metrics::Metrics;

/// Publishes `records` on `subject` until the queue is closed. When `closing` is cancelled, the queued records are
/// still published.
pub(crate) async fn run(
    bus: Bus,
    subject: String,
    records: mpsc::Receiver<UsageRecord>,
    keep: Option<UsageStream>,
    metrics: Metrics,
    closing: CancellationToken,
) {
    match keep {
        Some(stream) => {
            let publisher = StreamPublisher::new(bus, subject, &stream, metrics);
            publisher.run(records, &closing).await;
        }
        None => tell(&bus, &subject, records, &metrics, &closing).await,
    }
}

/// Publishes without confirmation, for any subscriber.
async fn tell(
    bus: &Bus,
    subject: &str,
    mut records: mpsc::Receiver<UsageRecord>,
    metrics: &Metrics,
    closing: &CancellationToken,
) {
    loop {
        let record = tokio::select! {
            biased;
            () = closing.cancelled(), if !records.is_closed() => {
                records.close();
                continue;
            }
            record = records.recv() => record,
        };
        let Some(record) = record else { break };
        let published = match encode(&record) {
            Ok(bytes) => {
                let sent = bus.publish(subject.to_owned(), bytes.into()).await;
                sent.inspect_err(|error| tracing::debug!(id = %record.id, %error, "usage record not published"))
                    .is_ok()
            }
            Err(error) => {
                tracing::error!(id = %record.id, %error, "usage record not encoded");
                false
            }
        };
        metrics.usage_done(published);
    }
    // After the round trip, the server has everything that was published.
    if let Err(error) = bus.round_trip().await {
        tracing::warn!(%error, "the last usage records may be lost");
    }
}
