//! A site behind a leaf node, on the configuration that `tokenbus nats-config --site` writes: its roles and the
//! cluster's are one, with keys, stored responses, usage and the lease in the cluster's JetStream.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};
use tokenbus_tests::ask::{ask_for, sim_text};
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Client, ClosedBus, Process, Role, eventually, port};

/// Two gateways, coordinators and workers: those of the cluster, and those of the site.
struct Both {
    bus: ClosedBus,
    leaf_port: u16,
}

impl Both {
    async fn role(&self, role: Role, user: &str) -> Process {
        self.bus.role(role, user).start(&self.bus.urls()).await
    }

    async fn at_site(&self, role: Role) -> Process {
        let url = format!("nats://127.0.0.1:{}", self.leaf_port);
        self.bus.role(role, "site-a").start(&url).await
    }
}

fn gateway() -> Role {
    Role::gateway().args(&["--keys", "kv", "--usage-stream", "billing"])
}

fn worker(model: &str, id: &str) -> Role {
    Role::sim(model, 8).pace("1ms", "10ms").args(&["--id", id]).named(id)
}

/// The answer, once it is there.
async fn stored(client: &Client, key: &str, model: &str) -> String {
    let body = json!({"model": model, "input": "a", "max_output_tokens": 3, "store": true});
    let answer = eventually(model, async || {
        let answer = client.post("/v1/responses", &[("authorization", key)], &body).await;
        let answer = answer.collect().await;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(answer)
        }
    })
    .await;
    answer["id"].as_str().unwrap().to_owned()
}

async fn read(client: &Client, key: &str, id: &str) -> Value {
    let headers = [("authorization", key)];
    let path = format!("/v1/responses/{id}");
    let answer = client.request(http::Method::GET, &path, &headers, "".into()).await;
    answer.json()
}

async fn leads(coordinator: &Process) -> f64 {
    let page = coordinator.client().get("/metrics").await.text();
    sum(&parse(&page), "tokenbus_coordinator_leading", &[])
}

#[tokio::test]
async fn a_site_behind_a_leaf_node_is_part_of_the_cluster() {
    let bus = ClosedBus::start_with(1, &[("w1", &["*"])], &["a"]).await;
    let leaf_port = port::lasting();
    let mut leaf = bus.leaf("a", leaf_port).await;
    let both = Both { bus, leaf_port };
    let domain = ["--js-domain", "tb"];
    let said = both.bus.run("keys", &["keys", "create", "alice", "--keys", "kv"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let key = format!("Bearer {}", said.stdout.trim());

    let hub = both.role(gateway(), "gateway").await;
    let site = both.at_site(gateway().args(&domain).named("site gateway")).await;
    let coordinators = [
        both.role(Role::coordinator(), "coordinator").await,
        both.at_site(Role::coordinator().args(&domain).named("site coordinator"))
            .await,
    ];
    let workers = [
        both.role(worker("m/hub", "w1"), "worker-w1").await,
        both.at_site(worker("m/site", "w2")).await,
    ];

    // Each gateway reaches each worker, and reads what the other has stored.
    for (gateway, other) in [(&hub, &site), (&site, &hub)] {
        for model in ["m/hub", "m/site"] {
            let id = stored(&gateway.client(), &key, model).await;
            assert_eq!(read(&other.client(), &key, &id).await["id"], id.as_str(), "{model}");
        }
    }
    eventually("one leader of two", async || {
        let leading = (leads(&coordinators[0]).await, leads(&coordinators[1]).await);
        if leading.0 + leading.1 == 1.0 {
            Ok(())
        } else {
            Err(leading)
        }
    })
    .await;

    // The leaf node is killed under a stream that it carries, and comes back.
    let headers = [("authorization", key.as_str())];
    let mut stream = site.client().stream_with(&headers, &ask_for("m/hub", 300)).await;
    let mut text = stream.text().await;
    leaf.kill().await;
    let _leaf = both.bus.leaf("a", leaf_port).await;
    let rest = stream.transcript().await;
    text += &rest.text();
    assert_eq!((text, rest.error()), (sim_text(300), None));

    let revoked = both.bus.run("keys", &["keys", "revoke", "alice", "--keys", "kv"]).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    for gateway in [&hub, &site] {
        eventually("the end of the key", async || {
            let answer = gateway.client().chat_with(&headers, &ask_for("m/hub", 1)).await;
            if answer.status == 401 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    for role in [&hub, &site].into_iter().chain(&coordinators).chain(&workers) {
        let lines = role.logs().lines();
        assert!(
            !lines.iter().any(|line| line.contains("NATS refuses")),
            "{}: {lines:?}",
            role.name()
        );
    }
}
