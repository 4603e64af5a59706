//! Streams and buckets in JetStream. Every role makes them here.
//!
//! [`Streams::ensure`] finds a stream or makes it, with as many replicas as the cluster has room for and no larger
//! than the servers can store. If a stream has vanished, it is made again, with a warning and a count. If an
//! existing stream has too few replicas, they are raised; they are never lowered. Otherwise an existing stream
//! keeps its settings.

mod plan;

use futures_util::future::BoxFuture;
use std::time::Duration;

use async_nats::jetstream::context::{
    ContextBuilder, CreateStreamError, CreateStreamErrorKind, KeyValueError, RequestErrorKind,
};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Context, Error as ServerError, ErrorCode, stream};

use crate::connection::Bus;
use crate::limits;
use plan::{Plan, Refusal, Step};

/// A stream as a role wants it.
#[derive(Debug, Clone)]
pub struct WantedStream {
    /// The configuration of a new stream. Its replicas come from the options of the connection.
    pub config: stream::Config,
    /// Whether an existing stream gets `max_age` from here.
    pub same_age: bool,
    /// Whether an existing stream gets `allow_direct` from here. With it any replica answers reads, even one that
    /// lacks the newest writes.
    pub same_reads: bool,
}

impl From<stream::Config> for WantedStream {
    fn from(config: stream::Config) -> Self {
        Self {
            config,
            same_age: false,
            same_reads: false,
        }
    }
}

impl WantedStream {
    /// A key-value bucket named `name`, as NATS clients make them. It keeps one value per key.
    pub fn bucket(name: &str, description: &str) -> Self {
        Self::from(stream::Config {
            name: stream_of(name),
            description: Some(description.to_owned()),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..stream::Config::default()
        })
    }
}

/// Name of the stream behind a bucket.
fn stream_of(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// An existing stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundStream {
    /// Identifies the stream. A stream that was made again under the same name has another mark.
    pub mark: i128,
    /// Messages in it.
    pub messages: u64,
    /// Whether it was made just now.
    pub made: bool,
    /// Its replicas.
    pub replicas: usize,
}

/// Why a stream cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// JetStream did not answer in time: it has no leader, or the servers that have it are away.
    #[error("JetStream does not answer")]
    Silent,
    /// NATS has no JetStream, or not for this user.
    #[error("JetStream is not there: {0}")]
    Absent(String),
    /// No stream has this name.
    #[error("there is no stream {0}")]
    Gone(String),
    /// The servers have no room for it.
    #[error("JetStream has no room for the stream {name}: {reason}")]
    NoRoom {
        /// The stream.
        name: String,
        /// What the server says.
        reason: String,
    },
    /// Something else.
    #[error("the stream {name} cannot be used: {reason}")]
    Refused {
        /// The stream.
        name: String,
        /// What the server says.
        reason: String,
    },
}

/// Makes and finds streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Streams {
    bus: Bus,
    context: Context,
    /// Time limit for one call of [`Streams::ensure`].
    limit: Duration,
}

impl Bus {
    /// Streams and buckets in JetStream. JetStream may take `answer` for each of its answers.
    pub fn streams(&self, answer: Duration) -> Streams {
        let context = ContextBuilder::new().timeout(answer);
        let client = self.client().clone();
        Streams {
            bus: self.clone(),
            context: match self.jetstream_domain() {
                Some(domain) => context.domain(domain).build(client),
                None => context.build(client),
            },
            limit: answer.saturating_mul(limits::STREAM_ANSWERS),
        }
    }
}

// Its methods are no `async fn`s: the code of JetStream is then compiled in this crate and not in each role.
impl Streams {
    /// JetStream itself, for publishing and reading.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Makes sure that the stream exists and has enough replicas.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn ensure<'s>(&'s self, wanted: &'s WantedStream) -> BoxFuture<'s, Result<FoundStream, StreamError>> {
        Box::pin(async move {
            let ensured = tokio::time::timeout(self.limit, self.find_or_make(wanted)).await;
            let found = ensured.unwrap_or(Err(StreamError::Silent))?;
            self.remember(&wanted.config.name, &found);
            Ok(found)
        })
    }

    /// Like [`Streams::ensure`], for a bucket.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn ensure_bucket<'s>(
        &'s self,
        name: &'s str,
        wanted: &'s WantedStream,
    ) -> BoxFuture<'s, Result<(Store, FoundStream), StreamError>> {
        Box::pin(async move {
            let found = self.ensure(wanted).await?;
            let store = tokio::time::timeout(self.limit, self.context.get_key_value(name)).await;
            let store = store.map_err(|_| StreamError::Silent)?;
            let refused = |error: KeyValueError| StreamError::Refused {
                name: wanted.config.name.clone(),
                reason: error.to_string(),
            };
            Ok((store.map_err(refused)?, found))
        })
    }

    /// Looks up the bucket `name` without making it.
    ///
    /// # Errors
    /// [`StreamError`]; [`StreamError::Gone`] when it does not exist.
    pub fn look<'s>(&'s self, name: &'s str) -> BoxFuture<'s, Result<FoundStream, StreamError>> {
        Box::pin(async move { self.info(&stream_of(name)).await.map(|info| found(&info, false)) })
    }

    async fn find_or_make(&self, wanted: &WantedStream) -> Result<FoundStream, StreamError> {
        let name = &wanted.config.name;
        match self.info(name).await {
            Ok(info) => Ok(self.mend(wanted, info).await),
            Err(StreamError::Gone(_)) => match self.make(wanted).await? {
                Some(info) => Ok(found(&info, true)),
                // Another process has made it in the meantime.
                None => Ok(self.mend(wanted, self.info(name).await?).await),
            },
            Err(error) => Err(error),
        }
    }

    async fn info(&self, name: &str) -> Result<stream::Info, StreamError> {
        let asked = self.context.request(format!("STREAM.INFO.{name}"), &()).await;
        match asked {
            Ok(Response::Ok(info)) => Ok(info),
            Ok(Response::Err { error }) => Err(refused(name, &error)),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => StreamError::Absent(error.to_string()),
                RequestErrorKind::TimedOut => StreamError::Silent,
                RequestErrorKind::InvalidSubject | RequestErrorKind::Other => StreamError::Refused {
                    name: name.to_owned(),
                    reason: error.to_string(),
                },
            }),
        }
    }

    /// Makes the stream as large and with as many replicas as possible. Returns `None` when it exists already.
    async fn make(&self, wanted: &WantedStream) -> Result<Option<stream::Info>, StreamError> {
        let name = &wanted.config.name;
        let mut plan = Plan::new(self.bus.replicas(), wanted.config.max_bytes);
        loop {
            let config = stream::Config {
                num_replicas: plan.replicas(),
                max_bytes: plan.bytes(),
                ..wanted.config.clone()
            };
            let error = match self.context.create_stream(config).await {
                Ok(stream) => {
                    let replicas = plan.replicas();
                    tracing::info!(stream = %name, replicas, "stream made");
                    let mut info = stream.cached_info().clone();
                    if plan.bytes() < wanted.config.max_bytes {
                        self.leave_room(&mut info).await;
                        let bytes = info.config.max_bytes;
                        tracing::warn!(stream = %name, bytes, wanted = wanted.config.max_bytes,
                            "the servers have no room for the whole stream: it is made smaller");
                    }
                    return Ok(Some(info));
                }
                Err(error) => error,
            };
            let refusal = match error.kind() {
                CreateStreamErrorKind::JetStream(error) => Refusal::of(error.error_code(), &error.to_string()),
                _ => Refusal::Other,
            };
            match plan.after(refusal) {
                Step::Again => {}
                Step::There => return Ok(None),
                Step::GiveUp if refusal == Refusal::NoRoom => {
                    return Err(StreamError::NoRoom {
                        name: name.clone(),
                        reason: error.to_string(),
                    });
                }
                Step::GiveUp => return Err(not_made(name, &error)),
            }
        }
    }

    /// Gives back half of a new stream's size. It took most of the room that there is, and other streams need some.
    async fn leave_room(&self, info: &mut stream::Info) {
        let half = stream::Config {
            max_bytes: info.config.max_bytes / 2,
            ..info.config.clone()
        };
        match self.context.update_stream(&half).await {
            Ok(updated) => *info = updated,
            Err(error) => tracing::warn!(stream = %info.config.name, %error, "the stream leaves no room for others"),
        }
    }

    /// Applies the wanted settings and raises the replicas. If the server refuses a change, the stream is used as
    /// it is.
    async fn mend(&self, wanted: &WantedStream, info: stream::Info) -> FoundStream {
        let mut found = found(&info, false);
        let name = &info.config.name;
        let mut config = info.config.clone();
        if wanted.same_age {
            config.max_age = wanted.config.max_age;
            config.duplicate_window = config.duplicate_window.min(config.max_age);
        }
        if wanted.same_reads {
            config.allow_direct = wanted.config.allow_direct;
        }
        if config != info.config
            && let Err(error) = self.context.update_stream(&config).await
        {
            tracing::warn!(stream = %name, %error, "the stream keeps settings that are not wanted");
            config = info.config.clone();
        }
        // A single server names no cluster and cannot have more than one replica.
        let clustered = info.cluster.as_ref().is_some_and(|cluster| cluster.name.is_some());
        let replicas = self.bus.replicas().wanted(clustered);
        if config.num_replicas >= replicas {
            self.bus.known_streams().note_short(name, false);
            return found;
        }
        let before = std::mem::replace(&mut config.num_replicas, replicas);
        match self.context.update_stream(&config).await {
            Ok(_) => {
                tracing::info!(stream = %name, before, replicas, "stream has more replicas now");
                found.replicas = replicas;
                self.bus.known_streams().note_short(name, false);
            }
            Err(error) => {
                if !self.bus.known_streams().note_short(name, true) {
                    tracing::warn!(stream = %name, replicas = before, wanted = replicas, %error,
                        "the stream has fewer replicas than wanted, and cannot have more now");
                }
            }
        }
        found
    }

    fn remember(&self, name: &str, found: &FoundStream) {
        if self.bus.known_streams().note_mark(name, found.mark) {
            self.bus.metrics().streams_remade.inc();
            tracing::warn!(
                stream = name,
                "the stream had vanished with all that was in it, and was made again"
            );
        }
    }
}

fn found(info: &stream::Info, made: bool) -> FoundStream {
    FoundStream {
        mark: info.created.unix_timestamp_nanos(),
        messages: info.state.messages,
        made,
        replicas: info.config.num_replicas,
    }
}

fn not_made(name: &str, error: &CreateStreamError) -> StreamError {
    match error.kind() {
        CreateStreamErrorKind::TimedOut => StreamError::Silent,
        CreateStreamErrorKind::JetStreamUnavailable => StreamError::Absent(error.to_string()),
        CreateStreamErrorKind::JetStream(said) => refused(name, &said),
        _ => StreamError::Refused {
            name: name.to_owned(),
            reason: error.to_string(),
        },
    }
}

fn refused(name: &str, error: &ServerError) -> StreamError {
    match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND => StreamError::Gone(name.to_owned()),
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            StreamError::Absent(error.to_string())
        }
        _ => StreamError::Refused {
            name: name.to_owned(),
            reason: error.to_string(),
        },
    }
}
