//! One connection to NATS and its state.

mod recheck;
mod silence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, ServerInfo, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::address::{Address, Announced, OptionsError};
use crate::credentials::{Credentials, inbox_prefix};
use crate::dialer::Dialer;
use crate::events::Events;
use crate::known_streams::KnownStreams;
use crate::link::Link;
use crate::metrics::BusMetrics;
use crate::options::BusOptions;
use crate::refusals::Refusals;
use crate::replicas::Replicas;
use crate::rhythm::Rhythm;
use crate::subscription::Subscription;
use crate::task::{self, AbortOnDrop};
use crate::{backoff, handshake, limits, server_version};

/// A cloneable handle to one connection to NATS.
#[derive(Debug, Clone)]
pub struct Bus {
    client: Client,
    link: Arc<watch::Sender<Link>>,
    metrics: BusMetrics,
    /// The last round trip in microseconds; 0 before the first.
    rtt: Arc<AtomicU64>,
    clustered: Arc<AtomicBool>,
    /// Whether the log has said that a server is too old.
    said_old: Arc<AtomicBool>,
    replicas: Replicas,
    jetstream_domain: Option<Arc<str>>,
    known_streams: KnownStreams,
    refusals: Arc<watch::Sender<Refusals>>,
    rhythm: Rhythm,
    /// The task that tries again what NATS refused. It ends with the last handle.
    recheck: Option<Arc<AbortOnDrop<()>>>,
}

/// How servers are dialled: in the user's order, each with its own login, and never with less encryption than its
/// address says. A frozen server costs one time-out before the next is tried.
fn dialling(options: &BusOptions, addresses: Vec<Address>, link: Arc<watch::Sender<Link>>) -> ConnectOptions {
    let announced = Announced::beside(&addresses);
    let dialer = Arc::new(Dialer::new(addresses, options.credentials.clone(), link));
    let chooser = Arc::clone(&dialer);
    let log_in = move |nonce| {
        let dialer = Arc::clone(&dialer);
        async move { dialer.log_in(nonce).await }
    };
    let mut connect = ConnectOptions::with_auth_callback(log_in)
        .name(&options.name)
        .ping_interval(limits::PING_INTERVAL)
        .connection_timeout(limits::CONNECT_TIMEOUT)
        .client_capacity(limits::CLIENT_CAPACITY)
        .subscription_capacity(limits::SUBSCRIPTION_CAPACITY)
        .reconnect_to_server_callback(move |pool, info| {
            let next = chooser.choose(&pool, &info, Instant::now());
            async move { next }
        });
    if let Some(ca) = &options.tls_ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    match announced {
        Announced::Plain => connect,
        Announced::Tls => connect.require_tls(true),
        Announced::Never => connect.ignore_discovered_servers(),
    }
}

/// Why an operation on the bus failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The options are unusable.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The connection could not be set up.
    #[error("cannot connect to NATS: {0}")]
    Connect(#[from] async_nats::ConnectError),
    /// The client refused the subscription: the subject is invalid or the client is closed.
    #[error("cannot subscribe to {subject}: {source}")]
    Subscribe {
        /// The subject.
        subject: String,
        /// Why.
        source: async_nats::SubscribeError,
    },
    /// The client refused the message: the subject is invalid, the message exceeds `max_payload`, or the client is
    /// closed.
    #[error("cannot publish on {subject}: {source}")]
    Publish {
        /// The subject.
        subject: String,
        /// Why.
        source: async_nats::PublishError,
    },
    /// The server did not answer, or the client's queue stayed full, for this long.
    #[error("no answer from NATS within {0:?}")]
    Timeout(Duration),
}

impl Bus {
    /// Starts connecting and returns at once. The client connects and reconnects in the background;
    /// [`Bus::connected`] waits for it.
    ///
    /// # Errors
    /// [`BusError::Options`] for unusable addresses or credentials, [`BusError::Connect`] when the client cannot be
    /// set up.
    // Not an `async fn`: the client's code is then compiled in this crate and not in each role.
    pub fn connect(options: &BusOptions) -> BoxFuture<'_, Result<Self, BusError>> {
        Box::pin(Self::make(options))
    }

    async fn make(options: &BusOptions) -> Result<Self, BusError> {
        let addresses = options.addresses()?;
        for address in addresses.iter().filter(|address| address.is_exposed()) {
            let server = address.server.as_url_str();
            tracing::warn!(
                server,
                "prompts and answers travel to NATS in clear text: use a tls:// address"
            );
        }
        let inbox = match &options.credentials {
            Some(path) => {
                let read = Credentials::read(path).await;
                let read = read.map_err(|source| OptionsError::Credentials {
                    path: path.clone(),
                    source,
                })?;
                Some(inbox_prefix(&read.public_key()))
            }
            None => None,
        };
        let link = Arc::new(watch::Sender::new(Link::default()));
        drop(silence::watch(Arc::clone(&link), options.display_urls()));
        let tls_first = options.tls_first
            || handshake::wants_tls_first(&addresses, |address| {
                let nobody = Arc::new(watch::Sender::new(Link::default()));
                dialling(options, vec![address.clone()], nobody)
            })
            .await;
        let metrics = BusMetrics::default();
        let refusals = Arc::default();
        let events = Arc::new(Events::new(Arc::clone(&link), Arc::clone(&refusals), metrics.clone()));
        let servers: Vec<_> = addresses.iter().map(|address| address.server.clone()).collect();
        let mut connect = dialling(options, addresses, Arc::clone(&link))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                backoff::jittered(attempt, limits::RECONNECT_FIRST, limits::RECONNECT_MAX)
            })
            .event_callback(move |event| {
                events.take(&event);
                async {}
            });
        if tls_first {
            connect = connect.tls_first();
        }
        if let Some(inbox) = inbox {
            connect = connect.custom_inbox_prefix(inbox);
        }
        let client = connect.connect(servers).await?;
        let rtt = Arc::default();
        let mut bus = Self {
            client,
            link,
            metrics,
            rtt,
            clustered: Arc::default(),
            said_old: Arc::default(),
            replicas: options.replicas,
            jetstream_domain: options.jetstream_domain.as_deref().map(Arc::from),
            known_streams: KnownStreams::default(),
            refusals,
            rhythm: Rhythm::of_process(),
            recheck: None,
        };
        let recheck = task::spawn("nats-recheck", recheck::run(bus.clone()));
        bus.recheck = Some(Arc::new(AbortOnDrop::new(recheck)));
        Ok(bus)
    }

    /// The NATS client, for requests and the services protocol.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn replicas(&self) -> Replicas {
        self.replicas
    }

    pub(crate) fn jetstream_domain(&self) -> Option<&str> {
        self.jetstream_domain.as_deref()
    }

    pub(crate) fn known_streams(&self) -> &KnownStreams {
        &self.known_streams
    }

    /// Counters of this connection.
    pub fn metrics(&self) -> &BusMetrics {
        &self.metrics
    }

    /// Watches the state of the connection.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Watches what NATS refuses.
    pub fn refusals(&self) -> watch::Receiver<Refusals> {
        self.refusals.subscribe()
    }

    pub(crate) fn change_refusals(&self, change: impl FnOnce(&mut Refusals)) {
        self.refusals.send_if_modified(|refusals| {
            let old = refusals.clone();
            change(refusals);
            *refusals != old
        });
    }

    /// Whether the connection is up now.
    pub fn is_connected(&self) -> bool {
        self.link.borrow().connected
    }

    /// Whether the server belonged to a cluster at the last [`Bus::round_trip`].
    pub fn is_clustered(&self) -> bool {
        self.clustered.load(Ordering::Relaxed)
    }

    /// Waits until the connection is up.
    pub async fn connected(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.link.subscribe().wait_for(|link| link.connected).await;
    }

    /// Largest message in bytes that the server accepts; NATS's default until the server has reported it.
    pub fn max_payload(&self) -> usize {
        match self.client.max_payload() {
            0 => 1024 * 1024,
            bytes => bytes,
        }
    }

    /// Subscribes to `subject`. The server has the subscription once [`Bus::round_trip`] has returned.
    ///
    /// # Errors
    /// [`BusError::Subscribe`].
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, BusError> {
        let subscribed = self.client.subscribe(subject.clone()).await;
        self.subscription(subject, subscribed)
    }

    /// Subscribes to `subject` as a member of the queue group `group`.
    ///
    /// # Errors
    /// [`BusError::Subscribe`].
    pub async fn queue_subscribe(&self, subject: String, group: &str) -> Result<Subscription, BusError> {
        let subscribed = self.client.queue_subscribe(subject.clone(), group.to_owned()).await;
        self.subscription(subject, subscribed)
    }

    fn subscription(
        &self,
        subject: String,
        subscribed: Result<Subscriber, SubscribeError>,
    ) -> Result<Subscription, BusError> {
        let inner = subscribed.map_err(|source| BusError::Subscribe { subject, source })?;
        Ok(Subscription::new(
            inner,
            limits::SUBSCRIPTION_BYTES,
            self.metrics.clone(),
        ))
    }

    /// Publishes; waits at most `limits::PUBLISH_TIMEOUT` for room in the client's queue. Success does not mean
    /// that the message was delivered: only an answer proves that.
    ///
    /// # Errors
    /// [`BusError::Publish`] or [`BusError::Timeout`]; both are counted.
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<(), BusError> {
        let sent = self.client.publish(subject.clone(), payload);
        self.sent(subject, sent).await
    }

    /// Like [`Bus::publish`], with a reply subject. The server sends "no responders" to it.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_with_reply(&self, subject: String, reply: String, payload: Bytes) -> Result<(), BusError> {
        let sent = self.client.publish_with_reply(subject.clone(), reply, payload);
        self.sent(subject, sent).await
    }

    async fn sent(
        &self,
        subject: String,
        sent: impl Future<Output = Result<(), async_nats::PublishError>>,
    ) -> Result<(), BusError> {
        let result = match tokio::time::timeout(limits::PUBLISH_TIMEOUT, sent).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(source)) => Err(BusError::Publish { subject, source }),
            Err(_) => Err(BusError::Timeout(limits::PUBLISH_TIMEOUT)),
        };
        self.metrics.publish_failures.inc();
        result
    }

    /// Waits until the server has processed everything that this connection sent before. New subscriptions are then
    /// in place, and ended ones gone. (`Client::flush` only empties a buffer.)
    ///
    /// # Errors
    /// [`BusError::Timeout`] after `limits::ROUND_TRIP_TIMEOUT`, or the error of subscribing to or publishing on
    /// the connection's own inbox.
    pub async fn round_trip(&self) -> Result<(), BusError> {
        let from = Instant::now();
        let inbox = self.client.new_inbox();
        let mut echo = self.subscribe(inbox.clone()).await?;
        self.publish(inbox, Bytes::new()).await?;
        let answer = tokio::time::timeout(limits::ROUND_TRIP_TIMEOUT, echo.next()).await;
        let _ = echo.unsubscribe().await;
        match answer {
            Ok(Some(_)) => {
                let micros = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.rtt.store(micros, Ordering::Relaxed);
                // Kept here, because asking the client copies the whole server info.
                let server = self.client.server_info();
                self.clustered.store(server.cluster.is_some(), Ordering::Relaxed);
                if server_version::is_too_old(&server.version) && !self.said_old.swap(true, Ordering::Relaxed) {
                    let ServerInfo {
                        server_name, version, ..
                    } = server;
                    tracing::warn!(server = server_name, version, "{}", server_version::ADVICE);
                }
                Ok(())
            }
            Ok(None) | Err(_) => Err(BusError::Timeout(limits::ROUND_TRIP_TIMEOUT)),
        }
    }

    /// Waits until the server has taken or refused all subscriptions so far, and [`Bus::refusals`] tells which.
    ///
    /// # Errors
    /// As [`Bus::round_trip`].
    pub async fn confirm(&self) -> Result<(), BusError> {
        self.round_trip().await?;
        // The client hands out refusals in a task of its own. What came before the first answer is through when the
        // second is here.
        self.round_trip().await
    }

    /// The common rhythm of all that this process does at regular times.
    pub fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    /// Duration of the last [`Bus::round_trip`]; zero before the first.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt.load(Ordering::Relaxed))
    }
}
