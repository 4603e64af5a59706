//! Any server that speaks the OpenAI API as an engine: vLLM, SGLang, llama-server, Ollama, a provider.
//!
//! A straight walk: [`generate`] takes a job, [`request`] writes its body (or one that goes on from what the
//! client has), [`wire`] sends it and reads what comes back, [`answer`] makes output of it, [`error`] says
//! what a failure means. Beside it [`watch`] probes the server and tells the worker how it is, and
//! [`supervisor`] runs the server's process where we own it.

mod answer;
mod error;
mod generate;
pub(crate) mod limits;
mod manner;
mod options;
mod request;
pub mod supervisor;
mod target;
#[cfg(feature = "testing")]
pub(crate) mod testing;
mod watch;
mod wire;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokio::sync::watch::{Receiver, Sender};

pub use options::{ApiKey, ModelSpec, ModelSpecError, OpenAiOptions, StartError, Streaming};
pub use supervisor::EngineCommand;
pub use target::ServerKind;

use crate::engine::{Engine, EngineInfo, Health, Job, Running, Sink};
use supervisor::{Address, Supervisor};
use watch::catalog::Catalog;
use watch::monitor::{Monitor, Settings};
use watch::pulse::Pulse;
use watch::shared::Shared;
use wire::client::{Base, Client};
use wire::credentials::Credentials;

/// A server that speaks the OpenAI API. Dropping it kills a supervised process; [`Engine::stop`]
/// ends it in order.
pub struct OpenAiEngine {
    shared: Arc<Shared>,
    info: Sender<EngineInfo>,
    monitor: Mutex<Option<AbortOnDrop<()>>>,
    supervisor: Option<Supervisor>,
}

impl OpenAiEngine {
    /// Begins to watch the server, after starting its process where there is a command. Returns
    /// before the server is healthy: see [`Engine::info`].
    ///
    /// # Errors
    /// [`StartError`] when the options are wrong or the process cannot be started.
    pub async fn start(options: OpenAiOptions) -> Result<Arc<Self>, StartError> {
        options.check()?;
        let fixed = options.url.as_deref().map(Base::parse).transpose()?;
        let credentials = Credentials::load(options.api_key)?;
        let supervisor = match options.command {
            Some(command) => {
                let address = fixed
                    .as_ref()
                    .map_or(Address::FreePort, |base| Address::fixed(base.authority()));
                Some(Supervisor::start(command, address).await?)
            }
            None => None,
        };
        let fixed_base = fixed.is_some();
        let base = match (fixed, &supervisor) {
            (Some(base), _) => base,
            (None, Some(supervisor)) => Base::parse(&supervisor::loopback_url(supervisor.port()))?,
            (None, None) => return Err(StartError::NoServer),
        };
        let client = Client::new(base, credentials)?;
        let shared = Arc::new(Shared::new(
            client,
            Catalog::unknown(&options.models, options.overrides),
            options.streaming,
            Pulse::new(options.token_timeout, options.first_token_timeout),
        ));
        let settings = Settings {
            engine: options.engine,
            named: options.models,
            overrides: options.overrides,
            slots: options.slots.map(|slots| slots.max(1)),
            slots_from: options.slots_from,
            start_timeout: options.start_timeout,
            fixed_base,
        };
        let handle = supervisor.as_ref().map(Supervisor::handle);
        let (monitor, info) = Monitor::new(shared.clone(), settings, handle);
        let monitor = AbortOnDrop::new(task::spawn("openai-monitor", monitor.run()));
        Ok(Arc::new(Self {
            shared,
            info,
            monitor: Mutex::new(Some(monitor)),
            supervisor,
        }))
    }

    /// As [`Engine::generate`], in this slot of a llama-server.
    pub(crate) fn generate_in(&self, job: Job, sink: Box<dyn Sink>, slot: Option<u32>) -> Running {
        generate::start(self.shared.clone(), job, sink, slot)
    }

    /// Which program the server is, as far as it is known now.
    pub fn server_kind(&self) -> ServerKind {
        self.shared.catalog().kind
    }

    /// Where a supervised server's output goes.
    pub fn log_path(&self) -> Option<&Path> {
        self.supervisor.as_ref().map(Supervisor::log_path)
    }

    /// The last lines that a supervised server wrote, oldest first; empty where there is none.
    pub fn log_tail(&self) -> Vec<String> {
        self.supervisor.as_ref().map(Supervisor::log_tail).unwrap_or_default()
    }
}

impl Engine for OpenAiEngine {
    fn info(&self) -> Receiver<EngineInfo> {
        self.info.subscribe()
    }

    fn generate(&self, job: Job, sink: Box<dyn Sink>) -> Running {
        self.generate_in(job, sink, None)
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            drop(self.monitor.lock().unwrap_or_else(PoisonError::into_inner).take());
            let reason = "it was stopped".to_owned();
            self.info.send_modify(|info| info.health = Health::Down(reason));
            if let Some(supervisor) = &self.supervisor {
                supervisor.stop().await;
            }
        })
    }
}
