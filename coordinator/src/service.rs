//! Assembles a coordinator and runs it.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokenbus_bus::Bus;
use tokenbus_protocol::{Name, Subjects};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::http::Page;
use crate::leader::{Leader, Leadership};
use crate::lease::LeaseKeeper;
use crate::limits::{OUTBOUND, SHUTDOWN, STATUS_PERIOD};
use crate::metrics::{self, Metrics, WorkerTotals};
use crate::options::{CoordinatorError, Options};
use crate::scaling::command::Scaler;
use crate::watcher::{self, Watcher, WatcherChannels};
use crate::{http, outbound};

/// Runs a coordinator until `shutdown` is cancelled, with its status page on `listener`. Logs one line, `coordinator
/// ready`, once NATS has confirmed its subscriptions. Dropping the future ends it like a crash: it gives nothing
/// back, and another coordinator takes over when the lease has expired.
///
/// # Errors
/// [`CoordinatorError`] when it cannot start, or when one of its loops ends by itself.
// Not an `async fn`: the code of all tasks is then compiled in this crate, and not in the one that calls it.
pub fn run(
    options: Options,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), CoordinatorError>> {
    Box::pin(serve(options, listener, shutdown))
}

async fn serve(options: Options, listener: TcpListener, shutdown: CancellationToken) -> Result<(), CoordinatorError> {
    if options.lost_after <= STATUS_PERIOD {
        return Err(CoordinatorError::LostAfter(options.lost_after));
    }
    let address = listener.local_addr()?;
    let me = id(&options);
    let bus = Bus::connect(&options.bus.clone().named(format!("tokenbus coordinator {me}"))).await?;
    let stop = CancellationToken::new();
    let (confirmed, subscribed) = watch::channel(false);
    let mut loops = assemble(&options, &me, &bus, listener, subscribed, &stop).await?;

    let confirm = async {
        while bus.confirm().await.is_err() {
            bus.connected().await;
        }
        // The sender lives as long as `bus`, so waiting cannot fail.
        let mut refusals = bus.refusals();
        let _ = refusals
            .wait_for(|refusals| refusals.subscriptions().next().is_none())
            .await;
        confirmed.send_replace(true);
        tracing::info!(%address, coordinator = %me, nats = options.bus.display_urls(), "coordinator ready");
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        () = confirm => None,
        ended = loops.next_ended() => Some(ended),
    };
    stop.cancel();
    let _ = tokio::time::timeout(SHUTDOWN + SHUTDOWN, loops.all_ended()).await;
    if let Some(name) = ended {
        return Err(CoordinatorError::Ended(name));
    }
    // The last messages must reach the server before the connection closes.
    if bus.is_connected() {
        let _ = tokio::time::timeout(SHUTDOWN, bus.round_trip()).await;
    }
    tracing::info!(coordinator = %me, "coordinator stopped");
    Ok(())
}

/// The id from the options, or a random one.
fn id(options: &Options) -> Name {
    options
        .id
        .clone()
        .unwrap_or_else(|| Name::sanitized(&format!("c-{:08x}", fastrand::u32(..)), &options.namespace))
}

/// Subscribes and starts all loops.
async fn assemble(
    options: &Options,
    me: &Name,
    bus: &Bus,
    listener: TcpListener,
    subscribed: watch::Receiver<bool>,
    stop: &CancellationToken,
) -> Result<Loops, CoordinatorError> {
    let subjects = Subjects::new(options.namespace.clone());
    let statuses = bus.subscribe(subjects.status_all()).await?;
    let questions = bus.subscribe(subjects.capacity_get()).await?;
    let beats = bus.subscribe(subjects.coordinator_all()).await?;

    let metrics = Metrics::default();
    let (newest, snapshots) = watch::channel(watcher::nothing(me));
    let (totals, told_totals) = watch::channel(WorkerTotals::default());
    let (leadership, led) = watch::channel(Leadership::unknown(Instant::now()));
    let (wanted, wants) = watch::channel(None);
    let (out, messages) = mpsc::channel(OUTBOUND);
    let (keeper, lease) = LeaseKeeper::new(bus.clone(), &options.namespace, me, wants);
    let scaler = options.scaler.clone().map(|program| Scaler {
        program,
        rules: options.rules.clone(),
        newest: snapshots.clone(),
        leadership: led.clone(),
    });
    let page = Page {
        bus: bus.clone(),
        subscribed,
        leadership: led.clone(),
        newest: snapshots.clone(),
        metrics: Arc::new(metrics::registry(&metrics, bus.metrics(), snapshots, told_totals)),
    };
    let leader = Leader {
        me: me.clone(),
        bus: bus.clone(),
        subjects: subjects.clone(),
        beats,
        wanted,
        lease,
        leadership,
    };
    let channels = WatcherChannels {
        statuses,
        questions,
        leadership: led,
        out,
        newest,
        totals,
    };
    let watcher = Watcher::new(me.clone(), bus.clone(), subjects.clone(), options, metrics, &channels);

    let mut loops = Loops(JoinSet::new());
    loops.spawn(
        "status page",
        http::run(page, options.page.clone(), listener, stop.clone()),
    );
    loops.spawn("watcher", watcher.run(channels, stop.clone()));
    loops.spawn("election", leader.run(stop.clone()));
    loops.spawn("lease keeper", keeper.run());
    if let Some(scaler) = scaler {
        loops.spawn("scaler", scaler.run(stop.clone()));
    }
    loops.spawn("publisher", outbound::run(bus.clone(), subjects, messages));
    Ok(loops)
}

/// The loops of one coordinator; dropping this aborts them.
struct Loops(JoinSet<&'static str>);

impl Loops {
    fn spawn(&mut self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let guarded = async move {
            let task = tokenbus_bus::task::spawn(name, run);
            let _abort = AbortHandle(task.abort_handle());
            // A panic was logged with its name; only the end matters here.
            let _ = task.await;
            name
        };
        self.0.spawn(guarded.in_current_span());
    }

    /// The name of the next loop that ends.
    async fn next_ended(&mut self) -> &'static str {
        match self.0.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_)) | None => "loops",
        }
    }

    async fn all_ended(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// Aborts its task when dropped.
struct AbortHandle(tokio::task::AbortHandle);

impl Drop for AbortHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}
