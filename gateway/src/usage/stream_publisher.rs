//! The loop that publishes usage records into a stream, each until the stream confirms it.
//!
//! An unconfirmed record waits again. Before any is retried, the loop looks for the stream and creates it if it is
//! gone. Nothing is given up while the gateway runs; the queue counts what it cannot hold.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{Error as ServerError, ErrorCode, stream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokenbus_bus::{Bus, StreamError, Streams, WantedStream, backoff};
use tokenbus_protocol::{UsageRecord, encode};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::limits::{ANSWER, CHECK, COMPLAIN, CONFIRM, QUEUE, REPEATS, RETRY, UNCONFIRMED};
use super::options::UsageStream;
use crate::metrics::Metrics;

/// An encoded record.
struct EncodedRecord {
    id: String,
    payload: Bytes,
}

/// The result of one publish.
enum PublishResult {
    Stored,
    /// The record must be sent again.
    Retry(EncodedRecord, String),
    /// The stream will never take this record.
    Refused(String),
}

/// Publishes records into a stream.
pub(super) struct StreamPublisher {
    bus: Bus,
    streams: Streams,
    /// Like [`Self::streams`], with the time-out of a confirmation.
    confirmed: Streams,
    wanted: WantedStream,
    subject: String,
    metrics: Metrics,
}

/// Whether publishing works: the failures since the last stored record, and when they were last logged.
#[derive(Default)]
struct Progress {
    ready: bool,
    failures: usize,
    complained: Option<Instant>,
}

type Providing<'a> = Pin<Box<dyn Future<Output = Result<(), StreamError>> + Send + 'a>>;

impl StreamPublisher {
    pub(super) fn new(bus: Bus, subject: String, stream: &UsageStream, metrics: Metrics) -> Self {
        let config = stream::Config {
            name: stream.name.clone(),
            description: Some("Usage records of tokenbus".to_owned()),
            subjects: vec![subject.clone()],
            max_age: stream.age,
            max_bytes: i64::try_from(stream.bytes).unwrap_or(i64::MAX),
            discard: stream::DiscardPolicy::Old,
            duplicate_window: REPEATS.min(stream.age),
            ..stream::Config::default()
        };
        Self {
            streams: bus.streams(ANSWER),
            confirmed: bus.streams(CONFIRM),
            wanted: WantedStream::from(config),
            subject,
            metrics,
            bus,
        }
    }

    /// Publishes `records` until the queue is closed. When `closing` is cancelled, the queued records are still
    /// published.
    pub(super) async fn run(&self, mut records: mpsc::Receiver<UsageRecord>, closing: &CancellationToken) {
        let mut progress = Progress::default();
        let mut under_way = FuturesUnordered::new();
        let mut again = VecDeque::new();
        let mut providing: Option<Providing<'_>> = None;
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !under_way.is_empty() || !again.is_empty() {
            if !progress.ready && providing.is_none() {
                providing = Some(Box::pin(self.provide(progress.failures)));
            }
            while progress.ready && under_way.len() < UNCONFIRMED {
                let Some(record) = again.pop_front() else { break };
                under_way.push(self.publish(record));
            }
            tokio::select! {
                biased;
                () = closing.cancelled(), if !records.is_closed() => records.close(),
                provided = done(&mut providing) => match provided {
                    Ok(()) => progress.ready = true,
                    Err(error) => self.trouble(&mut progress, &error.to_string()),
                },
                Some(sent) = under_way.next() => {
                    if let Some(record) = self.sent(sent, &mut progress) {
                        again.push_back(record);
                    }
                }
                // While the stream is unavailable, records wait in the queue, which is counted.
                record = records.recv(), if open && progress.ready && under_way.len() < UNCONFIRMED => match record {
                    Some(record) => if let Some(record) = self.pack(&record) {
                        under_way.push(self.publish(record));
                    },
                    None => open = false,
                },
                // Nothing reports that a stream was deleted.
                _ = check.tick(), if providing.is_none() => providing = Some(Box::pin(self.provide(0))),
            }
            // The queue is closed, and nothing is left in it.
            open &= !(records.is_closed() && records.is_empty());
        }
    }

    fn pack(&self, record: &UsageRecord) -> Option<EncodedRecord> {
        match encode(record) {
            Ok(bytes) => Some(EncodedRecord {
                id: record.id.to_string(),
                payload: Bytes::from(bytes),
            }),
            Err(error) => {
                tracing::error!(id = %record.id, %error, "usage record not encoded");
                self.metrics.usage_done(false);
                None
            }
        }
    }

    /// Records a publish's result. Returns the record if it must be sent again.
    fn sent(&self, sent: PublishResult, progress: &mut Progress) -> Option<EncodedRecord> {
        match sent {
            PublishResult::Stored => {
                self.metrics.usage_done(true);
                progress.failures = 0;
                if progress.complained.take().is_some() {
                    tracing::info!(stream = self.wanted.config.name, "usage records are stored again");
                }
                None
            }
            PublishResult::Retry(record, reason) => {
                // If many fail at once, the first is enough.
                if progress.ready {
                    self.trouble(progress, &reason);
                }
                Some(record)
            }
            PublishResult::Refused(reason) => {
                self.metrics.usage_done(false);
                tracing::error!(
                    reason,
                    stream = self.wanted.config.name,
                    "a usage record is lost: the stream refuses it"
                );
                None
            }
        }
    }

    fn trouble(&self, progress: &mut Progress, reason: &str) {
        progress.ready = false;
        progress.failures += 1;
        let now = Instant::now();
        let (waiting, stream) = (self.metrics.usage_waiting().get(), &self.wanted.config.name);
        match progress.complained {
            None => tracing::warn!(stream, reason, waiting, "usage records wait for their stream"),
            Some(at) if now < at + COMPLAIN => return,
            Some(_) => tracing::error!(
                stream,
                reason,
                waiting,
                room = QUEUE,
                "usage records still wait for their stream: those that the queue cannot hold are lost"
            ),
        }
        progress.complained = Some(now);
    }

    /// Makes sure that the stream exists, after a pause that grows with the failures.
    async fn provide(&self, failures: usize) -> Result<(), StreamError> {
        if failures > 0 {
            tokio::time::sleep(backoff::jittered(failures, RETRY.0, RETRY.1)).await;
        }
        self.bus.connected().await;
        self.streams.ensure(&self.wanted).await.map(drop)
    }

    async fn publish(&self, record: EncodedRecord) -> PublishResult {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, record.id.as_str());
        let confirmed = async {
            let (subject, payload) = (self.subject.clone(), record.payload.clone());
            let context = self.confirmed.context();
            context.publish_with_headers(subject, headers, payload).await?.await
        };
        match tokio::time::timeout(CONFIRM, confirmed).await {
            Ok(Ok(_)) => PublishResult::Stored,
            Ok(Err(error)) if is_hopeless(&error) => PublishResult::Refused(error.to_string()),
            Ok(Err(error)) => PublishResult::Retry(record, error.to_string()),
            Err(_) => PublishResult::Retry(record, format!("no confirmation within {CONFIRM:?}")),
        }
    }
}

/// Waits for `providing`, and clears it; waits for ever if there is none.
async fn done(providing: &mut Option<Providing<'_>>) -> Result<(), StreamError> {
    let Some(future) = providing else {
        return std::future::pending().await;
    };
    let result = future.await;
    *providing = None;
    result
}

/// Whether the message itself is the cause.
fn is_hopeless(error: &PublishError) -> bool {
    let source = std::error::Error::source(error);
    let code = source.and_then(|source| source.downcast_ref::<ServerError>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || code.is_some_and(|said| said.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}
