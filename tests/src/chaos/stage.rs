//! The cluster of the fault tests. Each role can be killed, frozen, stopped, cut off, and restarted under the same
//! id and address.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::limits::STOP;
use crate::link::Link;
use crate::load::Load;
use crate::nats::{NatsOptions, NatsServer};
use crate::process::{Process, Role};
use crate::wait::eventually;

/// The model that the workers of a [`Stage`] serve.
pub const MODEL: &str = "m";

/// The settings of a [`Stage`].
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
    /// Whether NATS is a cluster of three servers and not a single one.
    pub three_nodes: bool,
}

/// Two gateways, two coordinators, and three workers of which any two have slots for 200 streams.
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
            three_nodes: false,
        }
    }
}

/// A cluster with faults.
#[derive(Debug)]
pub struct Stage {
    /// The processes, and the first NATS server.
    pub cluster: Cluster,
    /// The link of each worker to NATS.
    pub links: Vec<Link>,
    /// The NATS servers after the first.
    nodes: Vec<NatsServer>,
    roles: Roles,
}

/// How each role is started and restarted.
#[derive(Debug)]
struct Roles {
    setting: Setting,
    /// The address of each gateway.
    addresses: Vec<SocketAddr>,
    /// The address of each worker's link.
    links: Vec<SocketAddr>,
    /// The NATS address of the other roles.
    nats: String,
}

impl Roles {
    async fn worker(&self, number: usize) -> Process {
        let role = Role::sim(MODEL, self.setting.slots)
            .pace(self.setting.ttft, self.setting.itl)
            .args(&["--id", &format!("w{number}"), "--grace", "2s"])
            .named(&format!("worker {number}"));
        role.start(&format!("nats://{}", self.links[number])).await
    }

    async fn gateway(&self, number: usize) -> Process {
        let role = Role::new("gateway")
            .args(&["--listen", &self.addresses[number].to_string()])
            .args(&self.setting.gateway_args)
            .named(&format!("gateway {number}"));
        role.start(&self.nats).await
    }

    async fn coordinator(&self, number: usize) -> Process {
        let role = Role::coordinator().named(&format!("coordinator {number}"));
        role.start(&self.nats).await
    }
}

/// The parts of a [`Stage`], so that several can have faults at once. Each is locked for the duration of its fault.
#[derive(Debug)]
pub struct Parts<'s> {
    /// Workers.
    pub workers: Vec<Mutex<&'s mut Process>>,
    /// Gateways.
    pub gateways: Vec<Mutex<&'s mut Process>>,
    /// Coordinators.
    pub coordinators: Vec<Mutex<&'s mut Process>>,
    /// Servers of NATS.
    pub nodes: Vec<Mutex<&'s mut NatsServer>>,
    /// The link of each worker to NATS.
    pub links: &'s [Link],
    roles: &'s Roles,
}

impl Parts<'_> {
    /// Restarts a worker under its old id, in place of `gone`, and waits until it is ready.
    pub async fn start_worker(&self, number: usize, gone: &mut Process) {
        *gone = self.roles.worker(number).await;
    }

    /// Starts a gateway at its old address.
    pub async fn start_gateway(&self, number: usize, gone: &mut Process) {
        *gone = self.roles.gateway(number).await;
    }

    /// Starts a coordinator.
    pub async fn start_coordinator(&self, number: usize, gone: &mut Process) {
        *gone = self.roles.coordinator(number).await;
    }
}

/// Stops a worker with SIGTERM. It must end in good order.
///
/// # Panics
/// When it does not.
pub async fn stop_worker(worker: &mut Process) {
    let status = worker.stop().await;
    assert!(status.success(), "{}: {status}", worker.name());
}

/// Stops a gateway with SIGTERM. It must end in good order.
///
/// # Panics
/// When it does not.
pub async fn stop_gateway(gateway: &mut Process) {
    gateway.signal(Signal::SIGTERM);
    // Its streams may take their own length, and its listener its drain delay.
    let status = gateway.exited(STOP + Duration::from_secs(10)).await;
    assert!(status.success(), "{}: {status}", gateway.name());
}

impl Stage {
    /// [`Stage::start_with`] the default settings.
    pub async fn start() -> Self {
        Self::start_with(Setting::default()).await
    }

    /// Starts everything and waits until all know each other.
    pub async fn start_with(setting: Setting) -> Self {
        let mut nodes = if setting.three_nodes {
            NatsServer::cluster().await
        } else {
            vec![
                NatsServer::start_with(NatsOptions {
                    jetstream: true,
                    ..NatsOptions::default()
                })
                .await,
            ]
        };
        let at = nodes.iter().map(|node| SocketAddr::from(([127, 0, 0, 1], node.port())));
        let at: Vec<SocketAddr> = at.collect();
        let nats = nodes.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
        let plan = Cluster::plan()
            .gateways(setting.gateways)
            .gateway_args(&setting.gateway_args)
            .coordinators(setting.coordinators);
        let cluster = plan.start_on(nodes.remove(0), &nats).await;
        let mut links = Vec::new();
        for number in 0..setting.workers {
            let mut targets = at.clone();
            targets.rotate_left(number % at.len());
            links.push(Link::to_one_of(targets).await);
        }
        let roles = Roles {
            addresses: cluster.gateways.iter().map(Process::address).collect(),
            links: links.iter().map(Link::address).collect(),
            setting,
            nats,
        };
        let mut stage = Self {
            cluster,
            links,
            nodes,
            roles,
        };
        for number in 0..stage.links.len() {
            let worker = stage.roles.worker(number).await;
            stage.cluster.workers.push(worker);
        }
        stage.settled().await;
        stage
    }

    /// Everything that can have a fault, each by itself.
    pub fn parts(&mut self) -> Parts<'_> {
        fn each<T>(all: &mut [T]) -> Vec<Mutex<&mut T>> {
            all.iter_mut().map(Mutex::new).collect()
        }
        let Cluster {
            gateways,
            coordinators,
            workers,
            nats,
        } = &mut self.cluster;
        let nodes = std::iter::once(nats).chain(&mut self.nodes);
        Parts {
            workers: each(workers),
            gateways: each(gateways),
            coordinators: each(coordinators),
            nodes: nodes.map(Mutex::new).collect(),
            links: &self.links,
            roles: &self.roles,
        }
    }

    /// The addresses of the gateways.
    pub fn gateways(&self) -> &[SocketAddr] {
        &self.roles.addresses
    }

    /// A load of `streams` at all gateways.
    pub fn load(&self, streams: usize) -> Load {
        Load::new(&self.roles.addresses, MODEL, streams)
    }

    /// Waits until all roles know each other and every gateway is ready.
    pub async fn settled(&self) {
        self.cluster.settled().await;
        self.cluster.lists(MODEL).await;
    }

    /// Waits until the workers together report this many running requests.
    pub async fn active(&self, count: u64) {
        self.cluster.wait_active(count).await;
    }

    /// Running requests of one worker as a coordinator reports them, up to a second old.
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

    /// Restarts a worker under its old id and waits until it is ready.
    pub async fn start_worker(&mut self, number: usize) {
        self.cluster.workers[number] = self.roles.worker(number).await;
    }

    /// Stops a worker with SIGTERM and restarts it. It must end in good order.
    pub async fn restart_worker(&mut self, number: usize) {
        stop_worker(&mut self.cluster.workers[number]).await;
        self.start_worker(number).await;
    }

    /// kill -9 of a gateway.
    pub async fn kill_gateway(&mut self, number: usize) {
        self.cluster.gateways[number].kill().await;
    }

    /// Starts a gateway at its old address.
    pub async fn start_gateway(&mut self, number: usize) {
        self.cluster.gateways[number] = self.roles.gateway(number).await;
    }

    /// Stops a gateway with SIGTERM and restarts it. It must end in good order.
    pub async fn restart_gateway(&mut self, number: usize) {
        stop_gateway(&mut self.cluster.gateways[number]).await;
        self.start_gateway(number).await;
    }

    /// kill -9 of a coordinator.
    pub async fn kill_coordinator(&mut self, number: usize) {
        self.cluster.coordinators[number].kill().await;
    }

    /// Starts a coordinator.
    pub async fn start_coordinator(&mut self, number: usize) {
        self.cluster.coordinators[number] = self.roles.coordinator(number).await;
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

    /// Whether the gateway says that it is ready.
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

    /// The newest capacity from any coordinator.
    pub async fn capacity(&self) -> Value {
        self.cluster.capacity().await
    }
}
