//! What the HTTP edge asks of the core, and what comes back: the seam between `http/`, `api/` and
//! everything that knows the bus.

mod backend;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokenbus_api::limits::MAX_ANSWER;
use tokenbus_protocol::{Delta, EngineError, Feature, Features, Finish, Name, RequestKind, TraceContext};
use tokio::time::Instant;
use uuid::Uuid;

pub use backend::{CallStream, Core, Prospect};

use crate::limits::STREAM_BUFFER;

/// One client request, checked and ready to be placed.
#[derive(Debug, Clone)]
pub struct Call {
    /// UUID v7; the visible completion id is made of it.
    pub id: Uuid,
    /// API family.
    pub kind: RequestKind,
    /// The model that the client asked for.
    pub model: String,
    /// What the engine must be able to do, beside the kind itself.
    pub needs: Features,
    /// The request's JSON as the client sent it, or as its API was translated.
    pub body: Bytes,
    /// When the client is told that it took too long.
    pub deadline: Instant,
    /// Higher is served earlier.
    pub priority: i32,
    /// For whom.
    pub tenant: Option<String>,
    /// The client's `x-request-id`, or the one made for it.
    pub client_id: String,
    /// W3C trace context.
    pub trace: Option<TraceContext>,
    /// `None` when the request may be continued elsewhere after output has been delivered;
    /// otherwise why it may not (grammar-constrained output, say).
    pub not_resumable: Option<&'static str>,
    /// Nothing of the answer reaches the client before all of it is there: it may begin anew.
    pub in_one_piece: bool,
}

impl Call {
    /// What the engine must be able to do, the kind itself included.
    pub fn all_needs(&self) -> Features {
        self.needs.with(self.kind.feature())
    }

    /// Bytes of output that may wait for whoever reads it. What is answered in one piece comes in one
    /// burst, and is collected in any case.
    pub fn reader_bound(&self) -> usize {
        if self.kind.is_generated() {
            STREAM_BUFFER
        } else {
            MAX_ANSWER
        }
    }
}

/// What happens to a call, in order: any number of `Accepted` and `Delta`, then one `Finish`.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A worker has it. Comes again when the call moves to another worker.
    Accepted {
        /// Which.
        worker: Name,
        /// Place in its queue.
        queue_position: u32,
    },
    /// What was said of the answer is void, it begins anew. Only for calls in one piece.
    Anew,
    /// More output of one choice.
    Delta(Delta<'static>),
    /// Plain text that came after [`CallStream::splice`], ready to be sent.
    Written(Written),
    /// Complete; nothing follows. Token counts are of the whole call, all attempts.
    Finish(Finish),
}

/// Text that was written into a template as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The events that are to be sent; none when all of it was sent already.
    pub events: BytesMut,
    /// Completion tokens in them.
    pub tokens: u64,
    /// Completion tokens that were sent already.
    pub sent: u64,
    /// When the last of those left.
    pub sent_at: Option<Instant>,
}

/// How a call failed. `http/error/` alone turns it into a status.
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
    /// The model's workers cannot do what is asked.
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
        /// When a slot should be free for this request, by the model's drain rate.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[error("The request was not complete within its time limit ({stage})")]
    Deadline {
        /// What it was waiting for.
        stage: Stage,
    },
    /// The engine refused or failed, and no other worker could help.
    #[error("{}", .0.message)]
    Engine(EngineError),
    /// The worker that generated this stream is gone, and the stream cannot be continued.
    #[error("The worker of this stream was lost: {reason}")]
    WorkerLost {
        /// What was seen.
        reason: String,
    },
    /// The message bus is away.
    #[error("The message bus is not reachable: {reason}")]
    BusDown {
        /// What the client of the bus says.
        reason: String,
    },
    /// The client did not read its stream; more than the bound was waiting for it.
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
