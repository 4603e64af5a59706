//! Snapshots for tests.

use tokenbus_protocol::{
    Capabilities, Capacity, ModelCapacity, ModelInfo, Name, Quantiles, Total, WorkerCapacity, WorkerReport, WorkerState,
};

/// A name.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A ready worker of the model `m`, in a snapshot in which its status is `age_ms` old.
pub(crate) fn worker(id: &str, slots: u32, active: u32, age_ms: u64) -> WorkerCapacity {
    WorkerCapacity {
        report: WorkerReport {
            worker: name(id),
            instance: 1,
            seq: 1,
            version: "0".into(),
            host: "h".into(),
            engine: "sim".into(),
            state: WorkerState::Ready,
            started_at_ms: 0,
            models: vec![ModelInfo {
                name: "m".into(),
                context_length: None,
                capabilities: Capabilities::default(),
            }],
            slots,
            active,
            queued: 0,
            tokens_per_second: 0.0,
            ttft: Quantiles::default(),
            itl: Quantiles::default(),
            kv_used: None,
            slots_from: None,
        },
        age_ms,
    }
}

/// A snapshot with these workers.
pub(crate) fn capacity(workers: Vec<WorkerCapacity>) -> Capacity {
    let live = workers
        .iter()
        .filter(|worker| worker.report.state == WorkerState::Ready)
        .count();
    let model = ModelCapacity {
        model: "m".into(),
        workers: u32::try_from(live).unwrap_or(0),
        slots: 0,
        free: 0,
        active: 0,
        queued: 0,
        waiting: 0,
        tokens_per_second: 0.0,
        estimated_wait_ms: None,
        desired_workers: 0,
        on_demand: false,
        context_length: Some(4096),
        capabilities: Capabilities::default(),
    };
    Capacity {
        coordinator: name("c"),
        seq: 1,
        at_ms: 0,
        workers,
        models: vec![model],
        total: Total::default(),
        lost: vec![],
    }
}
