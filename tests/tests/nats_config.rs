//! A cluster on the configuration that `tokenbus nats-config` writes: everything works, and nothing else is allowed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask_for, with};
use tokenbus_tests::binary::CommandOutput;
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::sse_client::Event;
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Child, Client, ClosedBus, Process, Role, eventually, within};

/// A model whose name has to be escaped in subjects.
const MODEL: &str = "lab/m:1";

fn sim(bus: &ClosedBus, id: &str) -> Role {
    let role = Role::sim(MODEL, 8).pace("20ms", "10ms").args(&["--id", id]).named(id);
    bus.role(role, &format!("worker-{id}"))
}

fn gateway(bus: &ClosedBus) -> Role {
    bus.role(Role::gateway(), "gateway")
        .args(&["--keys", "kv", "--usage-stream", "billing"])
}

fn coordinator(bus: &ClosedBus, id: &str) -> Role {
    bus.role(Role::coordinator(), "coordinator")
        .args(&["--id", id])
        .named(id)
}

async fn key(bus: &ClosedBus) -> String {
    create_key(bus, "alice").await.unwrap()
}

async fn create_key(bus: &ClosedBus, name: &str) -> Result<String, CommandOutput> {
    let args = ["keys", "create", name, "--keys", "kv", "--tokens-per-day", "100000"];
    let said = bus.run("keys", &args).await;
    match said.code {
        Some(0) => Ok(format!("Bearer {}", said.stdout.trim())),
        _ => Err(said),
    }
}

/// An answer of any of the APIs, once it is there.
async fn answered(client: &Client, key: &str, path: &str, body: &Value) -> Value {
    let headers = [("authorization", key)];
    eventually(path, async || {
        let answer = client.post(path, &headers, body).await.collect().await;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(answer)
        }
    })
    .await
}

/// Records in the usage stream, read as the user who may; 0 while the stream has no leader.
async fn records(bus: &ClosedBus) -> u64 {
    let context = async_nats::jetstream::new(bus.user("billing").await.client);
    match within("the usage stream", context.get_stream("billing")).await {
        Ok(stream) => stream.cached_info().state.messages,
        Err(_) => 0,
    }
}

fn nothing_was_refused<'a>(roles: impl IntoIterator<Item = &'a Process>) {
    for role in roles {
        let lines = role.logs().lines();
        let refused: Vec<_> = lines.iter().filter(|line| line.contains("NATS refuses")).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", role.name());
    }
}

/// Waits until the key's user sees that something was used of the budget.
async fn budget_is_used(bus: &ClosedBus) {
    eventually("what was used of the budget", async || {
        let listed = bus.run("keys", &["keys", "list", "--keys", "kv"]).await;
        let nothing = [" 0/100000", "?/100000"];
        let used = listed.stdout.contains("/100000") && !nothing.iter().any(|other| listed.stdout.contains(other));
        if used { Ok(()) } else { Err(listed) }
    })
    .await;
}

#[tokio::test]
async fn a_cluster_does_all_its_work_on_the_least_permissions() {
    let bus = ClosedBus::start(1, &[("a", &[MODEL]), ("b", &["*"])]).await;
    let key = key(&bus).await;
    let urls = bus.urls();
    let (mut gateways, mut coordinators, mut workers) = tokio::join!(
        join_all([gateway(&bus), gateway(&bus)].map(|role| role.start(&urls))),
        join_all(["c1", "c2"].map(|id| coordinator(&bus, id).start(&urls))),
        join_all(["a", "b"].map(|id| sim(&bus, id).start(&urls))),
    );
    let client = gateways[0].client();
    let chat = ask_for(MODEL, 3);
    for path in ["/v1/chat/completions", "/v1/messages"] {
        answered(&client, &key, path, &chat).await;
    }
    let text = json!({"model": MODEL, "input": "one", "query": "q", "documents": ["d"], "prompt": "p"});
    for path in ["/v1/completions", "/v1/embeddings", "/v1/rerank", "/tokenize"] {
        answered(&client, &key, path, &text).await;
    }
    // Kept by one gateway, gone on with by the other.
    let kept = answered(&client, &key, "/v1/responses", &json!({"model": MODEL, "input": "x"})).await;
    let next = json!({"model": MODEL, "input": "y", "previous_response_id": kept["id"]});
    answered(&gateways[1].client(), &key, "/v1/responses", &next).await;

    // A stream outlives its worker.
    let headers = [("authorization", key.as_str())];
    let long = with(
        with(ask_for(MODEL, 150), "stream", json!(true)),
        "ignore_eos",
        json!(true),
    );
    let mut stream = client.stream_with(&headers, &long).await;
    stream.text().await;
    let status = bus.run("operator", &["status", "--json"]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(
        ["a", "b"].iter().all(|id| status.stdout.contains(&format!("\"{id}\""))),
        "{status:?}"
    );
    let drained = bus.run("operator", &["drain", "a", "--grace", "0s"]).await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    let rest = within("the rest of the stream", stream.transcript()).await;
    assert_eq!(rest.events.last().map(|(_, event)| event), Some(&Event::Done));

    // Without any coordinator the services protocol tells of the models.
    for coordinator in &mut coordinators {
        assert!(coordinator.stop().await.success());
    }
    let late = gateway(&bus).start(&urls).await;
    answered(&late.client(), &key, "/v1/chat/completions", &chat).await;
    eventually("a record for each request", async || {
        let records = records(&bus).await;
        if records >= 8 { Ok(()) } else { Err(records) }
    })
    .await;
    budget_is_used(&bus).await;
    let revoked = bus.run("keys", &["keys", "revoke", "alice", "--keys", "kv"]).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    eventually("a 401", async || {
        let status = client.chat_with(&headers, &chat).await.status;
        if status == 401 { Ok(()) } else { Err(status) }
    })
    .await;
    gateways.push(late);
    nothing_was_refused(gateways.iter().chain(&coordinators).chain(&workers));
    for worker in &mut workers {
        assert!(worker.stop().await.success());
    }
}

/// What users may hear, so that a refusal means something: user, subject, queue group.
const HEARD: &[(&str, &str, Option<&str>)] = &[
    ("worker-a", "tb.v1.req.m", Some("workers")),
    ("worker-a", "tb.v1.req.m.a", None),
    ("worker-b", "tb.v1.emb.x", Some("workers")),
    ("worker-b", "tb.v1.req.m.b", None),
    ("gateway", "tb.v1.out.g.*", None),
    ("coordinator", "tb.v1.status.*", None),
];

/// What they may not.
const DEAF: &[(&str, &str, Option<&str>)] = &[
    // Requests: without the group, in another group, of other models, of other workers.
    ("worker-a", "tb.v1.req.m", None),
    ("worker-a", "tb.v1.req.m", Some("others")),
    ("worker-a", "tb.v1.req.>", None),
    ("worker-a", "tb.v1.req.*", Some("workers")),
    ("worker-a", "tb.v1.req.x", Some("workers")),
    ("worker-a", "tb.v1.req.m.b", None),
    ("worker-b", "tb.v1.req.m", None),
    ("worker-b", "tb.v1.req.m.a", None),
    // Answers, statuses, control, keys, responses, questions, and answers to the questions of others.
    ("worker-a", "tb.v1.out.>", None),
    ("worker-a", "tb.v1.status.*", None),
    ("worker-a", "tb.v1.ctl.b", None),
    ("worker-a", "tb.v1.ctl.>", None),
    ("worker-a", "tb.v1.usage", None),
    ("worker-a", "$KV.>", None),
    ("worker-a", "_INBOX.>", None),
    ("worker-a", ">", None),
    ("worker-b", "$JS.API.>", None),
    ("gateway", "tb.v1.req.>", None),
    ("gateway", "_INBOX.>", None),
    ("operator", "tb.v1.req.>", None),
    ("operator", "tb.v1.out.>", None),
    ("coordinator", "tb.v1.req.>", None),
    ("keys", "tb.v1.>", None),
];

/// What users may not say.
const MUTE: &[(&str, &str)] = &[
    ("worker-a", "tb.v1.out.g.b"),
    ("worker-a", "tb.v1.out.g.-1-0"),
    ("worker-a", "tb.v1.status.b"),
    ("worker-a", "tb.v1.free.x"),
    ("worker-a", "tb.v1.ctl.b"),
    ("worker-a", "tb.v1.req.m"),
    ("worker-a", "tb.v1.capacity"),
    ("worker-a", "tb.v1.capacity.get"),
    ("worker-a", "tb.v1.event"),
    ("worker-a", "tb.v1.usage"),
    ("worker-a", "tb.v1.limits"),
    ("worker-a", "tb.v1.deadly"),
    ("worker-a", "_INBOX.x"),
    ("worker-a", "$KV.tb_keys.mallory"),
    ("worker-a", "$JS.API.DIRECT.GET.KV_tb_keys.$KV.tb_keys.alice"),
    ("worker-a", "$JS.API.STREAM.MSG.GET.KV_tb_responses"),
    ("worker-a", "$JS.API.CONSUMER.CREATE.KV_tb_keys"),
    ("worker-a", "$JS.API.STREAM.NAMES"),
    ("worker-a", "$SYS.REQ.SERVER.PING"),
    ("gateway", "$KV.tb_keys.mallory"),
    ("gateway", "$JS.API.STREAM.UPDATE.KV_tb_keys"),
    ("gateway", "$JS.API.STREAM.PURGE.KV_tb_keys"),
    ("gateway", "$JS.API.STREAM.DELETE.KV_tb_keys"),
    ("gateway", "$JS.API.STREAM.PURGE.billing"),
    ("gateway", "$KV.tb_coordinator.leader"),
    ("gateway", "tb.v1.capacity"),
    ("gateway", "tb.v1.status.a"),
    ("coordinator", "tb.v1.usage"),
    ("coordinator", "$KV.tb_keys.mallory"),
    ("coordinator", "tb.v1.req.m"),
    ("operator", "$KV.tb_keys.mallory"),
    ("operator", "tb.v1.req.m"),
    ("keys", "$KV.tb_responses.all.x"),
    ("keys", "$KV.tb_budgets.alice"),
    ("worker-a", "$KV.tb_budgets.alice"),
    ("keys", "$JS.API.STREAM.DELETE.KV_tb_keys"),
];

#[tokio::test]
async fn what_is_not_a_users_work_is_refused() {
    let bus = ClosedBus::start(1, &[("a", &["m"]), ("b", &["*"])]).await;
    for name in ["worker-a", "worker-b", "gateway", "coordinator", "operator", "keys"] {
        let user = bus.user(name).await;
        for (_, subject, queue) in HEARD.iter().filter(|(one, ..)| *one == name) {
            assert!(!user.is_deaf_to(subject, *queue).await, "{name} {subject} {queue:?}");
        }
        for (_, subject, queue) in DEAF.iter().filter(|(one, ..)| *one == name) {
            assert!(user.is_deaf_to(subject, *queue).await, "{name} {subject} {queue:?}");
        }
        for (_, subject) in MUTE.iter().filter(|(one, _)| *one == name) {
            assert!(user.may_not_say(subject).await, "{name} {subject}");
        }
    }
    // Nobody without a key.
    let stranger = async_nats::ConnectOptions::new().add_root_certificates(bus.file("ca.pem"));
    let urls = bus.urls();
    let refused = within("a refusal", stranger.connect(urls.as_str())).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_question_may_be_answered_once_by_who_got_it() {
    let bus = ClosedBus::start(1, &[("a", &["m"])]).await;
    let (worker, gateway) = (bus.user("worker-a").await, bus.user("gateway").await);
    let mut heard = worker.client.subscribe("tb.v1.ctl.a").await.unwrap();
    let mut answers = gateway.client.subscribe("tb.v1.out.g.*").await.unwrap();
    assert!(!worker.may_not_say("tb.v1.status.a").await && !gateway.may_not_say("tb.v1.limits").await);
    let ask = gateway
        .client
        .publish_with_reply("tb.v1.ctl.a", "tb.v1.out.g.-1-0", "?".into());
    ask.await.unwrap();
    let question = within("the question", heard.next()).await.unwrap();
    let to = question.reply.unwrap().to_string();
    assert!(!worker.may_not_say(&to).await, "the answer");
    assert_eq!(within("the answer", answers.next()).await.unwrap().subject.as_str(), to);
    assert!(worker.may_not_say(&to).await, "a second answer");
}

#[tokio::test]
async fn another_run_keeps_every_key_and_takes_a_worker_away() {
    let bus = ClosedBus::start(1, &[("a", &["m"]), ("b", &["m"])]).await;
    let read = |name: &str| std::fs::read_to_string(bus.file(name)).unwrap();
    let mode = |name: &str| std::fs::metadata(bus.file(name)).unwrap().permissions().mode() & 0o777;
    for secret in [
        "creds/gateway.nk",
        "cluster.toml",
        "ca-key.pem",
        "server-1/nats.conf",
        "server-1/server-key.pem",
    ] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
    let (a, ca) = (read("creds/worker-a.nk"), read("ca.pem"));
    let (stays, gone) = (bus.user("worker-a").await, bus.user("worker-b").await);
    let connection = stays.client.server_info().client_id;
    let args = [
        "--remove-worker",
        "b",
        "--worker",
        "c",
        "--model",
        "*",
        "--new-key",
        "gateway",
    ];
    let gateway = read("creds/gateway.nk");
    bus.configure(&args.map(str::to_owned)).await;
    assert_eq!((read("creds/worker-a.nk"), read("ca.pem")), (a, ca));
    assert_ne!(read("creds/gateway.nk"), gateway);
    assert!(!bus.file("creds/worker-b.nk").exists());
    bus.reload();
    eventually("the removed worker is disconnected", async || {
        match gone.client.connection_state() {
            async_nats::connection::State::Connected => Err("connected"),
            _ => Ok(()),
        }
    })
    .await;
    assert!(!stays.may_not_say("tb.v1.status.a").await);
    assert_eq!(stays.client.server_info().client_id, connection, "the same connection");
    for user in ["worker-a", "worker-c", "gateway"] {
        drop(bus.user(user).await);
    }
}

/// Loses the first of three servers, to which all roles are connected, under load.
async fn a_server_of_three_is_lost(lose: impl AsyncFnOnce(&mut Child), load_for: Duration) {
    let mut bus = ClosedBus::start(3, &[("a", &[MODEL]), ("b", &[MODEL])]).await;
    let key = eventually_key(&bus).await;
    let urls = bus.urls();
    let (gateways, coordinators, workers) = tokio::join!(
        join_all([gateway(&bus)].map(|role| role.start(&urls))),
        join_all([coordinator(&bus, "c")].map(|role| role.start(&urls))),
        join_all(["a", "b"].map(|id| sim(&bus, id).start(&urls))),
    );
    let client = gateways[0].client();
    answered(&client, &key, "/v1/chat/completions", &ask_for(MODEL, 1)).await;
    let until = Instant::now() + load_for;
    let load = join_all((0..12).map(|_| async {
        let mut done = 0;
        while Instant::now() < until {
            let headers = [("authorization", key.as_str())];
            let answer = client.chat_with(&headers, &ask_for(MODEL, 20)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            done += 1;
        }
        done
    }));
    let loss = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut server = bus.server(0).take().unwrap();
        lose(&mut server).await;
        server
    };
    let (done, _lost) = tokio::join!(load, loss);
    let requests = 1 + done.iter().sum::<u64>();
    eventually_in(Duration::from_secs(30), "a record for each request", async || {
        let records = records(&bus).await;
        if records == requests {
            Ok(())
        } else {
            Err((records, requests))
        }
    })
    .await;
    nothing_was_refused(gateways.iter().chain(&coordinators).chain(&workers));
}

#[tokio::test]
async fn a_lost_server_of_three_costs_no_request_and_no_usage_record() {
    a_server_of_three_is_lost(Child::kill, Duration::from_secs(6)).await;
}

#[tokio::test]
async fn a_frozen_server_of_three_costs_no_request_and_no_usage_record() {
    a_server_of_three_is_lost(async |server| server.freeze(), Duration::from_secs(12)).await;
}

#[tokio::test]
async fn a_role_says_why_it_is_not_let_in() {
    let bus = ClosedBus::start(1, &[("a", &["m"])]).await;
    let creds = bus.file("creds/coordinator.nk");
    let ca = bus.file("ca.pem");
    let untrusting = ["--nats-creds", creds.to_str().unwrap()];
    let unknown = ["--nats-ca", ca.to_str().unwrap()];
    for (args, reason) in [(untrusting, "certificate"), (unknown, "refuses the login")] {
        let role = Role::coordinator().args(&args).launch(&bus.urls());
        let said = |line: &str| (line.contains("cannot connect to NATS") && line.contains(reason)).then_some(());
        role.logs().wait_for(PATIENCE, reason, said).await;
    }
}

/// A key, once JetStream has leaders. Each attempt has a name of its own: one that timed out may have been kept.
async fn eventually_key(bus: &ClosedBus) -> String {
    let attempts = AtomicU32::new(0);
    eventually("leaders of JetStream", async || {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        create_key(bus, &format!("alice-{attempt}")).await
    })
    .await
}
