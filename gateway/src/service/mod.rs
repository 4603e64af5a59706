//! The gateway as a whole: how it starts, runs and stops.

mod dispatch;
mod options;
mod settings;
mod tasks;
mod usage_task;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_bus::{Bus, BusError};
use tokenbus_protocol::{Name, Subjects};
use tokenbus_telemetry::{Exporting, Role, SpanCounts, Tracer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use options::{GatewayError, Options};

use dispatch::Dispatch;
use options::default_name;
use settings::Settings;
use tasks::Tasks;
use usage_task::{BudgetTask, UsageTask};

use crate::http::connection::server::Ending;
use crate::http::{self, Bodies, Edge};
use crate::limits::LEAVING_WITHOUT_BUS;
use crate::loops::pings::Pings;
use crate::loops::{courier, frames, liveness, news, stories, survey, tell_waiting};
use crate::metrics::Metrics;
use crate::responses_store::{ResponsesStore, SealKeys};
use crate::shared::Shared;
use crate::story::KeptStories;
use crate::stream::event::Event;

/// Runs a gateway on `listener` until `shutdown` is cancelled and its streams have ended, or the grace period is over.
/// From then on `/readyz` fails, and connections are still accepted for the drain delay.
///
/// It listens at once; `/readyz` tells whether NATS is connected.
///
/// # Errors
/// [`GatewayError`].
// Not an `async fn`: the code of all tasks is then compiled in this crate, and not in the one that calls it.
pub fn run(
    options: Options,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), GatewayError>> {
    Box::pin(serve(options, listener, shutdown))
}

async fn serve(options: Options, listener: TcpListener, shutdown: CancellationToken) -> Result<(), GatewayError> {
    let gateway = gateway_id(options.name.as_ref());
    let address = listener.local_addr()?;
    let metrics = Metrics::default();
    let spans = SpanCounts::default();
    let (tracer, exporting) = Tracer::start(Role::Gateway, gateway.as_str(), options.trace_slow, spans.clone())?;
    let settings = Settings::load(&options, &gateway, &metrics).await?;
    let bus = Bus::connect(&options.bus.clone().named(format!("tokenbus gateway {gateway}"))).await?;
    let registry = registry(&metrics, &bus, &spans);
    let (shared, outgoing) = Shared::new(
        bus,
        Subjects::new(options.namespace),
        gateway.clone(),
        metrics.clone(),
        options.waiting,
        options.bus_patience,
    );
    shared.view().set_tier_wait(options.tier_wait);
    let stories = KeptStories::default();
    let mut tasks = start(&shared, outgoing, stories.clone()).await?;
    let (auth, models) = settings.start(&shared, &mut tasks).await?;
    let budget_task = BudgetTask::start(&shared, auth.clone());
    let (usage, usage_task) = UsageTask::start(&shared, options.usage_stream);
    let _announcer = AbortOnDrop::new(task::spawn("announce", announce(Arc::clone(&shared), address)));

    let ending = Ending::new(options.grace);
    let most = (options.http.max_connections, metrics.clone());
    let router = http::router(Edge {
        responses: ResponsesStore::new(shared.bus.clone(), shared.subjects.namespace(), options.responses),
        seals: SealKeys::new(shared.bus.clone(), shared.subjects.namespace(), options.responses),
        bodies: Bodies::new(options.http.body_memory, metrics.clone()),
        core: Dispatch::new(Arc::clone(&shared)),
        options: Arc::new(options.http),
        metrics,
        registry: Arc::new(registry),
        auth,
        models,
        usage,
        stories,
        tracer,
        draining: ending.draining.clone(),
    });
    let stop = async {
        shutdown.cancelled().await;
        let (delay, grace) = (options.drain_delay, options.grace);
        tracing::info!(%gateway, streams = shared.streams.len(), ?delay, ?grace, "gateway stopping");
        ending.draining.cancel();
        unless_deserted(&shared.bus, delay).await;
        ending.closing.cancel();
        unless_deserted(&shared.bus, grace).await;
        shared.streams.broadcast(&Event::ShutDown);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = http::connection::server::serve(listener, router, most, ending.clone()) => Ok(()),
        () = stop => Ok(()),
        ended = tasks.ended() => Err(GatewayError::LoopEnded(ended)),
    };
    tokio::join!(usage_task.close(), budget_task.close(), flush(exporting));
    tasks.end().await;
    // Before the gateway says that it has stopped, NATS answers "no responders" to anyone who sends to it.
    if shared.bus.is_connected()
        && let Err(error) = shared.bus.round_trip().await
    {
        tracing::warn!(%error, "NATS did not confirm the gateway's last messages");
    }
    tracing::info!(%gateway, "gateway stopped");
    ended
}

/// Waits for `time`, or until NATS has been away for so long that it is not coming back: a whole cluster is being
/// stopped, and no stream can end by itself.
async fn unless_deserted(bus: &Bus, time: Duration) {
    let mut link = bus.link();
    let deserted = async {
        loop {
            // The sender lives as long as the bus, so waiting cannot fail.
            let _ = link.wait_for(|link| !link.connected).await;
            let back = async { link.wait_for(|link| link.connected).await.is_ok() };
            if tokio::time::timeout(LEAVING_WITHOUT_BUS, back).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = deserted => tracing::warn!("NATS is away while the gateway stops: its streams end now"),
    }
}

/// The last traces leave before the gateway ends.
async fn flush(exporting: Option<Exporting>) {
    if let Some(exporting) = exporting {
        exporting.close().await;
    }
}

fn registry(metrics: &Metrics, bus: &Bus, spans: &SpanCounts) -> Registry {
    let mut registry = Registry::with_prefix("tokenbus_gateway");
    metrics.register(&mut registry);
    bus.metrics().register(&mut registry);
    spans.register(&mut registry);
    registry
}

async fn start(
    shared: &Arc<Shared>,
    outgoing: tokio::sync::mpsc::Receiver<(String, bytes::Bytes)>,
    kept: KeptStories,
) -> Result<Tasks, BusError> {
    let (bus, subjects) = (&shared.bus, &shared.subjects);
    let pings = Arc::new(Pings::default());
    let out = bus.subscribe(subjects.out_all(&shared.gateway)).await?;
    let capacity = bus.subscribe(subjects.capacity()).await?;
    let free = bus.subscribe(subjects.free_all()).await?;
    let events = bus.subscribe(subjects.event()).await?;
    let questions = bus.subscribe(subjects.trace()).await?;
    let deadly = bus.subscribe(subjects.deadly()).await?;
    let mut tasks = Tasks::default();
    let share = || Arc::clone(shared);
    tasks.add("frames", frames::run(share(), out, Arc::clone(&pings)));
    tasks.add("capacity", news::capacity(share(), capacity));
    tasks.add("free hints", news::free(share(), free));
    tasks.add("events", news::events(share(), events));
    tasks.add("deadly requests", news::deadly(share(), deadly));
    tasks.add("liveness", liveness::run(share(), pings));
    tasks.add("courier", courier::run(share(), outgoing));
    tasks.add("stories", stories::run(share(), kept, questions));
    tasks.add("survey", survey::run(share()));
    tasks.add("waiting told", tell_waiting::run(share()));
    Ok(tasks)
}

/// Logs once that the gateway is ready: NATS is connected and has taken the subscriptions.
async fn announce(shared: Arc<Shared>, address: std::net::SocketAddr) {
    loop {
        shared.bus.connected().await;
        match shared.bus.confirm().await {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "subscriptions not confirmed yet"),
        }
    }
    let mut refusals = shared.bus.refusals();
    // The sender lives as long as `shared`, so waiting cannot fail.
    let _ = refusals.wait_for(|refusals| shared.deaf_to(refusals).is_none()).await;
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
