//! The tools against a running cluster: what they print, and how they end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use serde_json::Value;
use tokenbus_tests::limits::{PATIENCE, STOP};
use tokenbus_tests::{Cluster, NatsServer, Role, Script, Upstream, binary};

async fn six_roles() -> Cluster {
    let plan = Cluster::plan().gateways(2).coordinators(2);
    plan.worker(Role::sim("alpha", 2).args(&["--id", "w-one"]))
        .worker(Role::sim("alpha", 3).args(&["--id", "w-two"]))
        .worker(Role::sim("beta", 4).args(&["--id", "w-three"]))
        .start()
        .await
}

#[tokio::test]
async fn status_shows_every_model_and_worker_as_a_table_and_as_json() {
    let cluster = six_roles().await;
    let url = cluster.nats.url();
    let table = binary::run(PATIENCE, &["status", "--nats", &url]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    for name in ["alpha", "beta", "w-one", "w-two", "w-three"] {
        assert!(table.stdout.contains(name), "no {name} in\n{}", table.stdout);
    }
    let json = binary::run(PATIENCE, &["status", "--json", "--nats", &url]).await;
    assert_eq!(json.code, Some(0), "{json:?}");
    let capacity: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(capacity["workers"].as_array().unwrap().len(), 3, "{capacity}");
    assert_eq!(capacity["models"][0]["slots"], 5, "{capacity}");
}

#[tokio::test]
async fn status_says_what_is_missing() {
    let mut cluster = six_roles().await;
    let url = cluster.nats.url();
    for coordinator in &mut cluster.coordinators {
        coordinator.kill().await;
    }
    let alone = binary::run(PATIENCE, &["status", "--nats", &url]).await;
    let said = format!("{}{}", alone.stdout, alone.stderr);
    assert!(said.contains("coordinator") && said.contains("w-three"), "{alone:?}");
    cluster.nats.kill().await;
    let away = binary::run(PATIENCE, &["status", "--nats", &url]).await;
    assert!(away.code.is_some_and(|code| code != 0), "{away:?}");
    assert_eq!(away.stderr.lines().count(), 1, "one sentence: {}", away.stderr);
}

#[tokio::test]
async fn chat_at_a_terminal_has_colours_and_keeps_lines_for_its_owner() {
    let upstream = Upstream::start(&["m"]).await;
    upstream.always(Script::texts(&["a **bo", "ld** `code", "` end."]));
    let folder = tempfile::tempdir().unwrap();
    let program = binary::tokenbus().to_str().unwrap();
    let args = [program, &upstream.url(), folder.path().to_str().unwrap()];
    tokenbus_tests::clients::shell("chat_terminal.sh", &args).await;
    let asked = upstream.requests();
    let last = |at: usize| asked[at].json()["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    assert_eq!((last(0), last(1)), ("first question".into(), "two\nlines".into()));
    assert_eq!(
        last(3),
        "first question",
        "the second chat asks what the arrow keys found"
    );
}

#[tokio::test]
async fn chat_prints_the_answer_and_fails_where_it_breaks_off() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 2)).start().await;
    let url = format!("http://{}/v1", cluster.gateways[0].address());
    let answer = binary::run(PATIENCE, &["chat", "--url", &url, "What is gravity?"]).await;
    assert_eq!(
        (answer.code, answer.stdout.trim_end()),
        (Some(0), "Hello world"),
        "{answer:?}"
    );
    assert_eq!(
        upstream.request(0).await.json()["messages"][0]["content"],
        "What is gravity?"
    );

    let error = r#"{"error":{"message":"the GPU is on fire","type":"server_error"}}"#;
    upstream.next(Script::stream().role().text("Gravity is").data(error));
    let broken = binary::run(PATIENCE, &["chat", "--url", &url, "What is gravity?"]).await;
    assert!(broken.code.is_some_and(|code| code != 0), "{broken:?}");
    assert!(
        broken.stdout.contains("Gravity is") && broken.stderr.contains("on fire"),
        "{broken:?}"
    );
}

#[tokio::test]
async fn the_bench_checks_every_stream_and_tells_its_failures() {
    let upstream = Upstream::start(&["broken"]).await;
    let plan = Cluster::plan().worker(Role::sim("m", 64).pace("2ms", "1ms"));
    let mut cluster = plan.start().await;
    let url = format!("http://{}/v1", cluster.gateways[0].address());
    let bench = async |model: &[&str], requests: &str| {
        let load = [
            "--concurrency",
            "32",
            "--requests",
            requests,
            "--max-tokens",
            "16",
            "--json",
        ];
        let args = [["bench", "--url", &url].as_slice(), model, load.as_slice()].concat();
        binary::run(Duration::from_secs(60), &args).await
    };
    // The only model needs no name.
    let good = bench(&[], "300").await;
    assert_eq!(good.code, Some(0), "{good:?}");
    let report: Value = serde_json::from_str(&good.stdout).unwrap_or_else(|error| panic!("{error}: {}", good.stdout));
    assert!(report.to_string().contains("300"), "{report}");

    cluster.add_worker(Role::proxy(&upstream, 4)).await;
    cluster.lists("broken").await;
    let which = bench(&[], "8").await;
    assert!(which.code != Some(0) && which.stderr.contains("broken, m"), "{which:?}");
    upstream.always(Script::stream().role().text("half"));
    let broken = bench(&["--model", "broken"], "8").await;
    assert!(
        broken.code.is_some_and(|code| code != 0),
        "failures that nobody hears of: {broken:?}"
    );
}

#[tokio::test]
async fn a_tool_without_a_cluster_ends_soon_with_one_sentence() {
    let mut nats = NatsServer::start().await;
    nats.kill().await;
    let chat = binary::run(STOP, &["chat", "--url", "http://127.0.0.1:1/v1", "Hello?"]).await;
    let status = binary::run(STOP, &["status", "--nats", &nats.url()]).await;
    for said in [chat, status] {
        assert!(said.code.is_some_and(|code| code != 0), "{said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
        assert_eq!(said.stdout, "");
    }
}
