//! The cluster that the fault tests hurt: each role can be killed, frozen, stopped, started again
//! under the same id and address, and cut off.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::limits::STOP;
use crate::link::Link;
use crate::load::Load;
use crate::nats::NatsOptions;
use crate::process::{Process, Role};
use crate::wait::eventually;

/// The model that the workers of a [`Stage`] serve.
pub const MODEL: &str = "m";

/// How a [`Stage`] is set.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Gateways.
    pub gateways: usize,
    /// Coordinators.
    pub coordinators: usize,
    /// Workers with the simulated engine.
    pub workers: usize,
    /// Slots of each.
    pub slots: u32,
    /// Time to the first token.
    pub ttft: &'static str,
    /// Time between tokens.
    pub itl: &'static str,
    /// Further arguments of the gateways.
    pub gateway_args: Vec<&'static str>,
}

/// Two gateways, two coordinators, three workers of which any two have room for 200 streams.
impl Default for Setting {
    fn default() -> Self {
        Self {
            gateways: 2,
            coordinators: 2,
            workers: 3,
            slots: 120,
            ttft: "20ms",
            itl: "10ms",
            gateway_args: Vec::new(),
        }
    }
}

/// A cluster that can be hurt.
#[derive(Debug)]
pub struct Stage {
    /// The processes.
    pub cluster: Cluster,
    /// Of each worker, what stands between it and NATS.
    pub links: Vec<Link>,
    setting: Setting,
    /// Of each gateway, where it listens, also after a restart.
    addresses: Vec<SocketAddr>,
}

impl Stage {
    /// As [`Stage::start_with`] the default setting.
    pub async fn start() -> Self {
        Self::start_with(Setting::default()).await
    }

    /// Starts everything and waits until all know each other.
    pub async fn start_with(setting: Setting) -> Self {
        let plan = Cluster::plan().nats(NatsOptions {
            jetstream: true,
            ..NatsOptions::default()
        });
        let cluster = plan
            .gateways(setting.gateways)
            .gateway_args(&setting.gateway_args)
            .coordinators(setting.coordinators)
            .start()
            .await;
        let addresses = cluster.gateways.iter().map(Process::address).collect();
        let mut stage = Self {
            cluster,
            links: Vec::new(),
            setting,
            addresses,
        };
        for number in 0..stage.setting.workers {
            let link = Link::to(stage.nats_address()).await;
            stage.links.push(link);
            let worker = stage.worker(number).start(&stage.worker_url(number)).await;
            stage.cluster.workers.push(worker);
        }
        stage.settled().await;
        stage
    }

    fn nats_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.cluster.nats.port()))
    }

    fn worker_url(&self, number: usize) -> String {
        format!("nats://{}", self.links[number].address())
    }

    fn worker(&self, number: usize) -> Role {
        Role::sim(MODEL, self.setting.slots)
            .pace(self.setting.ttft, self.setting.itl)
            .args(&["--id", &format!("w{number}"), "--grace", "2s"])
            .named(&format!("worker {number}"))
    }

    /// Where the gateways listen.
    pub fn gateways(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A load of `streams` at all gateways.
    pub fn load(&self, streams: usize) -> Load {
        Load::new(&self.addresses, MODEL, streams)
    }

    /// Everyone knows everyone, and every gateway is ready.
    pub async fn settled(&self) {
        self.cluster.settled().await;
        self.cluster.lists(MODEL).await;
    }

    /// Waits until the workers report this many running requests, all together.
    pub async fn active(&self, count: u64) {
        self.cluster.wait_active(count).await;
    }

    /// Running requests of one worker, as a coordinator tells; up to a second old.
    pub async fn active_of(&self, number: usize) -> u64 {
        let capacity = self.cluster.capacity().await;
        let id = format!("w{number}");
        let mut all = capacity["workers"].as_array().into_iter().flatten();
        let own = all.find(|worker| worker["worker"] == id.as_str());
        own.and_then(|worker| worker["active"].as_u64()).unwrap_or_default()
    }

    /// kill -9 of a worker.
    pub async fn kill_worker(&mut self, number: usize) {
        self.cluster.workers[number].kill().await;
    }

    /// Starts a worker anew under its old id, and waits until it is ready.
    pub async fn start_worker(&mut self, number: usize) {
        let worker = self.worker(number).start(&self.worker_url(number)).await;
        self.cluster.workers[number] = worker;
    }

    /// SIGTERM to a worker, its end, and its new start. It must end well.
    pub async fn restart_worker(&mut self, number: usize) {
        let status = self.cluster.workers[number].stop().await;
        assert!(status.success(), "worker {number}: {status}");
        self.start_worker(number).await;
    }

    /// kill -9 of a gateway.
    pub async fn kill_gateway(&mut self, number: usize) {
        self.cluster.gateways[number].kill().await;
    }

    /// Starts a gateway at its old address.
    pub async fn start_gateway(&mut self, number: usize) {
        let address = self.addresses[number].to_string();
        let role = Role::new("gateway")
            .args(&["--listen", &address])
            .args(&self.setting.gateway_args)
            .named(&format!("gateway {number}"));
        self.cluster.gateways[number] = role.start(&self.cluster.nats.url()).await;
    }

    /// SIGTERM to a gateway, its end, and its new start. It must end well.
    pub async fn restart_gateway(&mut self, number: usize) {
        let gateway = &mut self.cluster.gateways[number];
        gateway.signal(Signal::SIGTERM);
        // Its streams have up to their own length, and its listener up to its drain delay.
        let status = gateway.exited(STOP + Duration::from_secs(10)).await;
        assert!(status.success(), "gateway {number}: {status}");
        self.start_gateway(number).await;
    }

    /// kill -9 of a coordinator.
    pub async fn kill_coordinator(&mut self, number: usize) {
        self.cluster.coordinators[number].kill().await;
    }

    /// Starts a coordinator.
    pub async fn start_coordinator(&mut self, number: usize) {
        let role = Role::coordinator().named(&format!("coordinator {number}"));
        self.cluster.coordinators[number] = role.start(&self.cluster.nats.url()).await;
    }

    /// Waits until nothing runs and nothing waits anywhere: no slot and no place has leaked.
    pub async fn idle(&self) {
        self.active(0).await;
        for gateway in &self.cluster.gateways {
            eventually(&format!("{} to be idle", gateway.name()), async || {
                let page = gateway.client().get("/metrics").await.text();
                let samples = crate::metrics::parse(&page);
                let sum = |name| crate::metrics::sum(&samples, name, &[]);
                let left = sum("tokenbus_gateway_requests_in_flight") + sum("tokenbus_gateway_requests_waiting");
                if left.abs() < f64::EPSILON { Ok(()) } else { Err(left) }
            })
            .await;
        }
    }

    /// The first gateway's answer to whether it is ready.
    pub async fn ready(&self, number: usize) -> bool {
        let answer = self.cluster.gateways[number].client().try_get("/readyz").await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The sum of a metric over all gateways.
    pub async fn gateway_metric(&self, name: &str) -> f64 {
        let mut total = 0.0;
        for gateway in &self.cluster.gateways {
            let page = gateway.client().get("/metrics").await.text();
            total += crate::metrics::sum(&crate::metrics::parse(&page), name, &[]);
        }
        total
    }

    /// The newest capacity, whoever tells it.
    pub async fn capacity(&self) -> Value {
        self.cluster.capacity().await
    }
}
