//! A conversation goes to the worker that holds its beginning, through any gateway.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokenbus_protocol::{Name, Subjects, WorkerNews, decode};
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream, eventually, within};

/// A conversation with a long beginning of its own.
fn conversation(n: usize) -> Value {
    let system = format!("Conversation {n}. ").repeat(2_000);
    json!({"model": "m", "max_tokens": 4, "messages": [
        {"role": "system", "content": system},
        {"role": "user", "content": "Begin."},
    ]})
}

/// Asks for the next turn: who answered, and why it was chosen.
async fn turn(client: &Client, conversation: &mut Value) -> (String, String) {
    let answer = client.chat_with(&[("x-tokenbus-explain", "1")], conversation).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json()["choices"][0]["message"]["content"].clone();
    let messages = conversation["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": said}));
    messages.push(json!({"role": "user", "content": "Go on."}));
    let header = |name| answer.header(name).unwrap_or_default().to_owned();
    (header("x-tokenbus-worker"), header("x-tokenbus-decision"))
}

/// Waits until `other` has heard of as much as `placed` knows, which placed the requests. A question before that may go to
/// a worker that reads the prompt anew and then holds it too.
async fn hears(other: &Client, placed: &Client) {
    let known = async |client: &Client| {
        let page = client.get("/metrics").await.text();
        sum(&parse(&page), "tokenbus_gateway_prefix_cuts", &[])
    };
    eventually("the other gateway's news", async || {
        let (heard, known) = (known(other).await, known(placed).await);
        if heard > 0.0 && heard >= known {
            Ok(())
        } else {
            Err((heard, known))
        }
    })
    .await;
}

/// Waits until a turn through `client` goes to `worker` for its prefix.
async fn held(client: &Client, conversation: &mut Value, worker: &str) {
    eventually(&format!("{worker} is known to hold it"), async || {
        let (answered, decision) = turn(client, &mut conversation.clone()).await;
        if answered == worker && decision.starts_with("prefix") {
            Ok(())
        } else {
            Err((answered, decision))
        }
    })
    .await;
}

#[tokio::test]
async fn a_conversation_stays_with_its_holder_through_every_gateway_and_finds_another_when_that_dies() {
    let worker = || Role::sim("m", 8).pace("5ms", "1ms");
    let plan = Cluster::plan()
        .gateways(2)
        .worker(worker())
        .worker(worker())
        .worker(worker());
    let mut cluster = plan.start().await;
    let clients: Vec<Client> = cluster.gateways.iter().map(|gateway| gateway.client()).collect();
    let mut conversations: Vec<Value> = (0..6).map(conversation).collect();
    let mut homes = Vec::new();
    for conversation in &mut conversations {
        homes.push(turn(&clients[0], conversation).await.0);
    }
    hears(&clients[1], &clients[0]).await;
    for (conversation, home) in conversations.iter_mut().zip(&homes) {
        // The gateway that placed it knows at once, the other one with the worker's next news.
        let (answered, decision) = turn(&clients[0], conversation).await;
        assert_eq!((answered.as_str(), &decision[..6]), (home.as_str(), "prefix"));
        held(&clients[1], conversation, home).await;
        assert_eq!(&turn(&clients[1], conversation).await.0, home);
    }
    let dead = cluster
        .workers
        .iter()
        .position(|worker| worker.id() == homes[0])
        .unwrap();
    cluster.workers[dead].kill().await;
    let (next, _) = turn(&clients[1], &mut conversations[0]).await;
    assert_ne!(next, homes[0]);
    held(&clients[0], &mut conversations[0], &next).await;
    let page = clients[0].get("/metrics").await.text();
    assert!(page.contains(r#"placements_total{reason="prefix"}"#), "{page}");
}

#[tokio::test]
async fn without_a_coordinator_gateways_hear_the_workers_themselves() {
    let worker = || Role::sim("m", 8).pace("5ms", "1ms");
    let plan = Cluster::plan()
        .coordinators(0)
        .gateways(2)
        .worker(worker())
        .worker(worker());
    let cluster = plan.start().await;
    cluster.lists("m").await;
    let clients: Vec<Client> = cluster.gateways.iter().map(|gateway| gateway.client()).collect();
    let mut conversation = conversation(1);
    let (home, _) = turn(&clients[0], &mut conversation).await;
    hears(&clients[1], &clients[0]).await;
    held(&clients[1], &mut conversation, &home).await;
    held(&clients[0], &mut conversation, &home).await;
}

#[tokio::test]
async fn a_gateway_that_starts_later_learns_what_the_workers_hold() {
    let worker = || Role::sim("m", 8).pace("5ms", "1ms");
    let mut cluster = Cluster::plan().worker(worker()).worker(worker()).start().await;
    let mut conversation = conversation(1);
    let (home, _) = turn(&cluster.client(), &mut conversation).await;
    let late = Role::gateway().named("late").start(&cluster.nats.url()).await;
    let client = late.client();
    cluster.gateways.push(late);
    cluster.lists("m").await;
    held(&client, &mut conversation, &home).await;
}

/// Two workers with one slot each, of which one took 3 s to read a conversation, so that both are known to be slow.
struct Pair {
    cluster: Cluster,
    upstreams: [Upstream; 2],
    conversation: Value,
    /// Which of them holds the conversation.
    home: usize,
    /// Its answers from now on wait for this.
    gate: Gate,
}

impl Pair {
    async fn start() -> Self {
        let upstreams = [Upstream::start(&["m"]).await, Upstream::start(&["m"]).await];
        let plan = upstreams
            .iter()
            .fold(Cluster::plan(), |plan, upstream| plan.worker(Role::proxy(upstream, 1)));
        let cluster = plan.start().await;
        let slow = Script::stream().pause(Duration::from_secs(3)).role().text("ok");
        for upstream in &upstreams {
            upstream.always(Script::texts(&["ok"]));
            upstream.next(slow.clone().finish("stop").usage(7, 1).done());
        }
        let mut pace = cluster
            .nats
            .client()
            .await
            .subscribe(
                Subjects::new(Name::new("tb").unwrap())
                    .news(&Name::new("x").unwrap())
                    .replace(".x", ".*"),
            )
            .await
            .unwrap();
        let mut conversation = conversation(1);
        let (worker, _) = turn(&cluster.client(), &mut conversation).await;
        let home = cluster.workers.iter().position(|one| one.id() == worker).unwrap();
        within("news of its pace", async {
            while let Some(message) = pace.next().await {
                let news: WorkerNews = decode(&message.payload).unwrap();
                if news
                    .paces
                    .iter()
                    .any(|pace| pace.prefill.is_some() && pace.service_ms.is_some())
                {
                    return;
                }
            }
        })
        .await;
        let gate = Gate::new();
        upstreams[home].always(Script::texts(&["ok"]).after(&gate));
        Self {
            cluster,
            upstreams,
            conversation,
            home,
            gate,
        }
    }

    /// Asks for the next turn, beside others.
    fn ask(&self) -> tokio::task::JoinHandle<(String, String)> {
        let (client, mut conversation) = (self.cluster.client(), self.conversation.clone());
        tokio::spawn(async move { turn(&client, &mut conversation).await })
    }

    /// Waits until so many requests wait at the gateway.
    async fn waiting(&self, count: f64) {
        eventually("they wait", async || {
            let page = self.cluster.client().get("/metrics").await.text();
            let waiting = sum(&parse(&page), "tokenbus_gateway_requests_waiting", &[]);
            if (waiting - count).abs() < 0.5 {
                Ok(())
            } else {
                Err(waiting)
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_turn_waits_for_the_busy_holder_for_as_long_as_that_is_sooner() {
    let pair = Pair::start().await;
    let (home, other) = (
        pair.cluster.workers[pair.home].id(),
        pair.cluster.workers[1 - pair.home].id(),
    );
    let first = pair.ask();
    pair.upstreams[pair.home].wait_running(1).await;
    let second = pair.ask();
    pair.waiting(1.0).await;
    pair.gate.open();
    for answer in [first, second] {
        let (worker, decision) = within("the answer", answer).await.unwrap();
        assert_eq!(
            (worker.as_str(), &decision[..6]),
            (home.as_str(), "prefix"),
            "{decision}"
        );
    }
    assert_eq!(pair.upstreams[1 - pair.home].requests().len(), 0);

    let never = Gate::new();
    pair.upstreams[pair.home].always(Script::texts(&["ok"]).after(&never));
    let stuck = pair.ask();
    pair.upstreams[pair.home].wait_running(1).await;
    let (worker, decision) = within("the answer", pair.ask()).await.unwrap();
    assert_eq!(
        (worker.as_str(), &decision[..7]),
        (other.as_str(), "spilled"),
        "{decision}"
    );
    never.open();
    within("the answer", stuck).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_dies_while_requests_wait_for_it_loses_none() {
    let mut pair = Pair::start().await;
    let mut answers = vec![pair.ask()];
    pair.upstreams[pair.home].wait_running(1).await;
    answers.extend((0..3).map(|_| pair.ask()));
    pair.waiting(3.0).await;
    pair.cluster.workers[pair.home].kill().await;
    let other = pair.cluster.workers[1 - pair.home].id();
    for answer in within("the answers", join_all(answers)).await {
        assert_eq!(answer.unwrap().0, other);
    }
}
