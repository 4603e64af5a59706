//! The loop that publishes usage records; into a stream with confirmation, where one is wanted.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{ContextBuilder, CreateStreamError};
use async_nats::jetstream::{Context, stream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokenbus_bus::{Bus, backoff};
use tokenbus_protocol::{UsageRecord, encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::UsageStream;
use crate::metrics::Metrics;

/// Time that JetStream has to confirm one record.
const CONFIRM: Duration = Duration::from_secs(5);

/// How often one record is tried. The stream knows its id, so none is kept twice.
const ATTEMPTS: usize = 3;

/// First and longest pause before another try.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Records that wait for their confirmation at once.
const UNCONFIRMED: usize = 256;

/// Time within which the stream knows a record that comes again.
const REPEATS: Duration = Duration::from_secs(120);

/// Publishes `records` on `subject` until there can be no more: once `closing` is cancelled, those
/// that are there are still published.
pub async fn run(
    bus: Bus,
    subject: String,
    mut records: mpsc::Receiver<UsageRecord>,
    keep: Option<UsageStream>,
    metrics: Metrics,
    closing: CancellationToken,
) {
    let publisher = Publisher {
        context: ContextBuilder::new().timeout(CONFIRM).build(bus.client().clone()),
        bus,
        subject,
        confirmed: keep.is_some(),
    };
    if let Some(stream) = keep {
        tokio::select! {
            () = publisher.provide(&stream) => {}
            () = closing.cancelled() => {}
        }
    }
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            biased;
            () = closing.cancelled(), if !records.is_closed() => records.close(),
            Some(done) = under_way.next() => {
                let counter = if done { metrics.usage_published() } else { metrics.usage_dropped() };
                counter.inc();
            }
            record = records.recv(), if open && under_way.len() < UNCONFIRMED => match record {
                Some(record) => under_way.push(publisher.publish(record)),
                None => open = false,
            },
        }
    }
    // What was published is now with the server.
    if let Err(error) = publisher.bus.round_trip().await {
        tracing::warn!(%error, "the last usage records may be lost");
    }
}

struct Publisher {
    bus: Bus,
    context: Context,
    subject: String,
    confirmed: bool,
}

impl Publisher {
    /// Whether the record is published.
    async fn publish(&self, record: UsageRecord) -> bool {
        let payload = match encode(&record) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(id = %record.id, %error, "usage record not encoded");
                return false;
            }
        };
        if !self.confirmed {
            let sent = self.bus.publish(self.subject.clone(), payload).await;
            return sent
                .inspect_err(|error| tracing::debug!(id = %record.id, %error, "usage record not published"))
                .is_ok();
        }
        let id = record.id.to_string();
        for attempt in 1..=ATTEMPTS {
            match self.confirm(&id, payload.clone()).await {
                Ok(()) => return true,
                Err(reason) if attempt == ATTEMPTS => {
                    tracing::warn!(id, reason, "usage record was not kept");
                }
                Err(_) => tokio::time::sleep(backoff::jittered(attempt, RETRY.0, RETRY.1)).await,
            }
        }
        false
    }

    async fn confirm(&self, id: &str, payload: Bytes) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let confirmed = async {
            let publish = self
                .context
                .publish_with_headers(self.subject.clone(), headers, payload);
            publish.await?.await
        };
        match tokio::time::timeout(CONFIRM, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {CONFIRM:?}")),
        }
    }

    /// Sees to it that the stream is there. Until it is, records wait in their queue.
    async fn provide(&self, wanted: &UsageStream) {
        let mut failures = 0;
        loop {
            self.bus.connected().await;
            let Err(error) = self.try_provide(wanted).await else {
                return;
            };
            failures += 1;
            if failures == 1 {
                tracing::warn!(stream = wanted.name, %error, "usage records wait for their stream");
            }
            tokio::time::sleep(backoff::jittered(failures, RETRY.0, RETRY.1)).await;
        }
    }

    async fn try_provide(&self, wanted: &UsageStream) -> Result<(), CreateStreamError> {
        if self.context.get_stream(&wanted.name).await.is_ok() {
            return Ok(());
        }
        let config = stream::Config {
            name: wanted.name.clone(),
            description: Some("Usage records of tokenbus".to_owned()),
            subjects: vec![self.subject.clone()],
            max_age: wanted.age,
            max_bytes: i64::try_from(wanted.bytes).unwrap_or(i64::MAX),
            discard: stream::DiscardPolicy::Old,
            duplicate_window: REPEATS.min(wanted.age),
            ..stream::Config::default()
        };
        self.context.create_stream(config).await.map(drop)
    }
}
