//! A whole cluster in a few lines.

use futures_util::future::join_all;
use serde_json::Value;

use crate::http::Client;
use crate::nats::{NatsOptions, NatsServer};
use crate::process::{Process, Role};
use crate::wait::eventually;

/// A nats-server and its roles. All of them are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Gateways, in order of creation.
    pub gateways: Vec<Process>,
    /// Coordinators.
    pub coordinators: Vec<Process>,
    /// Workers, in order of creation.
    pub workers: Vec<Process>,
    /// The server. Last, so that it is dropped after the roles.
    pub nats: NatsServer,
}

/// The parts of a [`Cluster`].
#[derive(Debug, Clone)]
pub struct Plan {
    nats: NatsOptions,
    gateways: Vec<Role>,
    coordinators: Vec<Role>,
    workers: Vec<Role>,
    env: Vec<(String, String)>,
}

impl Cluster {
    /// One gateway and one coordinator, no worker yet.
    pub fn plan() -> Plan {
        Plan {
            nats: NatsOptions::default(),
            gateways: vec![Role::gateway()],
            coordinators: vec![Role::coordinator()],
            workers: Vec::new(),
            env: Vec::new(),
        }
    }

    /// A client of the first gateway.
    pub fn client(&self) -> Client {
        self.gateways[0].client()
    }

    /// Starts another worker and waits until it is ready and every coordinator knows it.
    pub async fn add_worker(&mut self, role: Role) {
        let worker = role.start(&self.nats.url()).await;
        self.workers.push(worker);
        self.settled().await;
    }

    /// The capacity that the first coordinator reports.
    pub async fn capacity(&self) -> Value {
        self.coordinators[0].client().get("/capacity").await.ok()
    }

    /// Waits until every coordinator counts exactly the workers of this cluster, all of them ready.
    pub async fn settled(&self) {
        let workers = self.workers.len();
        for coordinator in &self.coordinators {
            eventually(
                &format!("{workers} ready workers at {}", coordinator.name()),
                async || {
                    let capacity = coordinator.client().get("/capacity").await;
                    let capacity: Value = serde_json::from_slice(&capacity.body).unwrap_or_default();
                    let all = capacity["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
                    let ready = all.iter().filter(|worker| worker["state"] == "ready").count();
                    if ready == workers && all.len() == workers {
                        Ok(())
                    } else {
                        Err(capacity)
                    }
                },
            )
            .await;
        }
    }

    /// Waits until every gateway lists `model`.
    pub async fn lists(&self, model: &str) {
        for gateway in &self.gateways {
            eventually(&format!("{model} at {}", gateway.name()), async || {
                let models = gateway.client().get("/v1/models").await.json();
                let listed = models["data"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["id"] == model));
                if listed { Ok(()) } else { Err(models) }
            })
            .await;
        }
    }

    /// Running requests of all workers as the first coordinator reports them, up to a second old.
    pub async fn active(&self) -> u64 {
        let capacity = self.capacity().await;
        let workers = capacity["workers"].as_array().into_iter().flatten();
        workers.filter_map(|worker| worker["active"].as_u64()).sum()
    }

    /// The place in `workers` of the one that runs a request now; waits until exactly one does.
    pub async fn busy(&self) -> usize {
        eventually("one worker that runs a request", async || {
            let capacity = self.capacity().await;
            let workers = capacity["workers"].as_array().into_iter().flatten();
            let busy: Vec<&str> = workers
                .filter(|worker| worker["active"] == 1)
                .filter_map(|worker| worker["worker"].as_str())
                .collect();
            let found = self.workers.iter().position(|worker| busy == [worker.id()]);
            found.ok_or(capacity)
        })
        .await
    }

    /// Waits until the workers together report `active` running requests.
    pub async fn wait_active(&self, active: u64) {
        eventually(&format!("{active} running requests in the capacity"), async || {
            let seen = self.active().await;
            if seen == active {
                Ok(())
            } else {
                Err((seen, self.capacity().await))
            }
        })
        .await;
    }
}

impl Plan {
    /// Options of the nats-server.
    #[must_use]
    pub fn nats(mut self, options: NatsOptions) -> Self {
        self.nats = options;
        self
    }

    /// This many gateways.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = numbered(Role::gateway, "gateway", count);
        self
    }

    /// Further arguments for every gateway.
    #[must_use]
    pub fn gateway_args(mut self, args: &[&str]) -> Self {
        self.gateways = self.gateways.into_iter().map(|role| role.args(args)).collect();
        self
    }

    /// This many coordinators. Without any, gateways know only what they see themselves.
    #[must_use]
    pub fn coordinators(mut self, count: usize) -> Self {
        self.coordinators = numbered(Role::coordinator, "coordinator", count);
        self
    }

    /// One more worker.
    #[must_use]
    pub fn worker(mut self, role: Role) -> Self {
        let name = format!("worker {}", self.workers.len());
        self.workers.push(role.named(&name));
        self
    }

    /// A variable in the environment of every role.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts everything. Waits until every role is ready, every coordinator knows every worker, and every gateway
    /// lists the models of the first coordinator.
    pub async fn start(self) -> Cluster {
        let nats = NatsServer::start_with(self.nats.clone()).await;
        let url = nats.url();
        self.start_on(nats, &url).await
    }

    /// Like [`Plan::start`], with this server, at the addresses `url`.
    pub async fn start_on(self, nats: NatsServer, url: &str) -> Cluster {
        let with = |role: Role| self.env.iter().fold(role, |role, (name, value)| role.env(name, value));
        let start = |roles: Vec<Role>| join_all(roles.into_iter().map(|role| with(role).start(url)));
        let (gateways, coordinators, workers) =
            tokio::join!(start(self.gateways), start(self.coordinators), start(self.workers));
        let cluster = Cluster {
            gateways,
            coordinators,
            workers,
            nats,
        };
        cluster.settled().await;
        if !cluster.coordinators.is_empty() {
            for model in cluster.capacity().await["models"].as_array().into_iter().flatten() {
                cluster.lists(model["model"].as_str().unwrap_or_default()).await;
            }
        }
        cluster
    }
}

fn numbered(role: fn() -> Role, name: &str, count: usize) -> Vec<Role> {
    (0..count)
        .map(|number| role().named(&format!("{name} {number}")))
        .collect()
}
