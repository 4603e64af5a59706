//! The gateway's waiting room: who may wait, for how many bytes, and when the others are to come back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for, sim_text};
use tokenbus_tests::binary::run;
use tokenbus_tests::http::Answer;
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::load::{Expected, Failure, HANG, PROMPT_WORDS, exchange};
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream, eventually, metrics, within};
use tokio::task::JoinHandle;

const WAITING: &str = "tokenbus_gateway_requests_waiting";
const BYTES: &str = "tokenbus_gateway_waiting_bytes";

/// Waits until the gateway's gauge of this name is within these bounds.
async fn gauge(gateway: Client, headers: &[(&str, &str)], name: &str, bounds: std::ops::RangeInclusive<f64>) {
    eventually(&format!("{name} within {bounds:?}"), async || {
        let page = gateway.request(http::Method::GET, "/metrics", headers, "".into());
        let page = page.await.text();
        let seen = metrics::sum(&metrics::parse(&page), name, &[]);
        if bounds.contains(&seen) { Ok(()) } else { Err(page) }
    })
    .await;
}

/// Asks, and is answered some time.
fn asks(client: Client, headers: &[(&str, &str)], body: &Value) -> JoinHandle<Answer> {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let body = body.clone();
    tokio::spawn(async move {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        client.chat_with(&headers, &body).await
    })
}

fn is_told_to_come_back(answer: &Answer) {
    assert_eq!(answer.error(429)["code"], "server_busy");
    assert!(answer.retry_after() >= 1);
}

/// A cluster whose only slot is taken until the gate is opened.
struct Busy {
    cluster: Cluster,
    gate: Gate,
    /// What has the slot.
    first: JoinHandle<Answer>,
    _upstream: Upstream,
}

impl Busy {
    async fn start(waiting_bytes: &str) -> Self {
        let upstream = Upstream::start(&["m"]).await;
        let plan = Cluster::plan().gateway_args(&["--waiting-bytes", waiting_bytes]);
        let cluster = plan.worker(Role::proxy(&upstream, 1)).start().await;
        let gate = Gate::new();
        upstream.always(Script::texts(&["done"]).after(&gate));
        let first = asks(cluster.client(), &[], &ask("m"));
        upstream.request(0).await;
        Self {
            cluster,
            gate,
            first,
            _upstream: upstream,
        }
    }
}

/// A request of 400 KiB.
fn large() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(400 * 1024)}]})
}

#[tokio::test]
async fn bodies_that_wait_are_bounded_in_bytes() {
    let Busy {
        cluster,
        gate,
        first,
        _upstream,
    } = Busy::start("1MiB").await;
    let (client, large) = (cluster.client(), large());
    let kib = |kib: f64| kib * 1024.0..=(kib + 1.0) * 1024.0;
    let leaves = asks(client, &[], &large);
    gauge(client, &[], BYTES, kib(400.0)).await;
    let mut waiting = vec![asks(client, &[], &large)];
    gauge(client, &[], BYTES, kib(800.0)).await;
    is_told_to_come_back(&client.chat(&large).await);
    // What is small has room, and what leaves makes room.
    waiting.push(asks(client, &[], &ask("m")));
    gauge(client, &[], WAITING, 3.0..=3.0).await;
    leaves.abort();
    gauge(client, &[], BYTES, kib(400.0)).await;
    waiting.push(asks(client, &[], &large));
    gauge(client, &[], BYTES, kib(800.0)).await;
    gate.open();
    waiting.push(first);
    for answer in within("all answers", join_all(waiting)).await {
        assert_eq!(answer.unwrap().content(), "done");
    }
    gauge(client, &[], BYTES, 0.0..=0.0).await;
    gauge(client, &[], WAITING, 0.0..=0.0).await;
}

#[tokio::test]
async fn a_body_larger_than_the_whole_budget_waits_when_no_other_does() {
    let Busy {
        cluster,
        gate,
        first,
        _upstream,
    } = Busy::start("64KiB").await;
    let (client, large) = (cluster.client(), large());
    let alone = asks(client, &[], &large);
    gauge(client, &[], WAITING, 1.0..=1.0).await;
    is_told_to_come_back(&client.chat(&large).await);
    gate.open();
    for answer in within("both answers", join_all([first, alone])).await {
        assert_eq!(answer.unwrap().content(), "done");
    }
}

async fn key(file: &Path, name: &str, more: &[&str]) -> String {
    let mut args = vec!["keys", "create", name, "--keys", file.to_str().unwrap()];
    args.extend(more);
    let said = run(PATIENCE, &args).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    format!("Bearer {}", said.stdout.trim())
}

#[tokio::test]
async fn one_keys_crowd_keeps_no_other_key_out_of_the_waiting_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let alice = key(&file, "alice", &[]).await;
    let bob = key(&file, "bob", &["--read-metrics"]).await;
    let upstream = Upstream::start(&["m"]).await;
    let plan = Cluster::plan().gateway_args(&["--waiting", "8", "--keys", file.to_str().unwrap()]);
    let mut cluster = plan.coordinators(1).start().await;
    cluster.add_worker(Role::proxy(&upstream, 1)).await;
    let client = cluster.client();
    let (alice, bob) = ([("authorization", &*alice)], [("authorization", &*bob)]);
    // Until the gateway knows the worker.
    eventually("an answer", async || {
        let answer = client.chat_with(&bob, &ask("m")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    let before = upstream.requests().len();
    let gate = Gate::new();
    upstream.always(Script::texts(&["done"]).after(&gate));
    let first = asks(client, &alice, &ask("m"));
    upstream.request(before).await;
    let crowd: Vec<_> = (0..40).map(|_| asks(client, &alice, &ask("m"))).collect();
    gauge(client, &bob, WAITING, 8.0..=8.0).await;
    let refused = |crowd: &[JoinHandle<Answer>]| crowd.iter().filter(|one| one.is_finished()).count();
    eventually("alice's others to be refused", async || match refused(&crowd) {
        32 => Ok(()),
        other => Err(other),
    })
    .await;
    // Half of the room is bob's, who comes late.
    let mut bobs = Vec::new();
    for number in 1..=4 {
        bobs.push(asks(client, &bob, &ask("m")));
        eventually("one of alice's to give way", async || match refused(&crowd) {
            refused if refused == 32 + number => Ok(()),
            other => Err(other),
        })
        .await;
    }
    is_told_to_come_back(&client.chat_with(&bob, &ask("m")).await);
    gauge(client, &bob, WAITING, 8.0..=8.0).await;
    gate.open();
    for answer in within("bob's answers", join_all(bobs)).await {
        assert_eq!(answer.unwrap().content(), "done");
    }
    assert_eq!(within("the first answer", first).await.unwrap().content(), "done");
    let (mut answered, mut told) = (0, 0);
    for answer in within("alice's answers", join_all(crowd)).await {
        let answer = answer.unwrap();
        if answer.status == 200 {
            answered += 1;
        } else {
            is_told_to_come_back(&answer);
            told += 1;
        }
    }
    assert_eq!((answered, told), (4, 36));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_have_begun_are_let_into_a_full_room_when_their_worker_is_lost() {
    for orderly in [false, true] {
        let worker = || Role::sim("m", 4).pace("1ms", "20ms").args(&["--grace", "100ms"]);
        let plan = Cluster::plan().gateway_args(&["--waiting", "2"]);
        let mut cluster = plan.worker(worker()).worker(worker()).start().await;
        let client = cluster.client();
        let long = ask_for("m", 200);
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = client.stream(&long).await;
            assert!(!stream.text().await.is_empty());
            streams.push(stream);
        }
        let waiting: Vec<_> = (0..2).map(|_| asks(client, &[], &ask_for("m", 3))).collect();
        gauge(client, &[], WAITING, 2.0..=2.0).await;
        is_told_to_come_back(&client.chat(&ask("m")).await);
        if orderly {
            cluster.workers[0].stop().await;
        } else {
            cluster.workers[0].kill().await;
        }
        let streams = streams.into_iter().map(tokenbus_tests::sse_client::Sse::transcript);
        for transcript in within("all streams", join_all(streams)).await {
            assert_eq!(transcript.error(), None, "orderly: {orderly}");
            assert!(sim_text(200).ends_with(&transcript.text()), "{}", transcript.text());
            assert!(transcript.text().ends_with("t199 ") && transcript.done());
        }
        for answer in within("those that waited", join_all(waiting)).await {
            assert_eq!(answer.unwrap().content(), sim_text(3));
        }
        gauge(client, &[], BYTES, 0.0..=0.0).await;
    }
}

/// A client that obeys `Retry-After`: what it was told, each time, and what came of it.
async fn obedient(gateway: SocketAddr, expected: &Expected) -> (Vec<u64>, Duration, Result<(), Failure>) {
    let mut told = Vec::new();
    loop {
        let began = Instant::now();
        let sample = exchange(gateway, "m", expected, HANG, || {}).await;
        match sample.result {
            Err(Failure::Status {
                status: 429,
                retry_after: Some(seconds),
                ..
            }) if told.len() < 10 => {
                told.push(seconds);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            result => return (told, began.elapsed(), result),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_right_after_idle_time_and_not_the_same_for_everybody() {
    let plan = Cluster::plan().gateway_args(&["--waiting", "16"]);
    let worker = Role::sim("m", 4).pace("1ms", "20ms");
    let cluster = plan.worker(worker).start().await;
    let gateway = cluster.gateways[0].address();
    let text = sim_text(20).into();
    let expected = Expected::sim(&text, 20, PROMPT_WORDS);
    // How long a run takes, all slots in use.
    let mut runs = Vec::new();
    for _ in 0..8 {
        for (_, took, result) in join_all((0..4).map(|_| obedient(gateway, &expected))).await {
            assert_eq!(result, Ok(()));
            runs.push(took.as_secs_f64());
        }
    }
    let run = runs.iter().sum::<f64>() / runs.len() as f64;
    // Nothing happens: that is what this is about.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ended = join_all((0..80).map(|_| obedient(gateway, &expected))).await;
    assert!(ended.iter().all(|(_, _, result)| result.is_ok()), "{ended:?}");
    let told: Vec<u64> = ended.iter().filter_map(|(told, ..)| told.first().copied()).collect();
    let mut seconds: HashMap<u64, usize> = HashMap::new();
    for second in &told {
        *seconds.entry(*second).or_default() += 1;
    }
    let again = ended.iter().filter(|(told, ..)| told.len() > 1).count();
    let most = told.iter().max().copied().unwrap();
    // The room drains by half, and then there is a slot for one after the other.
    let open = (8 + told.len()) as f64 * run / 4.0;
    eprintln!(
        "measured {{\"scenario\":\"80 at once on 4 slots\",\"refused\":{},\"again\":{again},\"told_most\":{most},\"open\":{open:.1}}}",
        told.len()
    );
    assert!(told.len() >= 50, "{told:?}");
    assert!(
        most as f64 <= 2.0 * open + 2.0,
        "told {most} s where {open:.1} s is true"
    );
    assert!(seconds.values().all(|count| count * 2 < told.len()), "{seconds:?}");
    assert!(again * 5 <= told.len(), "{again} of {} were refused again", told.len());
}
