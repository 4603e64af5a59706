//! A worker in another language, as docs/protocol.md describes it: `examples/worker.py` beside the simulated engine,
//! which generates the same answers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask_for, sim_text, with};
use tokenbus_tests::clients::Clients;
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Child, Cluster, Role, binary, eventually, within};

const STARTED: Duration = Duration::from_secs(20);
const STOPPED: Duration = Duration::from_secs(10);
/// How long a worker's last status may take. The coordinator drops a silent worker after 3 s.
const SAID: Duration = Duration::from_secs(2);

/// The worker `py` of the model `m/1`, with two slots, in a cluster that lists it. `None` where it cannot be installed.
async fn python_worker(cluster: &Cluster) -> Option<Child> {
    let clients = Clients::of("worker").await?;
    let nats = cluster.nats.url();
    let args = [
        "--nats", &nats, "--id", "py", "--model", "m/1", "--slots", "2", "--pause", "0.01",
    ];
    let worker = clients.start("examples/worker.py", "examples/worker.py", &args);
    let ready = |line: &str| (line == "worker ready").then_some(());
    worker.logs().wait_for(STARTED, "its ready line", ready).await;
    eventually("the Python worker in the capacity", async || {
        let py = of(&cluster.capacity().await, "py");
        if py["state"] == "ready" { Ok(()) } else { Err(py) }
    })
    .await;
    cluster.lists("m/1").await;
    Some(worker)
}

/// What the coordinator tells of a worker.
fn of(capacity: &Value, worker: &str) -> Value {
    let mut workers = capacity["workers"].as_array().into_iter().flatten();
    workers.find(|one| one["worker"] == worker).cloned().unwrap_or_default()
}

/// The exit status of `tokenbus drain`.
async fn drain(cluster: &Cluster, args: &[&str]) -> Option<i32> {
    let mut command = binary::command();
    command.arg("drain").args(args).args(["--nats", &cluster.nats.url()]);
    within("tokenbus drain", command.status()).await.unwrap().code()
}

#[tokio::test]
async fn a_worker_in_python_serves_and_frees_the_slot_of_a_client_that_leaves() {
    let cluster = Cluster::plan().start().await;
    let Some(_worker) = python_worker(&cluster).await else {
        return;
    };
    let client = cluster.client();
    let answer = client.chat(&ask_for("m/1", 5)).await;
    assert_eq!(answer.content(), sim_text(5));
    assert_eq!(answer.ok()["usage"]["completion_tokens"], 5);
    let streamed = client.transcript(&ask_for("m/1", 5)).await;
    assert_eq!(
        (streamed.whole(), streamed.finish_reasons(0)),
        (sim_text(5), vec!["length".to_owned()])
    );
    let two = with(ask_for("m/1", 5), "n", json!(2));
    assert_eq!(
        client.chat(&two).await.error(400)["message"],
        "this engine gives one choice"
    );

    // Both slots are taken by clients that would wait for minutes; the third is served when they have left.
    let endless = ask_for("m/1", 100_000);
    let (mut one, mut other) = (client.stream(&endless).await, client.stream(&endless).await);
    assert_eq!((one.text().await, other.text().await), ("t0 ".into(), "t0 ".into()));
    let third = tokio::spawn(async move { client.chat(&ask_for("m/1", 5)).await });
    cluster.wait_active(2).await;
    drop((one, other));
    assert_eq!(within("the third answer", third).await.unwrap().content(), sim_text(5));
    cluster.wait_active(0).await;
}

#[tokio::test]
async fn streams_move_between_a_worker_in_python_and_one_of_tokenbus() {
    let cluster = Cluster::plan().start().await;
    let Some(mut python) = python_worker(&cluster).await else {
        return;
    };
    let client = cluster.client();
    let mut stream = client.stream(&ask_for("m/1", 600)).await;
    let mut text = stream.text().await;
    let sim = Role::sim("m/1", 2).pace("10ms", "10ms").args(&["--id", "sim"]);
    let mut sim = sim.start(&cluster.nats.url()).await;
    cluster.lists("m/1").await;
    python.kill().await;
    let rest = stream.transcript().await;
    text += &rest.text();
    assert_eq!((text, rest.error()), (sim_text(600), None), "from Python to tokenbus");

    let mut stream = client.stream(&ask_for("m/1", 600)).await;
    let mut text = stream.text().await;
    let _python = python_worker(&cluster).await;
    sim.kill().await;
    let rest = stream.transcript().await;
    text += &rest.text();
    assert_eq!((text, rest.error()), (sim_text(600), None), "from tokenbus to Python");
}

#[tokio::test]
async fn a_worker_in_python_is_drained_and_stops_without_loss() {
    let cluster = Cluster::plan().start().await;
    let Some(mut python) = python_worker(&cluster).await else {
        return;
    };
    let client = cluster.client();
    let mut stream = client.stream(&ask_for("m/1", 300)).await;
    let mut text = stream.text().await;
    assert_eq!(drain(&cluster, &["py"]).await, Some(0));
    let told = within("an answer", client.chat(&with(ask_for("m/1", 5), "timeout", json!(1)))).await;
    assert!(
        [429, 503, 504].contains(&told.status.as_u16()),
        "a draining worker took a request: {}",
        told.text()
    );
    assert_eq!(drain(&cluster, &["py", "--undo"]).await, Some(0));
    assert_eq!(client.chat(&ask_for("m/1", 5)).await.content(), sim_text(5));

    python.signal(Signal::SIGTERM);
    let rest = stream.transcript().await;
    text += &rest.text();
    assert_eq!((text, rest.error()), (sim_text(300), None), "what runs ends in peace");
    assert!(python.exited(STOPPED).await.success());
    // Its last status may still be on its way; a worker that did not say it would be listed for seconds more.
    eventually_in(
        SAID,
        "the Python worker out of the capacity: it said that it leaves",
        async || match of(&cluster.capacity().await, "py") {
            Value::Null => Ok(()),
            py => Err(py),
        },
    )
    .await;
}
