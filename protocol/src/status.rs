//! What a worker reports of itself, once a second and on each change.

use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::labels::Labels;
use crate::name::Name;
use crate::wire::{is_default, wire_enum};

wire_enum! {
    /// A worker's state.
    WorkerState, other = Unavailable, {
        /// The engine is starting or loading.
        Starting = "starting",
        /// It takes requests.
        Ready = "ready",
        /// It finishes its requests and takes no new ones.
        Draining = "draining",
        /// The engine is down; the worker waits for it.
        Unavailable = "unavailable",
        /// Its last status: it leaves of its own accord.
        Stopped = "stopped",
    }
}

wire_enum! {
    /// Where a worker's number of slots comes from.
    SlotsFrom, other = Default, {
        /// The operator set it.
        Flag = "flag",
        /// The engine tells it.
        Engine = "engine",
        /// The worker computed it from the size of the engine's KV cache.
        Cache = "cache",
        /// The most that ran while others waited for room in the engine.
        Observed = "observed",
        /// A default for this kind of engine.
        Default = "default",
    }
}

/// Lists what is in a report once, and makes of it the report and [`FlatReport`].
macro_rules! reports {
    ($($(#[$of:meta])* pub $member:ident: $kind:ty,)*) => {
        /// What a worker reports of itself. It travels in its [`Status`], and from there in each snapshot.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct WorkerReport {
            $($(#[$of])* pub $member: $kind,)*
        }

        /// All members of the map in which a report travels, with those that stand beside it in a [`Status`] and in a
        /// snapshot. serde reads a flattened member twice, through a copy of the whole map; this is read once, which
        /// counts where a thousand workers are in each snapshot.
        #[derive(Deserialize)]
        pub(crate) struct FlatReport {
            $($(#[$of])* $member: $kind,)*
            /// Of a status.
            #[serde(default)]
            totals: Totals,
            #[serde(default)]
            loads: Vec<ModelLoad>,
            /// Of a worker in a snapshot.
            #[serde(default)]
            pub(crate) age_ms: u64,
        }

        impl From<FlatReport> for WorkerReport {
            fn from(flat: FlatReport) -> Self {
                Self { $($member: flat.$member,)* }
            }
        }
    };
}

reports! {
    /// The worker's id; unique in the cluster at any time.
    pub worker: Name,
    /// A random number that the worker draws at each start.
    pub instance: u64,
    /// Grows by one with each status of an instance, so that a late status is recognised.
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
    /// Requests that it can run at once.
    pub slots: u32,
    /// Where that number comes from. Absent in the status of older workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_from: Option<SlotsFrom>,
    /// Requests running.
    pub active: u32,
    /// Accepted requests that wait for a slot.
    pub queued: u32,
    /// Completion tokens per second over the last few seconds.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Time to first token of recent requests, in milliseconds.
    #[serde(default)]
    pub ttft: Quantiles,
    /// Inter-token latency of recent requests, in milliseconds.
    #[serde(default)]
    pub itl: Quantiles,
    /// Used part of the KV cache, 0 to 1, where the engine reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_used: Option<f64>,
    /// Its labels.
    #[serde(default, deserialize_with = "Labels::told", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its tier: workers of higher tiers get requests only when the lower ones would make them wait.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tier: u32,
}

impl WorkerReport {
    /// Slots in which a new request would start at once.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.active).saturating_sub(self.queued)
    }
}

/// A worker's status, published once a second and on each change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "FlatReport")]
pub struct Status {
    /// What the snapshot repeats.
    #[serde(flatten)]
    pub report: WorkerReport,
    /// Counts since the start.
    #[serde(default)]
    pub totals: Totals,
    /// The share of each model in the load, if there are several models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<ModelLoad>,
}

impl From<FlatReport> for Status {
    fn from(mut flat: FlatReport) -> Self {
        Self {
            totals: flat.totals,
            loads: std::mem::take(&mut flat.loads),
            report: flat.into(),
        }
    }
}

/// One model's share of a worker's load. Slots are shared: each goes to whichever model needs it first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelLoad {
    /// The model's name.
    pub model: String,
    /// Requests running.
    #[serde(default)]
    pub active: u32,
    /// Accepted requests that wait for a slot.
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
    /// Prompt tokens of the requests that ended with `Finish`, as far as the engine counts them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_tokens: u64,
    /// Those of them that the engine had in its cache, as far as it counts them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cached_tokens: u64,
    /// Spans that were not told to the OpenTelemetry collector because too many waited.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spans_dropped: u64,
    /// Requests with a first output.
    #[serde(default, skip_serializing_if = "is_default")]
    pub first_outputs: u64,
    /// Milliseconds from their arrival at the worker to that output, together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub first_output_ms: u64,
    /// Times that its engine was ready and then was not: its process ended, or it did not answer or generate any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine_losses: u64,
}

/// Quantiles of a latency in milliseconds; all 0 without recent measurements.
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
    /// The name under which clients ask for it.
    pub name: String,
    /// Tokens of context per request, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// What the engine can do with it.
    #[serde(default)]
    pub capabilities: Capabilities,
}
