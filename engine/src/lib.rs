//! The engine trait: what a worker needs of whatever generates tokens.
//!
//! An engine is pushed to and pushes back: [`Engine::generate`] returns at once, and the engine
//! then writes to the job's [`Sink`] from a task of its own. That way one step of a
//! continuous-batching engine can emit a token for each of its sequences without waking a task
//! per sequence. The worker stops a generation by dropping its [`Running`].

mod channel;
mod overrides;

pub use channel::job_channel;
pub use overrides::{Overrides, OverridesError};

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokenbus_placement::Prompt;
use tokenbus_protocol::{Delta, EngineError, Finish, ModelInfo, RequestKind, Resume, SlotsFrom, TraceContext};
use tokio::sync::watch;
use uuid::Uuid;

/// Something that generates tokens.
pub trait Engine: Send + Sync + 'static {
    /// What it serves and how it is, now and at each change.
    fn info(&self) -> watch::Receiver<EngineInfo>;

    /// Starts generating and returns at once. Everything that happens, failures included, is told
    /// to `sink`: deltas, then exactly one `finish` or `fail`. Dropping the returned value stops
    /// the generation and frees what the engine holds for it (for an HTTP engine: the connection
    /// is closed) without another word to the sink.
    fn generate(&self, job: Job, sink: Box<dyn Sink>) -> Running;

    /// Loads a model.
    fn load(&self, model: &str) -> BoxFuture<'_, Result<(), ModelCommandError>> {
        let model = model.to_owned();
        Box::pin(async move { Err(ModelCommandError::Unsupported { model }) })
    }

    /// Unloads a model.
    fn unload(&self, model: &str) -> BoxFuture<'_, Result<(), ModelCommandError>> {
        let model = model.to_owned();
        Box::pin(async move { Err(ModelCommandError::Unsupported { model }) })
    }

    /// Stops for good: child processes are gone when this returns.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Why a model was not loaded or unloaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelCommandError {
    /// This engine's models are fixed.
    #[error("this engine cannot load or unload {model:?} while it runs")]
    Unsupported {
        /// The model.
        model: String,
    },
    /// The engine tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// What an engine serves and how it is.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineInfo {
    /// `openai`, `llama`, `sim`.
    pub engine: &'static str,
    /// Whether it can take requests.
    pub health: Health,
    /// Its models, by the names that clients use.
    pub models: Vec<ModelInfo>,
    /// Requests that it runs at once.
    pub slots: u32,
    /// Where that number comes from.
    pub slots_from: SlotsFrom,
    /// Part of the KV cache in use, 0 to 1, where the engine tells.
    pub kv_used: Option<f64>,
}

/// Whether an engine can take requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not yet: starting or loading.
    Starting,
    /// Yes.
    Ready,
    /// No, and why.
    Down(String),
}

/// One generation, as the engine sees it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The request's id; unique among the jobs that an engine runs.
    pub id: Uuid,
    /// API family.
    pub kind: RequestKind,
    /// The model, by the name in [`EngineInfo::models`].
    pub model: String,
    /// The whole OpenAI request, JSON, as the client sent it.
    pub body: Bytes,
    /// Where its prompt can be cut; without cuts if no prefix helps.
    pub prompt: Prompt,
    /// When the client stops waiting.
    pub deadline: Instant,
    /// What the client has already: the engine goes on from it, or generates the answer again where
    /// the request is deterministic and holds back what is equal.
    pub resume: Option<Resume>,
    /// W3C trace context, to hand on.
    pub trace: Option<TraceContext>,
}

/// Where the output of one job goes. It never waits: what it is given is queued at once.
pub trait Sink: Send {
    /// More output.
    ///
    /// # Errors
    /// [`Closed`] when nobody wants it any more (cancelled, or the queue to the gateway is full):
    /// the engine stops the job and drops the sink.
    fn delta(&mut self, delta: Delta<'_>) -> Result<(), Closed>;

    /// `None` while the queue to the gateway has room. Otherwise what to await before more is
    /// pushed: an engine that can pause without loss (a socket that is not read for a while) does
    /// so. One that goes on runs into [`Closed`] when the queue is full.
    fn congestion(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// The job is complete.
    fn finish(self: Box<Self>, finish: Finish);

    /// The job failed.
    fn fail(self: Box<Self>, error: EngineError);
}

/// Nobody wants the output any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream was cancelled")]
pub struct Closed;

/// A generation that runs; dropping it stops it.
#[must_use = "dropping this stops the generation"]
pub struct Running(#[allow(dead_code)] Box<dyn Send + Sync>);

impl Running {
    /// Ties the generation to `guard`, whose drop stops it.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}
