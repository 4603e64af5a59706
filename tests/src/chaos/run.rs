//! Carries a plan out on a stage under load.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::plan::{Act, Cast, Plan};
use super::stage::{Setting, Stage};
use crate::load::{Failure, Report, Sample};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Every stream.
    pub report: Report,
    /// When the first act began.
    pub from: Instant,
    /// When the last one was over.
    pub to: Instant,
    /// Gateways that were killed, and when.
    pub gateways_lost: Vec<(SocketAddr, Instant)>,
    /// Acts carried out.
    pub acts: usize,
}

impl Outcome {
    /// Whether a stream broke because the gateway that held its connection was killed: the only
    /// thing that a client sees of all that a run does.
    pub fn lost_with_its_gateway(&self, sample: &Sample) -> bool {
        matches!(sample.result, Err(Failure::Broken))
            && self.gateways_lost.iter().any(|(gateway, at)| {
                *gateway == sample.gateway && sample.began <= *at && sample.ended + Duration::from_secs(1) >= *at
            })
    }
}

/// Plays the plan of `seed` for `time` under `streams` streams, and prints each step with its time.
///
/// # Panics
/// When something hangs, or a role that was asked to stop does not end well.
pub async fn run(seed: u64, time: Duration, streams: usize) -> Outcome {
    // One worker more than the load needs, and one more that may be missing.
    let mut stage = Stage::start_with(Setting {
        workers: 4,
        slots: 100,
        gateway_args: vec!["--grace", "10s"],
        ..Setting::default()
    })
    .await;
    let cast = Cast {
        workers: 4,
        gateways: 2,
        coordinators: 2,
    };
    let load = stage.load(streams).start();
    load.flowing().await;
    let from = Instant::now();
    let mut gateways_lost = Vec::new();
    let mut acts = 0;
    eprintln!("chaos seed {seed} for {time:?} with {streams} streams");
    for step in Plan::new(seed, cast) {
        if from.elapsed() + step.pause >= time {
            break;
        }
        sleep(step.pause).await;
        eprintln!("chaos {:>7.2} s: {}", from.elapsed().as_secs_f64(), step.act);
        if let Act::KillGateway(number, _) = step.act {
            gateways_lost.push((stage.gateways()[number], Instant::now()));
        }
        play(&mut stage, step.act).await;
        acts += 1;
    }
    let to = Instant::now();
    let report = load.finish().await;
    stage.settled().await;
    stage.idle().await;
    Outcome {
        report,
        from,
        to,
        gateways_lost,
        acts,
    }
}

async fn play(stage: &mut Stage, act: Act) {
    match act {
        Act::KillWorker(number, back) => {
            stage.kill_worker(number).await;
            sleep(back).await;
            stage.start_worker(number).await;
        }
        Act::FreezeWorker(number, time) => {
            stage.cluster.workers[number].freeze();
            sleep(time).await;
            stage.cluster.workers[number].thaw();
        }
        Act::RestartWorker(number) => stage.restart_worker(number).await,
        Act::CutLink(number, time) => {
            stage.links[number].cut();
            sleep(time).await;
            stage.links[number].open();
        }
        Act::StallLink(number, time) => {
            stage.links[number].freeze();
            sleep(time).await;
            stage.links[number].open();
        }
        Act::SlowLink(number, time) => {
            stage.links[number].delay(Duration::from_millis(100));
            sleep(time).await;
            stage.links[number].open();
        }
        Act::KillCoordinator(number, back) => {
            stage.kill_coordinator(number).await;
            sleep(back).await;
            stage.start_coordinator(number).await;
        }
        Act::KillGateway(number, back) => {
            stage.kill_gateway(number).await;
            sleep(back).await;
            stage.start_gateway(number).await;
        }
        Act::RestartGateway(number) => stage.restart_gateway(number).await,
        Act::KillNats(back) => {
            stage.cluster.nats.kill().await;
            sleep(back).await;
            stage.cluster.nats.start_again().await;
        }
    }
}
