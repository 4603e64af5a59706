//! Statuses and times for unit tests.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokenbus_protocol::{Capabilities, ModelInfo, Name, Quantiles, Status, Totals, WorkerReport, WorkerState};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// `seconds` after a fixed moment.
pub(crate) fn at(seconds: f64) -> Instant {
    *START + Duration::from_secs_f64(seconds)
}

/// A model of which only the name is known.
pub(crate) fn info(name: &str) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        context_length: None,
        capabilities: Capabilities::default(),
    }
}

/// A ready, idle worker with four slots that serves `m`.
pub(crate) fn status(worker: &str, instance: u64, seq: u64) -> Status {
    Status {
        report: WorkerReport {
            worker: Name::new(worker).unwrap(),
            instance,
            seq,
            version: "0.1.0".to_owned(),
            host: "host".to_owned(),
            engine: "sim".to_owned(),
            state: WorkerState::Ready,
            started_at_ms: 0,
            models: vec![info("m")],
            slots: 4,
            active: 0,
            queued: 0,
            tokens_per_second: 0.0,
            ttft: Quantiles::default(),
            itl: Quantiles::default(),
            kv_used: None,
            slots_from: None,
        },
        totals: Totals::default(),
        loads: Vec::new(),
    }
}

/// `status` with a changed report.
pub(crate) fn reporting(mut status: Status, change: impl FnOnce(&mut WorkerReport)) -> Status {
    change(&mut status.report);
    status
}
