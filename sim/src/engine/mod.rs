//! A simulated engine for benchmarks, load and fault tests. Never the default.
//!
//! Deterministic: the n-th token of an answer is the text `t{n} ` (t0, t1, …); the answer ends after
//! `max_completion_tokens` or `max_tokens` (16 when both are absent) with finish reason `length`.
//! `n` choices are generated side by side. Each delta is one token. Prompt tokens are the
//! whitespace-separated words of all message texts (or of the prompt); completion tokens in `Finish`
//! are those of this attempt, as the protocol asks, so that the sum over attempts is exact.
//!
//! It declares all that an engine may be capable of, and has an answer to it: offered tools, it calls
//! one with arguments that fit (`said.rs`); a `response_format` gets a document that fits
//! (`schema.rs`), both with the texts that the last message quotes and the numbers in it (`prompted.rs`); embeddings, ranks, scores and token ids follow from the texts alone (`whole.rs`); with
//! a `reasoning_effort` it reasons first; log probabilities are those of a coin. Images and sounds are
//! accepted and ignored, and so are all other request fields.
//!
//! It works as continuous batching does: a sequence has its first token after the time to first
//! token, and from then on all sequences step together, one token each. A `resume` is continued
//! exactly where it stopped, after the time to first token again. With an inter-token latency of
//! zero it goes as fast as the gateways' queues are emptied.
//!
//! A member `sim` in the request's body scripts failures and odd output; see [`Script`].

mod ask;
mod batch;
mod logprobs;
mod prompted;
mod said;
mod schema;
mod sequence;
mod whole;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_bus::task;
use tokenbus_engine::{Engine, EngineInfo, Health, Job, ModelCommandError, Overrides, Running, Sink, job_channel};
use tokenbus_protocol::{Feature, ModelInfo};
use tokio::sync::{mpsc, watch};

use self::ask::Plan;
pub use self::ask::Script;
use self::batch::Batch;
pub use self::said::ScriptedCall;
use self::sequence::Sequence;

/// How a simulated engine behaves.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Models that it serves.
    pub models: Vec<String>,
    /// Requests that it runs at once.
    pub slots: u32,
    /// Time from a request to its first token.
    pub ttft: Duration,
    /// Time between two tokens of a sequence.
    pub itl: Duration,
    /// Tokens of context; a prompt with its completion that is longer is refused.
    pub context_length: Option<u64>,
    /// What it is to declare, and what not, of all that it can do.
    pub overrides: Overrides,
}

/// A simulated engine.
pub struct SimEngine {
    options: SimOptions,
    info: watch::Sender<EngineInfo>,
    commands: Commands,
    next_key: AtomicU64,
}

/// To the stepping task. At most two messages for each job that the worker has admitted.
type Commands = mpsc::UnboundedSender<Command>;

enum Command {
    Add(u64, Box<Sequence>),
    Remove(u64),
}

impl SimEngine {
    /// Starts the engine's stepping task, which ends when the engine and its jobs are dropped.
    /// Must be called within a tokio runtime.
    pub fn start(options: SimOptions) -> Arc<Self> {
        let info = EngineInfo {
            engine: "sim",
            health: Health::Ready,
            models: options.models.iter().map(|name| model(name, &options)).collect(),
            slots: options.slots,
            kv_used: None,
        };
        let (commands, received) = job_channel();
        let batch = Batch::new(options.ttft, options.itl);
        // It owns all sequences and ends by itself.
        drop(task::spawn("sim-engine", step(batch, received)));
        Arc::new(Self {
            options,
            info: watch::Sender::new(info),
            commands,
            next_key: AtomicU64::new(0),
        })
    }
}

fn model(name: &str, options: &SimOptions) -> ModelInfo {
    let all = Feature::ALL
        .iter()
        .copied()
        .filter(|feature| *feature != Feature::Other);
    ModelInfo {
        name: name.to_owned(),
        context_length: options.context_length,
        capabilities: options.overrides.apply(all.collect()).into(),
    }
}

impl Engine for SimEngine {
    fn info(&self) -> watch::Receiver<EngineInfo> {
        self.info.subscribe()
    }

    fn generate(&self, job: Job, sink: Box<dyn Sink>) -> Running {
        let plan = match Plan::new(&job, self.options.context_length) {
            Ok(plan) => plan,
            Err(error) => {
                sink.fail(error);
                return Running::new(());
            }
        };
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let guard = Remove {
            key,
            commands: self.commands.clone(),
        };
        // The task is gone only when the runtime is; the sink then ends the stream.
        let _ = self
            .commands
            .send(Command::Add(key, Box::new(Sequence::new(plan, sink))));
        Running::new(guard)
    }

    fn load(&self, name: &str) -> BoxFuture<'_, Result<(), ModelCommandError>> {
        let name = name.to_owned();
        Box::pin(async move {
            let added = self.info.send_if_modified(|info| {
                let new = !info.models.iter().any(|model| model.name == name);
                if new {
                    info.models.push(model(&name, &self.options));
                }
                new
            });
            done(added, format!("the model {name:?} is loaded already"))
        })
    }

    fn unload(&self, name: &str) -> BoxFuture<'_, Result<(), ModelCommandError>> {
        let name = name.to_owned();
        Box::pin(async move {
            let removed = self.info.send_if_modified(|info| {
                let before = info.models.len();
                info.models.retain(|model| model.name != name);
                info.models.len() < before
            });
            done(removed, format!("the model {name:?} is not loaded"))
        })
    }
}

fn done(changed: bool, otherwise: String) -> Result<(), ModelCommandError> {
    if changed {
        Ok(())
    } else {
        Err(ModelCommandError::Failed(otherwise))
    }
}

struct Remove {
    key: u64,
    commands: Commands,
}

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Remove(self.key));
    }
}

/// The one task that steps all sequences.
async fn step(mut batch: Batch, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut paused = FuturesUnordered::new();
    loop {
        let due = batch.next();
        let at = due.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            command = commands.recv() => {
                let Some(command) = command else { return };
                let now = Instant::now();
                obey(&mut batch, command, now);
                while let Ok(command) = commands.try_recv() {
                    obey(&mut batch, command, now);
                }
            }
            Some(key) = paused.next(), if !paused.is_empty() => batch.resume(key),
            () = until(at), if due.is_some() => {
                for (key, room) in batch.step(Instant::now()) {
                    paused.push(wait(room, key));
                }
                // One step is one burst: let it be sent, also when the next is due already.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The runtime's timer counts in milliseconds and rounds up: what is due now must not wait for the next one.
async fn until(at: Instant) {
    if at > Instant::now() {
        tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
    }
}

fn wait(room: BoxFuture<'static, ()>, key: u64) -> impl Future<Output = u64> {
    room.map(move |()| key)
}

fn obey(batch: &mut Batch, command: Command, now: Instant) {
    match command {
        Command::Add(key, sequence) => batch.add(key, *sequence, now),
        Command::Remove(key) => batch.remove(key),
    }
}
