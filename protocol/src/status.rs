//! What a worker says of itself, once a second and at once on a change.

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::wire_enum::wire_enum;

wire_enum! {
    /// A worker's state.
    WorkerState, other = Unavailable, {
        /// The engine is starting or loading.
        Starting = "starting",
        /// It takes requests.
        Ready = "ready",
        /// It finishes what it has and takes nothing new.
        Draining = "draining",
        /// The engine is down; the worker waits for it.
        Unavailable = "unavailable",
        /// Its last status: it leaves of its own will.
        Stopped = "stopped",
    }
}

/// A worker's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The worker's id; unique in the cluster at any time.
    pub worker: Name,
    /// A number drawn at each start.
    pub instance: u64,
    /// One more in each status of an instance, so that a late one is recognised.
    pub seq: u64,
    /// tokenbus version.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Engine: `openai`, `llama`, `sim`, …
    pub engine: String,
    /// Whether it takes requests.
    pub state: WorkerState,
    /// Unix time of the start in milliseconds, by the worker's own clock.
    pub started_at_ms: u64,
    /// The models it serves.
    pub models: Vec<ModelInfo>,
    /// Requests that it runs at once.
    pub slots: u32,
    /// Requests running.
    pub active: u32,
    /// Requests accepted that wait for a slot.
    pub queued: u32,
    /// Completion tokens per second over the last few seconds.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Time to first token of recent requests.
    #[serde(default)]
    pub ttft: Quantiles,
    /// Inter-token latency of recent requests.
    #[serde(default)]
    pub itl: Quantiles,
    /// Part of the KV cache in use, 0 to 1, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_used: Option<f64>,
    /// Since the start.
    #[serde(default)]
    pub totals: Totals,
    /// What each of its models has of that, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<ModelLoad>,
}

/// One model's part of a worker's load. Slots have no parts: whichever model comes first takes one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelLoad {
    /// The model's name.
    pub model: String,
    /// Requests running.
    #[serde(default)]
    pub active: u32,
    /// Requests accepted that wait for a slot.
    #[serde(default)]
    pub queued: u32,
    /// Completion tokens per second.
    #[serde(default)]
    pub tokens_per_second: f64,
}

/// Counts since the worker's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that ended with `Finish`.
    #[serde(default)]
    pub finished: u64,
    /// Requests that ended with `Error`.
    #[serde(default)]
    pub failed: u64,
    /// Requests answered with `Reject`.
    #[serde(default)]
    pub rejected: u64,
    /// Requests cancelled.
    #[serde(default)]
    pub cancelled: u64,
    /// Completion tokens.
    #[serde(default)]
    pub tokens: u64,
}

/// Quantiles of a latency in milliseconds; all 0 when nothing was measured lately.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// One model on one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name under which clients ask for it.
    pub name: String,
    /// Tokens of context per request, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// What the engine can do with it.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What an engine can do with a model. Absent means no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)]
pub struct Capabilities {
    /// Chat completions.
    #[serde(default)]
    pub chat: bool,
    /// Text completions.
    #[serde(default)]
    pub completion: bool,
    /// Embeddings.
    #[serde(default)]
    pub embeddings: bool,
    /// Sorting documents by how well they answer a query.
    #[serde(default)]
    pub rerank: bool,
    /// Scoring pairs of texts.
    #[serde(default)]
    pub score: bool,
    /// Turning text into token ids and back.
    #[serde(default)]
    pub tokenize: bool,
    /// Tool calls.
    #[serde(default)]
    pub tools: bool,
    /// `response_format: json_schema`.
    #[serde(default)]
    pub json_schema: bool,
    /// Image parts.
    #[serde(default)]
    pub vision: bool,
    /// Audio parts.
    #[serde(default)]
    pub audio: bool,
    /// Log probabilities.
    #[serde(default)]
    pub logprobs: bool,
    /// Continuing an answer from `resume`.
    #[serde(default)]
    pub continuation: bool,
}
