//! The gateway as a whole: its options, what it starts, and how it stops.

mod dispatch;
mod settings;

use std::future::Future;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_bus::{Bus, BusError, BusOptions};
use tokenbus_protocol::{Name, Subjects};
use tokio::net::TcpListener;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use dispatch::Dispatch;
use settings::{Accounts, Policy};

use crate::auth::source::KeySource;
use crate::auth::source::file::FileError;
use crate::http::connection::server::Ending;
use crate::http::{self, Edge, HttpOptions};
use crate::limits;
use crate::loops::frames::{self as feed, Pings};
use crate::metrics::Metrics;
use crate::model_config::{ModelFile, ModelFileError};
use crate::responses_store::{ResponsesOptions, ResponsesStore};
use crate::shared::Shared;
use crate::stream::event::Event;
use crate::usage::UsageStream;
use crate::waiting_room::Bounds;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach NATS.
    pub bus: BusOptions,
    /// The cluster's namespace.
    pub namespace: Name,
    /// First part of the gateway's id; a random part is added, so that an id is never used twice.
    pub name: Option<Name>,
    /// The HTTP side.
    pub http: HttpOptions,
    /// Responses that are kept for their conversations.
    pub responses: ResponsesOptions,
    /// Time that a request which no worker has taken waits for NATS while that is away.
    pub bus_patience: Duration,
    /// Requests that may wait for room, and bytes of their bodies, all models together.
    pub waiting: Bounds,
    /// Time for which it goes on serving, with `/readyz` failing, after the stop was asked for, so
    /// that load balancers notice before connections are refused.
    pub drain_delay: Duration,
    /// Time that running streams have from then on.
    pub grace: Duration,
    /// Where the API keys are that it asks for; it asks for none without.
    pub keys: Option<KeySource>,
    /// Aliases, fallbacks and defaults of models.
    pub models: Option<ModelFile>,
    /// A stream that keeps usage records.
    pub usage_stream: Option<UsageStream>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bus: BusOptions::default(),
            namespace: default_name("tb"),
            name: None,
            http: HttpOptions::default(),
            responses: ResponsesOptions::default(),
            bus_patience: limits::BUS_PATIENCE,
            waiting: Bounds {
                requests: limits::WAITING,
                bytes: limits::WAITING_BYTES,
            },
            // Without a load balancer there is nobody to notice.
            drain_delay: Duration::ZERO,
            grace: crate::http::limits::GRACE,
            keys: None,
            models: None,
            usage_stream: None,
        }
    }
}

/// Why a gateway stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The listener failed.
    #[error("cannot serve HTTP: {0}")]
    Http(#[from] std::io::Error),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// The configuration of models cannot be used.
    #[error(transparent)]
    Models(#[from] ModelFileError),
    /// One of the gateway's loops ended, which none does while it runs.
    #[error("the loop that reads {0} ended")]
    LoopEnded(&'static str),
}

/// Runs a gateway on `listener` until `shutdown` completes and its streams have ended, or the grace
/// period is over. In between, `/readyz` fails first, and connections are accepted for the drain delay.
///
/// It listens at once; `/readyz` tells whether NATS is there.
///
/// # Errors
/// [`GatewayError`].
pub async fn run(
    options: Options,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), GatewayError> {
    let gateway = gateway_id(options.name.as_ref());
    let address = listener.local_addr()?;
    let metrics = Metrics::default();
    let policy = Policy::load(&options, &gateway, &metrics).await?;
    let bus = Bus::connect(&options.bus.clone().named(format!("tokenbus gateway {gateway}"))).await?;
    let registry = registry(&metrics, &bus);
    let subjects = Subjects::new(options.namespace);
    let (shared, outgoing) = Shared::new(
        bus,
        subjects,
        gateway.clone(),
        metrics.clone(),
        options.waiting,
        options.bus_patience,
    );
    let mut loops = start(&shared, outgoing).await?;
    let (auth, models) = policy.start(&shared, &mut loops).await?;
    let (usage, accounts) = Accounts::open(&shared, options.usage_stream);
    let _announcer = AbortOnDrop::new(task::spawn("announce", announce(Arc::clone(&shared), address)));

    let ending = Ending {
        draining: CancellationToken::new(),
        closing: CancellationToken::new(),
        grace: options.grace,
    };
    let responses = ResponsesStore::new(shared.bus.clone(), shared.subjects.namespace(), options.responses);
    let router = http::router(Edge {
        responses,
        core: Dispatch::new(Arc::clone(&shared)),
        options: Arc::new(options.http),
        metrics,
        registry: Arc::new(registry),
        auth,
        models,
        usage,
        draining: ending.draining.clone(),
    });
    let stop = async {
        shutdown.await;
        let (delay, grace) = (options.drain_delay, options.grace);
        tracing::info!(%gateway, streams = shared.streams.len(), ?delay, ?grace, "gateway stopping");
        ending.draining.cancel();
        tokio::time::sleep(delay).await;
        ending.closing.cancel();
        tokio::time::sleep(grace).await;
        shared.streams.broadcast(&Event::ShutDown);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = http::connection::server::serve(listener, router, ending.clone()) => Ok(()),
        () = stop => Ok(()),
        ended = loops.ended() => Err(GatewayError::LoopEnded(ended)),
    };
    accounts.close().await;
    loops.end().await;
    // Whoever still sends to this gateway hears that nobody is there, from before it says that it has stopped.
    if shared.bus.is_connected()
        && let Err(error) = shared.bus.round_trip().await
    {
        tracing::warn!(%error, "NATS did not confirm the gateway's last messages");
    }
    tracing::info!(%gateway, "gateway stopped");
    ended
}

fn registry(metrics: &Metrics, bus: &Bus) -> Registry {
    let mut registry = Registry::with_prefix("tokenbus_gateway");
    metrics.register(&mut registry);
    bus.metrics().register(&mut registry);
    registry
}

/// The loops of a gateway; they stop when this is dropped.
pub(crate) struct Loops(Vec<(&'static str, tokio::task::JoinHandle<()>)>);

impl Loops {
    /// Starts another one.
    pub(crate) fn add(&mut self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, task::spawn(name, future)));
    }

    /// Waits until one of them ends: none does by itself.
    async fn ended(&mut self) -> &'static str {
        let (_, index, _) = futures_util::future::select_all(self.0.iter_mut().map(|(_, handle)| handle)).await;
        self.0.remove(index).0
    }

    /// Stops all of them, and with them their subscriptions.
    async fn end(&mut self) {
        for (_, handle) in &self.0 {
            handle.abort();
        }
        for (_, handle) in self.0.drain(..) {
            // A panic was logged where it happened.
            let _ = handle.await;
        }
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for (_, handle) in &self.0 {
            handle.abort();
        }
    }
}

async fn start(
    shared: &Arc<Shared>,
    outgoing: tokio::sync::mpsc::Receiver<(String, bytes::Bytes)>,
) -> Result<Loops, BusError> {
    let (bus, subjects) = (&shared.bus, &shared.subjects);
    let pings = Arc::new(Pings::default());
    let out = bus.subscribe(subjects.out_all(&shared.gateway)).await?;
    let capacity = bus.subscribe(subjects.capacity()).await?;
    let free = bus.subscribe(subjects.free_all()).await?;
    let events = bus.subscribe(subjects.event()).await?;
    let mut loops = Loops(Vec::new());
    let share = || Arc::clone(shared);
    loops.add("frames", feed::frames(share(), out, Arc::clone(&pings)));
    loops.add("capacity", feed::capacity(share(), capacity));
    loops.add("free hints", feed::free(share(), free));
    loops.add("events", feed::events(share(), events));
    loops.add("liveness", feed::liveness(share(), pings));
    loops.add("courier", feed::courier(share(), outgoing));
    loops.add("survey", crate::loops::survey::run(share()));
    loops.add("waiting told", crate::loops::tell_waiting::run(share()));
    Ok(loops)
}

/// Says once that the gateway is ready: when the bus is there and knows its subscriptions.
async fn announce(shared: Arc<Shared>, address: std::net::SocketAddr) {
    loop {
        shared.bus.connected().await;
        match shared.bus.round_trip().await {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "subscriptions not confirmed yet"),
        }
    }
    tracing::info!(
        gateway = %shared.gateway,
        %address,
        url = format!("http://{address}/v1"),
        namespace = %shared.subjects.namespace(),
        "gateway ready"
    );
}

fn gateway_id(name: Option<&Name>) -> Name {
    let random = fastrand::u64(..);
    let prefix = name.map_or("gw", Name::as_str);
    Name::sanitized(
        &format!("{}-{random:016x}", prefix.get(..40).unwrap_or(prefix)),
        &default_name("gw"),
    )
}

/// A name that is known to be one.
fn default_name(text: &'static str) -> Name {
    #[allow(clippy::expect_used)] // a literal of this file
    Name::new(text).expect("a literal name")
}
