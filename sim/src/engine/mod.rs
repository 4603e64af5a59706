//! A simulated engine for benchmarks, load and fault tests. Never the default.
//!
//! It is deterministic. The n-th token of an answer is the text `t{n} ` (t0, t1, …). The answer ends after
//! `max_completion_tokens` or `max_tokens` with finish reason `length`; without a limit it ends after 16 tokens with
//! `stop`. `n` choices are generated side by side. Each delta is one token. Prompt tokens are the whitespace-separated
//! words of all message texts (or of the prompt). Completion tokens in `Finish` are those of this attempt, as the
//! protocol asks, so that the sum over attempts is exact.
//!
//! It declares every capability, and answers to each: it calls an offered tool with arguments that fit
//! (`fixed_answer`); a `response_format` gets a document that fits (`schema`). Both use the texts and numbers of the
//! last message (`prompt_words`). Embeddings, ranks, scores and token ids follow from the texts alone (`unary`). With a
//! `reasoning_effort` it reasons first. Log probabilities are those of a coin. It accepts and ignores images, sounds
//! and all other members of a request.
//!
//! It works like continuous batching: a sequence has its first token after the time to first token, and from then on
//! all sequences step together, one token each. A `resume` continues exactly where the answer stopped, after the time
//! to first token again. With an inter-token latency of zero the engine is as fast as the gateways read.
//!
//! The member `sim` of a request's body scripts failures and odd output; see `script::Script`.

mod batch;
mod fixed_answer;
mod logprobs;
mod plan;
mod prompt_words;
mod schema;
mod script;
mod sequence;
mod unary;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_bus::task;
use tokenbus_engine::{Engine, EngineInfo, Health, Job, ModelCommandError, Overrides, Running, Sink, job_channel};
use tokenbus_protocol::{Feature, ModelInfo, SlotsFrom};
use tokio::sync::{mpsc, watch};

use self::batch::Batch;
use self::plan::Plan;
use self::sequence::Sequence;

/// How a simulated engine behaves.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Names of its models.
    pub models: Vec<String>,
    /// Requests that it runs at the same time.
    pub slots: u32,
    /// Where that number comes from, as the status tells it.
    pub slots_from: SlotsFrom,
    /// Time to first token.
    pub ttft: Duration,
    /// Inter-token latency.
    pub itl: Duration,
    /// Context length, tokens. It refuses a prompt that is longer together with its completion.
    pub context_length: Option<u64>,
    /// Changes to the capabilities that it declares.
    pub overrides: Overrides,
}

/// A simulated engine.
pub struct SimEngine {
    options: SimOptions,
    info: watch::Sender<EngineInfo>,
    commands: Commands,
    next_key: AtomicU64,
}

/// Sender to the stepping task. It carries at most two messages for each job that the worker has admitted.
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
            slots_from: options.slots_from,
            kv_used: None,
        };
        let (commands, received) = job_channel();
        let batch = Batch::new(options.ttft, options.itl);
        // The task owns all sequences and ends by itself.
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
        // The task ends only with the runtime; the dropped sink then ends the stream.
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

/// Steps all sequences; one task does so for the whole engine.
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
                for (key, caught_up) in batch.step(Instant::now()) {
                    paused.push(wait(caught_up, key));
                }
                // One step is one burst. Let it be sent even when the next step is due already.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Waits until `at`. The runtime's timer rounds up to milliseconds, so what is due now does not use it.
async fn until(at: Instant) {
    if at > Instant::now() {
        tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
    }
}

fn wait(caught_up: BoxFuture<'static, ()>, key: u64) -> impl Future<Output = u64> {
    caught_up.map(move |()| key)
}

fn obey(batch: &mut Batch, command: Command, now: Instant) {
    match command {
        Command::Add(key, sequence) => batch.add(key, *sequence, now),
        Command::Remove(key) => batch.remove(key),
    }
}
