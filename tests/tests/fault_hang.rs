//! An engine that says that it is healthy and generates nothing any more: a GPU that hangs, a stopped core.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokenbus_tests::ask::ask;
use tokenbus_tests::http::CHAT;
use tokenbus_tests::upstream::{Gate, Script, Upstream};
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Cluster, Role, eventually};

/// vLLM's page: one request runs, and so many tokens were generated.
fn page(tokens: u32) -> String {
    format!("vllm:num_requests_running{{engine=\"0\"}} 1.0\nvllm:generation_tokens_total{{engine=\"0\"}} {tokens}.0\n")
}

fn chats(upstream: &Upstream) -> usize {
    upstream.requests().iter().filter(|one| one.path == CHAT).count()
}

fn streamed() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_usage": true}})
}

/// An answer of two engines, the first of which hangs in it; then the first one works again.
async fn hangs(engines: [Upstream; 2], args: &[&str], limit: Duration) {
    let (never, again) = (Gate::new(), Gate::new());
    let stalls = Script::stream().role().text("one").text(" two").gate(&never);
    for engine in &engines {
        engine.always(stalls.clone());
    }
    let [first, second] = engines.each_ref().map(|engine| Role::proxy(engine, 4).args(args));
    let plan = Cluster::plan().gateway_args(&["--keep-alive", "60s"]);
    let cluster = plan.worker(first).worker(second).start().await;
    let mut stream = cluster.client().stream(&streamed()).await;
    assert_eq!(
        (stream.text().await, stream.text().await),
        ("one".into(), " two".into())
    );
    let since = Instant::now();
    let [hung, well] = match chats(&engines[0]) {
        1 => engines,
        _ => {
            let [first, second] = engines;
            [second, first]
        }
    };
    well.always(Script::texts(&[" three"]));
    hung.always(Script::texts(&["late"]).after(&again));
    let transcript = stream.transcript().await;
    assert!(transcript.done() && transcript.error().is_none(), "{transcript:#?}");
    assert_eq!(transcript.text(), " three");
    assert!(since.elapsed() < limit, "moved after {:?}", since.elapsed());
    // It gets no work. The gateway may learn of that a moment after the stream has moved.
    eventually_in(Duration::from_secs(5), "the engine to count as down", async || {
        let capacity = cluster.capacity().await;
        let workers = capacity["workers"].as_array().into_iter().flatten();
        match workers.filter(|worker| worker["state"] != "ready").count() {
            1 => Ok(()),
            _ => Err(capacity),
        }
    })
    .await;
    let asked = chats(&hung);
    for _ in 0..6 {
        assert_eq!(cluster.client().chat(&ask("m")).await.content(), " three");
    }
    assert_eq!(chats(&hung), asked);
    // It generates again, as it shows when it is asked for a token.
    again.open();
    cluster.settled().await;
    cluster.wait_active(0).await;
}

#[tokio::test]
async fn a_vllm_whose_counter_stands_still_loses_its_streams_and_gets_no_work_until_it_generates() {
    let engines = [Upstream::start_vllm("m").await, Upstream::start_vllm("m").await];
    engines.iter().for_each(|engine| engine.metrics(page(100)));
    hangs(engines, &[], Duration::from_secs(30)).await;
}

#[tokio::test]
async fn an_engine_that_is_silent_for_longer_than_the_operator_allows_loses_its_streams() {
    let engines = [Upstream::start_vllm("m").await, Upstream::start_vllm("m").await];
    hangs(engines, &["--engine-token-timeout", "1s"], Duration::from_secs(20)).await;
}

#[tokio::test]
async fn an_engine_that_begins_nothing_for_longer_than_the_operator_allows_loses_its_requests() {
    let (engines, never) = (
        [Upstream::start(&["m"]).await, Upstream::start(&["m"]).await],
        Gate::new(),
    );
    for engine in &engines {
        engine.always(Script::texts(&["late"]).after(&never));
    }
    let args = ["--engine-first-token-timeout", "1s"];
    let [first, second] = engines.each_ref().map(|engine| Role::proxy(engine, 4).args(&args));
    let cluster = Cluster::plan().worker(first).worker(second).start().await;
    let moves = async {
        eventually("an engine to be asked", async || {
            let asked = engines.each_ref().map(chats);
            if asked == [0, 0] { Err(asked) } else { Ok(()) }
        })
        .await;
        let well = &engines[usize::from(chats(&engines[0]) > 0)];
        well.always(Script::texts(&["well"]));
    };
    let (client, asked, since) = (cluster.client(), ask("m"), Instant::now());
    let (answer, ()) = tokio::join!(client.chat(&asked), moves);
    assert_eq!(answer.content(), "well");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}
