//! `tokenbus up`: from nothing to a cluster that answers, until it is asked to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::ArgAction;
use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, BusError, Subscription};
use tokenbus_protocol::{Capacity, ModelCapacity, Subjects, decode};
use tokenbus_worker::engine::{Engine, EngineInfo, Health};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::engine::{EngineArgs, Provided};
use super::first_answer;
use super::nats::NatsServer;
use super::provision::Provisioner;
use super::roles::Roles;
use crate::access::{self, AccessArgs};
use crate::chat::api::{Api, ApiError};
use crate::failure::Failure;
use crate::listen::Listen;
use crate::shared::{BusArgs, KeptArgs, Shared};
use crate::ui::Screen;
use crate::{limits, signals};

/// Start a whole cluster on this machine, ask it a question, and keep it running
///
/// What is missing is installed first, into a cache folder: nats-server, llama.cpp and a small model.
/// Then a nats-server, a coordinator, a gateway and a worker with the llama engine run in and below this
/// one process until Ctrl-C or SIGTERM.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bus: BusArgs,

    #[command(flatten)]
    kept: KeptArgs,

    /// Address of the OpenAI-compatible endpoint
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: Listen,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    engine: EngineArgs,

    /// The first question
    #[arg(long, value_name = "TEXT", default_value = "What is gravity?")]
    prompt: String,

    /// Ask no question
    #[arg(long, action = ArgAction::SetTrue)]
    no_prompt: bool,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let screen = Screen::stderr();
    let told = screen.clone();
    let shutdown = signals::shutdown_and(move || {
        told.line(format_args!(
            "stopping: running answers have {} s to end; a second Ctrl-C ends it at once",
            limits::UP_GRACE.as_secs()
        ));
    })?;
    args.access.check(&args.listen).await?;
    // First, so that a taken port is said before anything is downloaded.
    let listener = args.listen.bind().await?;
    let provided = tokio::select! {
        provided = provide(&args, &screen) => provided?,
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let folder = cluster_folder(&args, &listener)?;
    let logs = folder.path.join("logs");
    let engine = args.engine.start(provided.engine, logs).await?;
    // The engine loads its model while the bus starts.
    let nats = match provided.nats_server {
        None => Ok(None),
        Some(program) => tokio::select! {
            server = NatsServer::start(program, folder.path.clone(), screen.clone()) => server.map(Some),
            () = shutdown.cancelled() => Ok(None),
        },
    };
    let nats = match nats {
        Ok(nats) => nats,
        Err(error) => {
            engine.stop().await;
            return Err(error.into());
        }
    };
    let mut bus = args.bus.clone();
    if let Some(server) = &nats {
        let (url, key) = (server.url(), server.credentials());
        screen.line(format_args!(
            "nats-server: runs at {url}, for others with --nats-creds {}",
            key.display()
        ));
        bus.nats_creds = Some(key.to_owned());
        bus.nats = vec![url];
    }
    let up = Up {
        shared: bus.shared("tokenbus up").keeping(&args.kept),
        args,
        config,
        screen,
        started,
    };
    let outcome = up.serve(listener, engine, &shutdown).await;
    // The bus goes last: until then the roles finish and tell each other.
    if let Some(server) = nats {
        server.stop().await;
    }
    outcome
}

/// All that has to be on this machine.
struct Parts {
    nats_server: Option<PathBuf>,
    engine: Provided,
}

async fn provide(args: &Args, screen: &Screen) -> Result<Parts, Failure> {
    let provisioner = Provisioner::from_env(screen.clone())?;
    let nats_server = async {
        if args.bus.nats.is_empty() {
            provisioner.nats_server().await.map(Some)
        } else {
            Ok(None)
        }
    };
    let (nats_server, engine) = tokio::try_join!(
        async { nats_server.await.map_err(Failure::from) },
        args.engine.provide(&provisioner, screen),
    )?;
    Ok(Parts { nats_server, engine })
}

/// Where a cluster keeps what is its own.
struct ClusterFolder {
    path: PathBuf,
    /// Removed at the end; for a cluster on a port that the system chose, which has no next start.
    _temporary: Option<tempfile::TempDir>,
}

fn cluster_folder(args: &Args, listener: &TcpListener) -> Result<ClusterFolder, Failure> {
    if args.listen.lets_the_system_choose() {
        let temporary = tempfile::Builder::new().prefix("tokenbus-up-").tempdir()?;
        return Ok(ClusterFolder {
            path: temporary.path().to_owned(),
            _temporary: Some(temporary),
        });
    }
    let cache = super::cache::Cache::from_env(|name| std::env::var_os(name))?;
    let name = format!("{}-{}", args.bus.namespace, listener.local_addr()?.port());
    Ok(ClusterFolder {
        path: cache.root().join("clusters").join(name),
        _temporary: None,
    })
}

/// A cluster whose parts are all at hand.
struct Up {
    args: Args,
    config: Option<PathBuf>,
    shared: Shared,
    screen: Screen,
    started: Instant,
}

impl Up {
    /// Runs the roles until they are asked to stop, or one of them ends.
    async fn serve(
        &self,
        listener: TcpListener,
        engine: Arc<dyn Engine>,
        shutdown: &CancellationToken,
    ) -> Result<ExitCode, Failure> {
        let address = match &self.args.access.published {
            Some(published) => published.to_string(),
            None => listener.local_addr()?.to_string(),
        };
        let local = format!("http://{}/v1", listener.local_addr()?);
        let status_page = TcpListener::bind("127.0.0.1:0").await?;
        let health = engine.info();
        let mut roles = Roles::default();
        self.start(&mut roles, listener, status_page, engine);
        let greet = async {
            self.greet(&local, &format!("http://{address}/v1"), health).await;
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            ended = roles.ended() => Err(ended.into()),
            () = shutdown.cancelled() => Ok(ExitCode::SUCCESS),
            () = greet => Ok(ExitCode::SUCCESS),
        };
        roles.stop().await;
        outcome
    }

    /// Starts the roles, in the order in which they will be stopped.
    fn start(&self, roles: &mut Roles, listener: TcpListener, status_page: TcpListener, engine: Arc<dyn Engine>) {
        let (bus, namespace) = (self.shared.bus.clone(), self.shared.namespace.clone());
        let mut gateway = tokenbus_gateway::Options {
            bus: bus.clone(),
            namespace: namespace.clone(),
            grace: limits::UP_GRACE,
            ..tokenbus_gateway::Options::default()
        };
        self.args.access.clone().apply(&mut gateway, self.config.as_deref());
        roles.start("gateway", |stop| async move {
            let running = tokenbus_gateway::run(gateway, listener, stop);
            running.await.map_err(access::failure)
        });
        let worker = tokenbus_worker::Options {
            grace: limits::UP_GRACE,
            ..tokenbus_worker::Options::new(bus.clone(), namespace.clone())
        };
        roles.start("worker", |stop| async move {
            Ok(tokenbus_worker::run(worker, engine, stop).await?)
        });
        let coordinator = tokenbus_coordinator::Options::new(bus, namespace);
        roles.start("coordinator", |stop| async move {
            Ok(tokenbus_coordinator::run(coordinator, status_page, stop).await?)
        });
    }

    /// Waits until the model is served, asks the first question, and says how to go on.
    /// `local` is the endpoint as this process reaches it, `url` as its users do.
    async fn greet(&self, local: &str, url: &str, health: watch::Receiver<EngineInfo>) {
        // Before the model is there, so that the snapshot that tells of it is not missed.
        let snapshots = self.snapshots().await;
        let model = self.engine_ready(health).await;
        let answered = match snapshots {
            // It has no key to ask with.
            _ if self.args.no_prompt || self.args.access.keys.is_some() => Ok(()),
            Ok((_bus, snapshots)) => self.first_answer(local, &model, snapshots).await,
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = answered {
            self.screen
                .line(format_args!("the first question was not answered: {failure}"));
        }
        let name = serde_json::Value::from(model.as_str());
        let body =
            format!(r#"{{"model":{name},"stream":true,"messages":[{{"role":"user","content":"What is gravity?"}}]}}"#);
        self.screen.line(format_args!(
            "\n{model} is served at {url}. Talk to it:\n  \
             curl -N {url}/chat/completions -H 'content-type: application/json' -d '{body}'\n  \
             tokenbus chat --url {url}\nCtrl-C stops it.",
        ));
    }

    /// The coordinator's snapshots, and the connection that they come over.
    async fn snapshots(&self) -> Result<(Bus, Subscription), BusError> {
        let bus = Bus::connect(&self.shared.bus).await?;
        let subjects = Subjects::new(self.shared.namespace.clone());
        let snapshots = bus.subscribe(subjects.capacity()).await?;
        Ok((bus, snapshots))
    }

    /// Waits for the engine, however long it loads, and says what is wrong with it meanwhile; returns its first model.
    async fn engine_ready(&self, mut health: watch::Receiver<EngineInfo>) -> String {
        let first = |info: &EngineInfo| info.models.first().map(|model| model.name.clone());
        let title = first(&health.borrow()).unwrap_or_else(|| "engine".to_owned());
        let step = self.screen.step(&title, "loading");
        loop {
            let info = health.borrow_and_update().clone();
            match (info.health.clone(), first(&info)) {
                (Health::Ready, Some(model)) => {
                    step.done("loaded");
                    return model;
                }
                (Health::Ready | Health::Starting, _) => {}
                (Health::Down(reason), _) => self.screen.line(format_args!("{title}: {reason}")),
            }
            if health.changed().await.is_err() {
                // The engine is gone, and its worker with it: that is said where it is noticed.
                return std::future::pending().await;
            }
        }
    }

    /// Asks as soon as the cluster knows the model: each snapshot of the coordinator is an occasion.
    async fn first_answer(&self, url: &str, name: &str, mut snapshots: Subscription) -> Result<(), Failure> {
        let api = Api::new(url, None)?;
        let asked = async {
            while let Some(message) = snapshots.next().await {
                let Ok(capacity) = decode::<Capacity>(&message.payload) else {
                    continue;
                };
                let served = |model: &ModelCapacity| model.model == name && model.workers > 0;
                if !capacity.models.iter().any(served) {
                    continue;
                }
                match first_answer::ask(&api, name, &self.args.prompt, self.started).await {
                    // The gateway reads the same snapshot, perhaps a moment later.
                    Err(ApiError::Status { status: 404 | 503, .. }) => {}
                    answered => return answered.map_err(Failure::from),
                }
            }
            Err(Failure::from("the connection to NATS is closed"))
        };
        let patience = limits::FIRST_MODEL_TIMEOUT;
        match tokio::time::timeout(patience, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs()).into()),
        }
    }
}
