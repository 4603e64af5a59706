//! Carries out faults on the parts of a stage, and records what clients may see of them.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::plan::Act;
use super::stage::{Parts, stop_gateway, stop_worker};
use crate::link::Late;
use crate::process::Process;

/// The delay of a slow link.
const SLOW: Duration = Duration::from_millis(100);

/// A link that loses packets: one in five reads is delayed by TCP's retransmission time.
const LOSSY: Late = Late::Lost(5, Duration::from_millis(300));

/// A time without any worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deserted {
    /// When the first of them was killed.
    pub from: Instant,
    /// When the first of them was ready again.
    pub to: Instant,
}

/// What clients may see of the faults.
#[derive(Debug, Default)]
pub struct Wounds {
    /// Gateways that were killed, and when.
    pub gateways_lost: Vec<(SocketAddr, Instant)>,
    /// Times without any worker.
    pub deserted: Vec<Deserted>,
}

/// Carries out faults. Faults of different targets may run at the same time.
pub struct Play<'s> {
    parts: Parts<'s>,
    wounds: &'s Mutex<Wounds>,
}

impl<'s> Play<'s> {
    /// A player for these parts.
    pub fn new(parts: Parts<'s>, wounds: &'s Mutex<Wounds>) -> Self {
        Self { parts, wounds }
    }

    fn note(&self, note: impl FnOnce(&mut Wounds)) {
        note(&mut self.wounds.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Carries out a fault and heals it.
    pub async fn act(&self, act: Act) {
        let parts = &self.parts;
        match act {
            Act::KillWorker(number, back) => {
                let mut worker = parts.workers[number].lock().await;
                worker.kill().await;
                sleep(back).await;
                parts.start_worker(number, &mut worker).await;
            }
            Act::FreezeWorker(number, time) => {
                let worker = parts.workers[number].lock().await;
                worker.freeze();
                sleep(time).await;
                worker.thaw();
            }
            Act::RestartWorker(number) => {
                let mut worker = parts.workers[number].lock().await;
                stop_worker(&mut worker).await;
                parts.start_worker(number, &mut worker).await;
            }
            Act::KillCoordinator(number, back) => {
                let mut coordinator = parts.coordinators[number].lock().await;
                coordinator.kill().await;
                sleep(back).await;
                parts.start_coordinator(number, &mut coordinator).await;
            }
            Act::KillGateway(number, back) => {
                let mut gateway = parts.gateways[number].lock().await;
                let address = gateway.address();
                self.note(|wounds| wounds.gateways_lost.push((address, Instant::now())));
                gateway.kill().await;
                sleep(back).await;
                parts.start_gateway(number, &mut gateway).await;
            }
            Act::RestartGateway(number) => {
                let mut gateway = parts.gateways[number].lock().await;
                stop_gateway(&mut gateway).await;
                parts.start_gateway(number, &mut gateway).await;
            }
            Act::KillNats(back) => self.kill_node(0, back).await,
            Act::KillNode(number, back) => self.kill_node(number, back).await,
            Act::FreezeNode(number, time) => {
                let node = parts.nodes[number].lock().await;
                node.process().freeze();
                sleep(time).await;
                node.process().thaw();
            }
            Act::KillAllWorkers(back) => self.kill_all_workers(back).await,
            Act::CutLink(..) | Act::StallLink(..) | Act::SlowLink(..) | Act::LossyLink(..) => self.link(act).await,
        }
    }

    async fn link(&self, act: Act) {
        let links = self.parts.links;
        let (link, time) = match act {
            Act::CutLink(number, time) => {
                links[number].cut();
                (&links[number], time)
            }
            Act::StallLink(number, time) => {
                links[number].freeze();
                (&links[number], time)
            }
            Act::SlowLink(number, time) => {
                links[number].delay(SLOW);
                (&links[number], time)
            }
            Act::LossyLink(number, time) => {
                links[number].late(LOSSY);
                (&links[number], time)
            }
            _ => return,
        };
        sleep(time).await;
        link.open();
    }

    async fn kill_node(&self, number: usize, back: Duration) {
        let mut node = self.parts.nodes[number].lock().await;
        node.kill().await;
        sleep(back).await;
        node.start_again().await;
    }

    async fn kill_all_workers(&self, back: Duration) {
        let mut workers = join_all(self.parts.workers.iter().map(|worker| worker.lock())).await;
        let from = Instant::now();
        join_all(workers.iter_mut().map(|worker| worker.kill())).await;
        sleep(back).await;
        let start = async |number: usize, worker: &mut Process| {
            self.parts.start_worker(number, worker).await;
            Instant::now()
        };
        let ready = join_all(workers.iter_mut().enumerate().map(|(n, worker)| start(n, worker))).await;
        let to = ready.into_iter().min().unwrap_or_else(Instant::now);
        self.note(|wounds| wounds.deserted.push(Deserted { from, to }));
    }
}
