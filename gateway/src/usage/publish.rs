//! The loop that publishes usage records, with confirmation if a stream stores them.

use tokenbus_bus::Bus;
use tokenbus_protocol::{UsageRecord, encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::limits::GATHER;
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

/// Publishes without confirmation, for any subscriber. Records that end within [`GATHER`] travel together.
async fn tell(
    bus: &Bus,
    subject: &str,
    mut records: mpsc::Receiver<UsageRecord>,
    metrics: &Metrics,
    closing: &CancellationToken,
) {
    loop {
        let first = tokio::select! {
            biased;
            () = closing.cancelled(), if !records.is_closed() => {
                records.close();
                continue;
            }
            record = records.recv() => record,
        };
        let Some(first) = first else { break };
        tokio::select! {
            () = closing.cancelled() => {}
            () = tokio::time::sleep(GATHER) => {}
        }
        metrics.usage_done(publish(bus, subject, &first).await);
        while let Ok(record) = records.try_recv() {
            metrics.usage_done(publish(bus, subject, &record).await);
        }
    }
    // After the round trip, the server has everything that was published.
    if let Err(error) = bus.round_trip().await {
        tracing::warn!(%error, "the last usage records may be lost");
    }
}

/// Publishes one record; false if it was not.
async fn publish(bus: &Bus, subject: &str, record: &UsageRecord) -> bool {
    match encode(record) {
        Ok(bytes) => {
            let sent = bus.publish(subject.to_owned(), bytes.into()).await;
            sent.inspect_err(|error| tracing::debug!(id = %record.id, %error, "usage record not published"))
                .is_ok()
        }
        Err(error) => {
            tracing::error!(id = %record.id, %error, "usage record not encoded");
            false
        }
    }
}
