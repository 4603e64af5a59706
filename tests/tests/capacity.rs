//! Slots, queues, and what the coordinator tells of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream, binary, eventually, metrics, within};

/// Waits until `gateway` says that `count` requests wait for room.
async fn wait_waiting(gateway: Client, count: u64) {
    eventually(&format!("{count} waiting requests"), async || {
        let page = gateway.get("/metrics").await.text();
        let samples = metrics::parse(&page);
        let waiting: f64 = samples
            .iter()
            .filter(|one| one.name.ends_with("waiting"))
            .map(|one| one.value)
            .sum();
        if (waiting - count as f64).abs() < 0.5 {
            Ok(())
        } else {
            Err(page)
        }
    })
    .await;
}

#[tokio::test]
async fn in_flight_never_exceeds_the_slots_and_all_that_wait_are_served() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan()
        .gateways(2)
        .worker(Role::proxy(&upstream, 3))
        .start()
        .await;
    let gate = Gate::new();
    upstream.always(Script::texts(&["done"]).after(&gate));
    let clients = [cluster.gateways[0].client(), cluster.gateways[1].client()];
    let asked: Vec<_> = (0..24)
        .map(|number| {
            let client = clients[number % 2];
            tokio::spawn(async move { client.chat(&ask("m")).await.content() })
        })
        .collect();
    upstream.wait_running(3).await;
    cluster.wait_active(3).await;
    gate.open();
    let answers = within("all answers", join_all(asked)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == "done"));
    assert_eq!(upstream.peak(), 3);
    assert_eq!(upstream.requests().len(), 24, "no request runs twice");
}

#[tokio::test]
async fn higher_priority_is_served_first_and_equals_in_the_order_of_arrival() {
    let upstream = Upstream::start(&["m"]).await;
    let plan = Cluster::plan().gateway_args(&["--max-priority", "4"]);
    let cluster = plan.worker(Role::proxy(&upstream, 1)).start().await;
    let client = cluster.client();
    let gate = Gate::new();
    upstream.next(Script::texts(&["first"]).after(&gate));
    let mut asked = vec![tokio::spawn(async move { client.chat(&ask("m")).await.content() })];
    upstream.request(0).await;
    // A client without a key gets no more priority than the bound.
    for (number, (name, priority)) in [("low 1", "0"), ("low 2", "0"), ("high 1", "4"), ("high 2", "1000")]
        .into_iter()
        .enumerate()
    {
        let body = with(ask("m"), "user", json!(name));
        let priority = [("x-tokenbus-priority", priority)];
        asked.push(tokio::spawn(async move {
            client.chat_with(&priority, &body).await.content()
        }));
        wait_waiting(client, number as u64 + 1).await;
    }
    gate.open();
    within("all answers", join_all(asked)).await;
    let order: Vec<Value> = upstream.requests()[1..]
        .iter()
        .map(|one| one.json()["user"].clone())
        .collect();
    assert_eq!(order, ["high 1", "high 2", "low 1", "low 2"]);
}

#[tokio::test]
async fn a_full_waiting_room_answers_429_with_retry_after() {
    let upstream = Upstream::start(&["m"]).await;
    let plan = Cluster::plan().gateway_args(&["--waiting", "2"]);
    let cluster = plan.worker(Role::proxy(&upstream, 1)).start().await;
    let client = cluster.client();
    let gate = Gate::new();
    upstream.always(Script::texts(&["done"]).after(&gate));
    let mut asked = vec![tokio::spawn(async move { client.chat(&ask("m")).await.content() })];
    upstream.request(0).await;
    for waiting in 1..=2 {
        asked.push(tokio::spawn(async move { client.chat(&ask("m")).await.content() }));
        wait_waiting(client, waiting).await;
    }
    for streaming in [false, true] {
        let answer = client.chat(&with(ask("m"), "stream", json!(streaming))).await;
        answer.error(429);
        answer.retry_after();
    }
    gate.open();
    let answers = within("those that waited", join_all(asked)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == "done"));
    assert_eq!(client.chat(&ask("m")).await.content(), "done");
}

#[tokio::test]
async fn a_request_that_waits_past_its_deadline_is_a_504_and_is_never_run() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let client = cluster.client();
    let gate = Gate::new();
    upstream.next(Script::texts(&["first"]).after(&gate));
    let first = tokio::spawn(async move { client.chat(&ask("m")).await.content() });
    upstream.request(0).await;
    client
        .chat_with(&[("x-request-timeout", "1")], &ask("m"))
        .await
        .error(504);
    gate.open();
    assert_eq!(within("the first answer", first).await.unwrap(), "first");
    assert_eq!(client.chat(&ask("m")).await.content(), "Hello world");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn the_capacity_tells_each_worker_and_model() {
    let upstream = Upstream::start(&["m", "n"]).await;
    let cluster = Cluster::plan()
        .worker(Role::proxy(&upstream, 4).args(&["--id", "w-proxy"]))
        .worker(Role::sim("m", 3).args(&["--id", "w-sim"]))
        .start()
        .await;
    let gate = Gate::new();
    upstream.always(Script::texts(&["done"]).after(&gate));
    let client = cluster.client();
    let asked: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { client.chat(&ask("n")).await.content() }))
        .collect();
    upstream.wait_running(2).await;
    cluster.wait_active(2).await;
    let capacity = cluster.capacity().await;
    let find = |list: &str, key: &str, name: &str| {
        let all = capacity[list].as_array().unwrap();
        all.iter()
            .find(|one| one[key] == name)
            .unwrap_or_else(|| panic!("no {name} in {capacity}"))
            .clone()
    };
    let proxy = find("workers", "worker", "w-proxy");
    assert_eq!(
        (&proxy["slots"], &proxy["active"], &proxy["queued"]),
        (&json!(4), &json!(2), &json!(0))
    );
    assert_eq!(proxy["engine"], "openai");
    assert!(proxy["seq"].as_u64().unwrap() > 0);
    let m = find("models", "model", "m");
    assert_eq!(
        (&m["workers"], &m["slots"], &m["free"]),
        (&json!(2), &json!(7), &json!(5))
    );
    let n = find("models", "model", "n");
    assert_eq!(
        (&n["workers"], &n["slots"], &n["active"]),
        (&json!(1), &json!(4), &json!(2))
    );
    gate.open();
    within("the answers", join_all(asked)).await;
    cluster.wait_active(0).await;
}

#[tokio::test]
async fn a_silent_worker_is_lost_and_one_that_registers_again_is_counted_once() {
    let mut cluster = Cluster::plan().worker(Role::sim("m", 2)).start().await;
    cluster.add_worker(Role::sim("m", 3).args(&["--id", "w-again"])).await;
    let mut killed = cluster.workers.pop().unwrap();
    killed.kill().await;
    cluster.settled().await;
    assert_eq!(cluster.capacity().await["models"][0]["slots"], 2);
    cluster.add_worker(Role::sim("m", 5).args(&["--id", "w-again"])).await;
    // Its next life begins before its last has been missed.
    let mut killed = cluster.workers.pop().unwrap();
    killed.kill().await;
    cluster.add_worker(Role::sim("m", 7).args(&["--id", "w-again"])).await;
    eventually("one worker of 7 slots in the place of the other", async || {
        let capacity = cluster.capacity().await;
        let workers = capacity["workers"].as_array().unwrap();
        let again: Vec<_> = workers.iter().filter(|worker| worker["worker"] == "w-again").collect();
        let right = again.len() == 1 && again[0]["slots"] == 7 && capacity["models"][0]["slots"] == 9;
        if right { Ok(()) } else { Err(capacity.clone()) }
    })
    .await;
}

#[tokio::test]
async fn a_frozen_worker_is_lost_and_comes_back() {
    let mut cluster = Cluster::plan().worker(Role::sim("m", 2)).start().await;
    cluster.workers[0].freeze();
    let frozen = cluster.workers.pop().unwrap();
    cluster.settled().await;
    frozen.thaw();
    cluster.workers.push(frozen);
    cluster.settled().await;
    assert_eq!(cluster.client().chat(&ask_for("m", 2)).await.content(), sim_text(2));
}

/// Waits until the coordinator tells `expected` of the models `a` and `b` and of all together: what runs and what
/// waits at gateways.
async fn told(cluster: &Cluster, expected: [(u64, u64); 3]) -> Value {
    eventually(&format!("active and waiting of {expected:?}"), async || {
        let capacity = cluster.capacity().await;
        let of = |one: &Value| (one["active"].as_u64().unwrap(), one["waiting"].as_u64().unwrap());
        let models = capacity["models"].as_array().unwrap();
        match models.as_slice() {
            [a, b] if [of(a), of(b), of(&capacity["total"])] == expected => Ok(capacity),
            _ => Err(capacity),
        }
    })
    .await
}

/// The coordinator's metrics have these sums; of what is told by model too, the models' have the same.
async fn has_sums(cluster: &Cluster, expected: [(&str, f64); 3]) {
    let page = cluster.coordinators[0].client().get("/metrics").await.text();
    let samples = metrics::parse(&page);
    for (name, value) in expected {
        let sum = |prefix: &str| metrics::sum(&samples, &format!("tokenbus_coordinator_{prefix}{name}"), &[]);
        assert_eq!(sum(""), value, "{name} in {page}");
        // Slots are shared between models.
        assert!(
            name == "slots" || sum("model_") == value,
            "{name} of the models in {page}"
        );
    }
}

#[tokio::test]
async fn a_worker_with_two_models_is_counted_once_and_what_waits_at_gateways_is_told() {
    let upstream = Upstream::start(&["a", "b"]).await;
    let mut cluster = Cluster::plan()
        .gateways(2)
        .worker(Role::proxy(&upstream, 4))
        .start()
        .await;
    let clients = [cluster.gateways[0].client(), cluster.gateways[1].client()];
    let gate = Gate::new();
    upstream.always(Script::texts(&["done"]).after(&gate));
    let begin = |client: Client, model: &'static str| tokio::spawn(async move { client.chat(&ask(model)).await });
    let mut asked: Vec<_> = ["a", "b", "b", "b"].map(|model| begin(clients[0], model)).into();
    upstream.wait_running(4).await;
    told(&cluster, [(1, 0), (3, 0), (4, 0)]).await;
    asked.push(begin(clients[0], "a"));
    asked.extend([0, 1].map(|_| begin(clients[0], "b")));
    let doomed = begin(clients[1], "b");

    let capacity = told(&cluster, [(1, 1), (3, 3), (4, 4)]).await;
    let total = &capacity["total"];
    assert_eq!(
        (&total["workers"], &total["slots"], &total["free"]),
        (&json!(1), &json!(4), &json!(0))
    );
    for model in capacity["models"].as_array().unwrap() {
        assert_eq!(
            (&model["slots"], &model["free"]),
            (&json!(4), &json!(0)),
            "they are shared"
        );
    }
    assert_eq!(
        capacity["models"][1]["desired_workers"], 2,
        "six requests on four slots"
    );
    has_sums(&cluster, [("active", 4.0), ("slots", 4.0), ("waiting", 4.0)]).await;
    eventually("the gateway's page", async || {
        let seen = clients[1].get("/cluster").await.ok();
        let waiting: Vec<_> = seen["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["waiting"].as_u64())
            .collect();
        if waiting == [Some(1), Some(3)] {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;

    cluster.gateways[1].kill().await;
    told(&cluster, [(1, 1), (3, 2), (4, 3)]).await;
    doomed.abort();
    gate.open();
    let answers = within("all answers", join_all(asked)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().content() == "done"));
    told(&cluster, [(0, 0), (0, 0), (0, 0)]).await;
}

#[tokio::test]
async fn a_worker_tells_where_its_slots_come_from() {
    let (plain, vllm) = (Upstream::start(&["p"]).await, Upstream::start_vllm("v").await);
    let cache = "vllm:cache_config_info{block_size=\"16\",kv_cache_max_concurrency=\"3.0\"} 1.0\n";
    let load = |running: u32, waiting: u32| {
        format!(
            "{cache}vllm:num_requests_running {running}.0\n\
             vllm:num_requests_waiting_by_reason{{reason=\"capacity\"}} {waiting}.0\n"
        )
    };
    vllm.metrics(load(0, 0));
    let of = |upstream: &Upstream, id: &str| {
        Role::new("worker").args(&["--engine", "openai", "--url", &upstream.url(), "--id", id])
    };
    let plan = Cluster::plan()
        .worker(Role::sim("m", 2).args(&["--id", "flag"]))
        .worker(of(&plain, "default"))
        .worker(of(&vllm, "vllm"));
    let cluster = plan.start().await;
    let told = async |wanted: [(&str, u64, &str); 3]| {
        eventually("where the slots come from", async || {
            let seen = cluster.client().get("/cluster").await.ok();
            let one = |id: &str| seen["workers"].as_array()?.iter().find(|one| one["worker"] == id);
            let right = wanted.iter().all(|(id, slots, from)| {
                one(id).is_some_and(|one| one["slots"] == *slots && one["slots_from"] == *from)
            });
            if right { Ok(()) } else { Err(seen) }
        })
        .await;
    };
    let default = cluster.capacity().await["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["model"] == "p")
        .unwrap()["slots"]
        .as_u64()
        .unwrap();
    told([
        ("flag", 2, "flag"),
        ("default", default, "default"),
        ("vllm", 12, "cache"),
    ])
    .await;
    vllm.metrics(load(8, 2));
    told([
        ("flag", 2, "flag"),
        ("default", default, "default"),
        ("vllm", 8, "observed"),
    ])
    .await;
    let shown = binary::run(Duration::from_secs(20), &["status", "--nats", &cluster.nats.url()]).await;
    for cell in ["0/2 flag", "0/8 observed"] {
        assert!(shown.stdout.contains(cell), "{shown:?}");
    }
}
