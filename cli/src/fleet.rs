//! `tokenbus fleet`: the statuses of many workers, which are not there. For measuring what a large cluster costs its
//! coordinator and gateways.

use std::process::ExitCode;
use std::time::Duration;

use tokenbus_bus::Bus;
use tokenbus_protocol::{
    Capabilities, ModelInfo, Name, Quantiles, Status, Subjects, Totals, WorkerReport, WorkerState, encode,
};

use crate::failure::Failure;
use crate::shared::{BusArgs, Shared};
use crate::{signals, ui};

/// How often the statuses that have become due are sent.
const SLICE: Duration = Duration::from_millis(1);

/// How often each worker reports.
const EVERY_MS: u64 = 1000;

/// Publishes the statuses of workers that do not exist: for benchmarks only
///
/// Each reports once a second at its own time. They take no requests, so use a cluster of its own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bus: BusArgs,

    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: u32,

    /// Models; each worker serves one
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    model_count: u32,

    /// The share of the workers whose load changes from status to status
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    busy: f64,
}

/// Publishes until the first signal.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown()?;
    let Shared { bus, namespace } = args.bus.shared("tokenbus fleet");
    let subjects = Subjects::new(namespace.clone());
    let bus = Bus::connect(&bus).await?;
    bus.connected().await;
    let mut fleet: Vec<Status> = (0..args.workers)
        .map(|number| first(number, args.model_count, &namespace))
        .collect();
    ui::println(format_args!("publishing the statuses of {} workers", fleet.len()))?;
    let mut ticks = tokio::time::interval(SLICE);
    let mut told = 0_u64;
    let begun = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
            _ = ticks.tick() => {}
        }
        let count = u64::from(args.workers);
        let passed = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = passed.saturating_mul(count) / EVERY_MS;
        for number in told..due {
            let index = usize::try_from(number % count).unwrap_or_default();
            let Some(status) = fleet.get_mut(index) else { continue };
            change(status, args.busy);
            let bytes = encode(status)?;
            bus.publish(subjects.status(&status.report.worker), bytes.into())
                .await?;
        }
        told = due;
    }
}

fn first(number: u32, models: u32, namespace: &Name) -> Status {
    let model = ModelInfo {
        name: format!("model-{}", number % models),
        context_length: Some(32_768),
        capabilities: Capabilities {
            chat: true,
            completion: true,
            tools: true,
            json_schema: true,
            continuation: true,
            ..Capabilities::default()
        },
    };
    Status {
        report: WorkerReport {
            worker: Name::sanitized(&format!("fleet-{number:05}"), namespace),
            instance: fastrand::u64(..),
            seq: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: format!("gpu-host-{number:05}.example"),
            engine: "openai".to_owned(),
            state: WorkerState::Ready,
            started_at_ms: 1_700_000_000_000,
            models: vec![model],
            slots: 64,
            slots_from: None,
            active: 0,
            queued: 0,
            tokens_per_second: 0.0,
            ttft: Quantiles::default(),
            itl: Quantiles::default(),
            kv_used: Some(0.0),
            labels: tokenbus_protocol::Labels::default(),
            tier: 0,
        },
        totals: Totals::default(),
        loads: Vec::new(),
    }
}

/// A second passes at the worker.
fn change(status: &mut Status, busy: f64) {
    status.report.seq += 1;
    if fastrand::f64() >= busy {
        return;
    }
    let report = &mut status.report;
    // Sometimes full: what makes a snapshot due at once.
    report.active = fastrand::u32(report.slots - 16..=report.slots);
    report.tokens_per_second = f64::from(report.active) * 40.0 * fastrand::f64();
    let spread = |middle: f64| Quantiles {
        p50: middle * (0.5 + fastrand::f64()),
        p90: middle * (1.5 + fastrand::f64()),
        p99: middle * (2.5 + fastrand::f64()),
    };
    report.ttft = spread(150.0);
    report.itl = spread(25.0);
    report.kv_used = Some(fastrand::f64());
    status.totals.finished += u64::from(report.active / 4);
    status.totals.tokens += u64::from(report.active) * 40;
}
