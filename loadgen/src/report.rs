//! The report of a run, and its JSON.
//!
//! The JSON is stable: while `schema` is the same, fields are only added. The unit of a number is the end of its name; a
//! name without a unit is a count. `null` was not measured.

use serde::Serialize;

use super::stats::{Stats, Times};

/// The version of the JSON.
pub(crate) const SCHEMA: &str = "tokenbus.bench/1";

/// A run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// The version of this program.
    pub(crate) version: &'static str,
    /// The server, the request and the load.
    pub(crate) load: Load,
    /// Time from the first request to the end of the last.
    pub(crate) elapsed_seconds: f64,
    /// Whether it was stopped by hand (Ctrl-C).
    pub(crate) interrupted: bool,
    /// Requests.
    pub(crate) requests: Requests,
    /// Tokens.
    pub(crate) tokens: Tokens,
    /// Latencies, as `--help` defines them.
    pub(crate) latency: Latency,
    /// Failures by kind and code, the most frequent first.
    pub(crate) failures: Vec<FailureLine>,
    /// CPU time and memory of the processes of `--pid` during the run.
    pub(crate) processes: Vec<ProcessUse>,
    /// CPU time and memory of the load generator itself.
    pub(crate) bench: ProcessUse,
}

/// The server, the request and the load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Load {
    /// The base URL.
    pub(crate) url: String,
    /// The model.
    pub(crate) model: String,
    /// `closed` or `open`.
    pub(crate) mode: &'static str,
    /// Requests under way in a closed loop; with HTTP/1.1 each on a connection of its own.
    pub(crate) concurrency: Option<u64>,
    /// HTTP/2 connections that the requests share; `null` with HTTP/1.1.
    pub(crate) http2_connections: Option<u64>,
    /// Requests per second of an open loop.
    pub(crate) rate_per_second: Option<f64>,
    /// `poisson` or `constant`, of an open loop.
    pub(crate) arrivals: Option<&'static str>,
    /// Most requests in flight of an open loop.
    pub(crate) max_in_flight: Option<u64>,
    /// Tokens that each request asks for.
    pub(crate) max_tokens: u64,
    /// Size of one request's JSON.
    pub(crate) request_bytes: usize,
    /// Whether answers were streamed.
    pub(crate) stream: bool,
    /// The check: `off`, `stream` or `sim`.
    pub(crate) check: &'static str,
    /// The time limit of a request.
    pub(crate) timeout_seconds: f64,
    /// Threads of the load generator.
    pub(crate) threads: u64,
    /// Requests before the measurement.
    pub(crate) warmup_requests: u64,
    /// Failed requests before the measurement.
    pub(crate) warmup_failed: u64,
}

/// Requests of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Requests {
    /// Requests that passed every check.
    pub(crate) succeeded: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// Requests that a second interrupt cut off; their tokens do not count.
    pub(crate) cut_off: u64,
    /// Successful requests per second of the whole run.
    pub(crate) succeeded_per_second: f64,
}

/// Tokens of a run, those of failed requests included.
#[derive(Debug, Serialize)]
pub(crate) struct Tokens {
    /// Tokens received.
    pub(crate) received: u64,
    /// Tokens received per second of the whole run.
    pub(crate) received_per_second: f64,
    /// Arrivals of output; fewer than tokens where several came together.
    pub(crate) arrivals: u64,
}

/// Latencies; `null` if nothing was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Time to the first output.
    pub(crate) ttft: Option<Quantiles>,
    /// Gaps between arrivals of output.
    pub(crate) itl: Option<Quantiles>,
    /// Mean time per token after the first arrival, of each answer.
    pub(crate) tpot: Option<Quantiles>,
    /// Time to the end of the answer.
    pub(crate) total: Option<Quantiles>,
    /// Open loop: delay of the start of requests. It is a part of the other latencies.
    pub(crate) start_delay: Option<Quantiles>,
}

/// A distribution of times.
#[derive(Debug, Serialize)]
pub(crate) struct Quantiles {
    /// Number of values.
    pub(crate) samples: u64,
    /// Their mean.
    pub(crate) mean_us: f64,
    /// The median.
    pub(crate) p50_us: u64,
    /// Nine of ten are at most this.
    pub(crate) p90_us: u64,
    /// Ninety-nine of a hundred are at most this.
    pub(crate) p99_us: u64,
    /// The longest.
    pub(crate) max_us: u64,
}

impl Quantiles {
    /// `None` if there are no values.
    pub(crate) fn of(times: &Times) -> Option<Self> {
        let h = times.histogram();
        (!h.is_empty()).then(|| Self {
            samples: h.len(),
            mean_us: h.mean(),
            p50_us: h.value_at_quantile(0.5),
            p90_us: h.value_at_quantile(0.9),
            p99_us: h.value_at_quantile(0.99),
            max_us: h.max(),
        })
    }
}

/// Failures of one sort.
#[derive(Debug, Serialize)]
pub(crate) struct FailureLine {
    /// The kind.
    pub(crate) kind: &'static str,
    /// Status or error code.
    pub(crate) code: String,
    /// Number of such failures.
    pub(crate) count: u64,
    /// Text of one of them.
    pub(crate) example: String,
}

/// CPU time and memory of the processes of one name during the run; times are `null` if one of them ended.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessUse {
    /// The name.
    pub(crate) name: String,
    /// Their ids.
    pub(crate) pids: Vec<u32>,
    /// The ids of those that ended before the run did.
    pub(crate) ended_pids: Vec<u32>,
    /// CPU time in their own code.
    pub(crate) cpu_user_seconds: Option<f64>,
    /// CPU time in the kernel.
    pub(crate) cpu_system_seconds: Option<f64>,
    /// CPU time in both.
    pub(crate) cpu_seconds: Option<f64>,
    /// CPU time for each token received.
    pub(crate) cpu_us_per_token: Option<f64>,
    /// CPU time for each request that ended.
    pub(crate) cpu_us_per_request: Option<f64>,
    /// Sum of the resident memory at the end.
    pub(crate) memory_bytes: Option<u64>,
    /// Sum of the peaks of the resident memory since they started (not only in this run).
    pub(crate) peak_memory_bytes: Option<u64>,
}

impl Report {
    /// Assembles a report.
    pub(crate) fn new(
        load: Load,
        elapsed_seconds: f64,
        interrupted: bool,
        stats: &Stats,
        processes: Vec<ProcessUse>,
        bench: ProcessUse,
    ) -> Self {
        let per_second = |count: u64| {
            if elapsed_seconds > 0.0 {
                count as f64 / elapsed_seconds
            } else {
                0.0
            }
        };
        let mut failures: Vec<FailureLine> = stats
            .failures
            .iter()
            .map(|((kind, code), f)| FailureLine {
                kind: kind.name(),
                code: code.clone(),
                count: f.count,
                example: f.example.clone(),
            })
            .collect();
        failures.sort_by_key(|f| std::cmp::Reverse(f.count));
        let start_delay = if load.mode == "open" {
            Quantiles::of(&stats.start_delay)
        } else {
            None
        };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            elapsed_seconds,
            interrupted,
            requests: Requests {
                succeeded: stats.succeeded,
                failed: stats.failed,
                cut_off: stats.started.saturating_sub(stats.succeeded + stats.failed),
                succeeded_per_second: per_second(stats.succeeded),
            },
            tokens: Tokens {
                received: stats.tokens,
                received_per_second: per_second(stats.tokens),
                arrivals: stats.arrivals,
            },
            latency: Latency {
                ttft: Quantiles::of(&stats.ttft),
                itl: Quantiles::of(&stats.itl),
                tpot: Quantiles::of(&stats.tpot),
                total: Quantiles::of(&stats.total),
                start_delay,
            },
            failures,
            processes,
            bench,
            load,
        }
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
