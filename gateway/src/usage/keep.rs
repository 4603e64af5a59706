//! The loop that publishes usage records into a stream, each until the stream has confirmed it.
//!
//! A record that is not confirmed goes back to those that wait; before any is tried again, the
//! stream is looked for, and made where it is gone. Nothing is given up while the gateway runs: what
//! does not fit into the queue is counted there.

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

use super::UsageStream;
use super::limits::{ANSWER, CHECK, COMPLAIN, CONFIRM, QUEUE, REPEATS, RETRY, UNCONFIRMED};
use crate::metrics::Metrics;

/// A record as it travels.
struct Parcel {
    id: String,
    payload: Bytes,
}

/// What became of one publish.
enum Sent {
    Kept,
    /// It is to be tried again.
    Back(Parcel, String),
    /// No stream of this kind takes it.
    Never(String),
}

/// Puts records into a stream.
pub(super) struct Keeper {
    bus: Bus,
    streams: Streams,
    /// As [`Self::streams`], with the time for a confirmation.
    confirmed: Streams,
    wanted: WantedStream,
    subject: String,
    metrics: Metrics,
}

/// How it goes: how often it failed since a record was last kept, and what was said of it.
#[derive(Default)]
struct Course {
    ready: bool,
    failures: usize,
    complained: Option<Instant>,
}

type Providing<'a> = Pin<Box<dyn Future<Output = Result<(), StreamError>> + Send + 'a>>;

impl Keeper {
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

    /// Publishes `records` until there can be no more: once `closing` is cancelled, those that are
    /// there are still published.
    pub(super) async fn run(&self, mut records: mpsc::Receiver<UsageRecord>, closing: &CancellationToken) {
        let mut course = Course::default();
        let mut under_way = FuturesUnordered::new();
        let mut again = VecDeque::new();
        let mut providing: Option<Providing<'_>> = None;
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !under_way.is_empty() || !again.is_empty() {
            if !course.ready && providing.is_none() {
                providing = Some(Box::pin(self.provide(course.failures)));
            }
            while course.ready && under_way.len() < UNCONFIRMED {
                let Some(parcel) = again.pop_front() else { break };
                under_way.push(self.publish(parcel));
            }
            tokio::select! {
                biased;
                () = closing.cancelled(), if !records.is_closed() => records.close(),
                provided = done(&mut providing) => match provided {
                    Ok(()) => course.ready = true,
                    Err(error) => self.trouble(&mut course, &error.to_string()),
                },
                Some(sent) = under_way.next() => {
                    if let Some(parcel) = self.sent(sent, &mut course) {
                        again.push_back(parcel);
                    }
                }
                // While it is in trouble, records wait where they are counted.
                record = records.recv(), if open && course.ready && under_way.len() < UNCONFIRMED => match record {
                    Some(record) => if let Some(parcel) = self.pack(&record) {
                        under_way.push(self.publish(parcel));
                    },
                    None => open = false,
                },
                // Nobody tells of a stream that is deleted.
                _ = check.tick(), if providing.is_none() => providing = Some(Box::pin(self.provide(0))),
            }
            // Those that came while it was in trouble, all told.
            open &= !(records.is_closed() && records.is_empty());
        }
    }

    fn pack(&self, record: &UsageRecord) -> Option<Parcel> {
        match encode(record) {
            Ok(bytes) => Some(Parcel {
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

    /// Takes note of what became of a record; returns one that is to be tried again.
    fn sent(&self, sent: Sent, course: &mut Course) -> Option<Parcel> {
        match sent {
            Sent::Kept => {
                self.metrics.usage_done(true);
                course.failures = 0;
                if course.complained.take().is_some() {
                    tracing::info!(stream = self.wanted.config.name, "usage records are kept again");
                }
                None
            }
            Sent::Back(parcel, reason) => {
                // Of many that fail at once, the first is enough.
                if course.ready {
                    self.trouble(course, &reason);
                }
                Some(parcel)
            }
            Sent::Never(reason) => {
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

    fn trouble(&self, course: &mut Course, reason: &str) {
        course.ready = false;
        course.failures += 1;
        let now = Instant::now();
        let (waiting, stream) = (self.metrics.usage_waiting().get(), &self.wanted.config.name);
        match course.complained {
            None => tracing::warn!(stream, reason, waiting, "usage records wait for their stream"),
            Some(at) if now < at + COMPLAIN => return,
            Some(_) => tracing::error!(
                stream,
                reason,
                waiting,
                room = QUEUE,
                "usage records still wait for their stream: what goes beyond the room is lost"
            ),
        }
        course.complained = Some(now);
    }

    /// Sees to it that the stream is there, after a pause that grows with the failures.
    async fn provide(&self, failures: usize) -> Result<(), StreamError> {
        if failures > 0 {
            tokio::time::sleep(backoff::jittered(failures, RETRY.0, RETRY.1)).await;
        }
        self.bus.connected().await;
        self.streams.ensure(&self.wanted).await.map(drop)
    }

    async fn publish(&self, parcel: Parcel) -> Sent {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, parcel.id.as_str());
        let confirmed = async {
            let (subject, payload) = (self.subject.clone(), parcel.payload.clone());
            let context = self.confirmed.context();
            context.publish_with_headers(subject, headers, payload).await?.await
        };
        match tokio::time::timeout(CONFIRM, confirmed).await {
            Ok(Ok(_)) => Sent::Kept,
            Ok(Err(error)) if is_hopeless(&error) => Sent::Never(error.to_string()),
            Ok(Err(error)) => Sent::Back(parcel, error.to_string()),
            Err(_) => Sent::Back(parcel, format!("no confirmation within {CONFIRM:?}")),
        }
    }
}

/// What `providing` comes to, which is then no more; never, where there is none.
async fn done(providing: &mut Option<Providing<'_>>) -> Result<(), StreamError> {
    let Some(future) = providing else {
        return std::future::pending().await;
    };
    let result = future.await;
    *providing = None;
    result
}

/// Whether the message itself is at fault.
fn is_hopeless(error: &PublishError) -> bool {
    let source = std::error::Error::source(error);
    let code = source.and_then(|source| source.downcast_ref::<ServerError>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || code.is_some_and(|said| said.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}
