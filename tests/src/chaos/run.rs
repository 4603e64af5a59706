//! Carries out a seeded plan on a stage under load.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::pairs::Pairs;
use super::plan::{Cast, Plan};
use super::play::{Play, Wounds};
use super::stage::{Setting, Stage};
use crate::load::{Failure, Report, Running, Sample};

/// How long a gateway may not know that the first worker is ready again: a second until the next snapshot, and as
/// much again for a busy machine.
const KNOWN_BY: Duration = Duration::from_secs(2);

/// Time without any worker that a stream certainly survives: the promised 10 s, less the time to notice the loss
/// and the successor.
const SURVIVED: Duration = Duration::from_secs(7);

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Every stream.
    pub report: Report,
    /// When the first fault began.
    pub from: Instant,
    /// When the last fault was over.
    pub to: Instant,
    /// What clients may see.
    pub wounds: Wounds,
    /// Number of faults.
    pub acts: usize,
    /// The stage. It lives on, so that its logs are printed when the outcome is bad.
    pub stage: Stage,
}

impl Outcome {
    /// Whether a stream broke because the gateway with its connection was killed. This is all that a client sees of
    /// a run with one fault at a time.
    pub fn lost_with_its_gateway(&self, sample: &Sample) -> bool {
        let within = |at: Instant| sample.began <= at && sample.ended + Duration::from_secs(1) >= at;
        let mut lost = self.wounds.gateways_lost.iter();
        matches!(sample.result, Err(Failure::Broken))
            && lost.any(|(gateway, at)| *gateway == sample.gateway && within(*at))
    }

    /// Whether a client was told that there is no worker while there was none. A new request gets a 503 with
    /// Retry-After. A running stream gets an error event, and only if no worker came back in time.
    pub fn told_of_no_worker(&self, sample: &Sample) -> bool {
        self.wounds.deserted.iter().any(|deserted| {
            let then = sample.ended >= deserted.from && sample.ended <= deserted.to + KNOWN_BY;
            let long = deserted.to.duration_since(deserted.from) > SURVIVED;
            then && match &sample.result {
                Err(Failure::Status {
                    status: 503,
                    code,
                    retry_after: Some(_),
                }) => code == "no_worker" || code == "worker_lost" && long,
                Err(Failure::Told { code, .. }) => long && (code == "no_worker" || code == "worker_lost"),
                _ => false,
            }
        })
    }

    /// Whether this failure, if any, breaks no promise.
    pub fn is_allowed(&self, sample: &Sample) -> bool {
        self.lost_with_its_gateway(sample) || self.told_of_no_worker(sample)
    }
}

const CAST: Cast = Cast {
    workers: 4,
    gateways: 2,
    coordinators: 2,
};

/// Plays the plan of `seed` for `time` under `streams` streams, one fault at a time, and prints each with its time.
///
/// # Panics
/// When something hangs, or a role does not stop in good order.
pub async fn run(seed: u64, time: Duration, streams: usize) -> Outcome {
    let mut stage = Stage::start_with(setting("10s", false)).await;
    eprintln!("chaos seed {seed} for {time:?} with {streams} streams");
    let load = begin(&stage, streams).await;
    let (from, wounds, mut acts) = (Instant::now(), Mutex::default(), 0);
    let play = Play::new(stage.parts(), &wounds);
    for step in Plan::new(seed, CAST) {
        if from.elapsed() + step.pause >= time {
            break;
        }
        sleep(step.pause).await;
        eprintln!("chaos {:>7.2} s: {}", from.elapsed().as_secs_f64(), step.act);
        play.act(step.act).await;
        acts += 1;
    }
    drop(play);
    end(stage, load, from, wounds, acts).await
}

/// Like [`run`], with two faults at a time, on a NATS cluster of three servers of which one may be missing.
///
/// # Panics
/// As [`run`].
pub async fn run_double(seed: u64, time: Duration, streams: usize) -> Outcome {
    let mut stage = Stage::start_with(setting("20s", true)).await;
    eprintln!("chaos --double seed {seed} for {time:?} with {streams} streams");
    let load = begin(&stage, streams).await;
    let (from, wounds, mut acts) = (Instant::now(), Mutex::default(), 0);
    let parts = stage.parts();
    let nodes = parts.nodes.len();
    let play = Play::new(parts, &wounds);
    for pair in Pairs::new(seed, CAST, nodes) {
        if from.elapsed() + pair.pause >= time {
            break;
        }
        sleep(pair.pause).await;
        eprintln!("chaos {:>7.2} s: {pair}", from.elapsed().as_secs_f64());
        let second = async {
            sleep(pair.lag).await;
            play.act(pair.second).await;
        };
        tokio::join!(play.act(pair.first), second);
        acts += 2;
    }
    drop(play);
    end(stage, load, from, wounds, acts).await
}

/// One worker more than the load needs, and another that may be missing.
fn setting(grace: &'static str, three_nodes: bool) -> Setting {
    Setting {
        workers: CAST.workers,
        gateways: CAST.gateways,
        coordinators: CAST.coordinators,
        slots: 100,
        gateway_args: vec!["--grace", grace],
        three_nodes,
        ..Setting::default()
    }
}

async fn begin(stage: &Stage, streams: usize) -> Running {
    let load = stage.load(streams).start();
    load.flowing().await;
    load
}

/// Checks that nothing is left over: no stream, no waiting request, no unknown worker.
async fn end(stage: Stage, load: Running, from: Instant, wounds: Mutex<Wounds>, acts: usize) -> Outcome {
    let to = Instant::now();
    let mut report = load.finish().await;
    report.epoch = from; // the faults' times count from there too
    stage.settled().await;
    stage.idle().await;
    Outcome {
        report,
        from,
        to,
        wounds: wounds.into_inner().expect("nobody panicked"),
        acts,
        stage,
    }
}
