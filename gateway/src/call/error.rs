//! How a call fails.

use std::time::Duration;

use tokenbus_protocol::{EngineError, Feature, Features};

/// How a call failed. Only `http/error.rs` turns it into a status.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// No worker of the cluster has ever announced this model.
    #[error("The model {model:?} does not exist. Available models: {}", list(known))]
    UnknownModel {
        /// The model.
        model: String,
        /// The models that exist, sorted.
        known: Vec<String>,
    },
    /// The model is known, but no live worker serves it.
    #[error("No worker serves the model {model:?} at the moment")]
    NoWorker {
        /// The model.
        model: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// None of the model's workers has the features that the request needs.
    #[error("The model {model:?} cannot do what this request asks for: {}. None of its workers is capable of it", describe(*.missing))]
    Unsupported {
        /// The model.
        model: String,
        /// What is missing.
        missing: Features,
    },
    /// All slots are taken and the waiting room is full.
    #[error("All workers of the model {model:?} are busy and the queue is full, try again in {} s", retry_after.as_secs_f64().ceil())]
    Full {
        /// The model.
        model: String,
        /// When a slot should be free for this request, estimated from how fast requests end.
        retry_after: Duration,
    },
    /// The request's time limit would end before it had a slot.
    #[error("The request would wait about {} s for the model {model:?}, which is longer than its time limit", wait.as_secs_f64().ceil())]
    WaitTooLong {
        /// The model.
        model: String,
        /// The expected wait for a slot.
        wait: Duration,
        /// When the wait should be short enough.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[error("The request was not complete within its time limit ({stage})")]
    Deadline {
        /// What the call was waiting for.
        stage: Stage,
    },
    /// The engine refused or failed, and no other worker could help.
    #[error("{}", .0.message)]
    Engine(EngineError),
    /// The worker of this stream is gone, and no other worker can continue the stream.
    #[error("The worker of this stream was lost: {reason}")]
    WorkerLost {
        /// How the loss was noticed.
        reason: String,
    },
    /// Engines died of this request, just now or a short time ago.
    #[error("Engines died of this request, one after the other. It is not tried again for a while")]
    Deadly,
    /// The bus is not reachable.
    #[error("The message bus is not reachable")]
    BusDown {
        /// What the bus client reported.
        reason: String,
    },
    /// The client did not read its stream, and the unread output exceeded its bound.
    #[error("The client did not read its stream fast enough")]
    SlowClient,
    /// The gateway is stopping.
    #[error("The gateway is shutting down")]
    ShuttingDown,
    /// A bug or an impossible state; the log has more.
    #[error("Internal error: {0}")]
    Internal(String),
}

/// What a call was waiting for when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A free slot.
    Queue,
    /// A worker's `Accepted`.
    Accept,
    /// The first token.
    FirstToken,
    /// The rest of the answer.
    Generation,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue => "waiting for a free slot",
            Self::Accept => "waiting for a worker to accept it",
            Self::FirstToken => "waiting for the first token",
            Self::Generation => "generating",
        })
    }
}

fn describe(missing: Features) -> String {
    let names: Vec<&str> = missing.iter().map(named).collect();
    names.join(", ")
}

fn named(feature: Feature) -> &'static str {
    match feature {
        Feature::Chat => "chat completions",
        Feature::Completion => "text completions",
        Feature::Embeddings => "embeddings",
        Feature::Rerank => "reranking",
        Feature::Score => "scoring",
        Feature::Tokenize => "tokenizing",
        Feature::Tools => "tool calls",
        Feature::JsonSchema => "a response format with a JSON schema",
        Feature::Vision => "images",
        Feature::Audio => "audio",
        Feature::Logprobs => "log probabilities",
        Feature::Continuation => "continuing an answer",
        Feature::Other => "this kind of request",
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
