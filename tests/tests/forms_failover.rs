//! A worker is killed in the middle of a response and of a message: what its client sees is one
//! stream, with every event in its place.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tokenbus_tests::ask::sim_text;
use tokenbus_tests::sse_client::{Event, Sse};
use tokenbus_tests::{Cluster, Role};

const TOKENS: u64 = 60;

async fn cluster() -> Cluster {
    let worker = |id: &str| Role::sim("m", 4).pace("5ms", "20ms").args(&["--id", id]);
    Cluster::plan().worker(worker("w0")).worker(worker("w1")).start().await
}

/// Kills the worker that runs the one request.
async fn kill_the_busy_one(cluster: &mut Cluster) {
    let at = cluster.busy().await;
    cluster.workers[at].kill().await;
}

/// All events: the worker dies when the tenth piece of text has come.
async fn told(cluster: &mut Cluster, mut stream: Sse, delta: &str) -> Vec<Value> {
    let mut told = Vec::new();
    while told.iter().filter(|event: &&Value| event["type"] == delta).count() < 10 {
        told.push(stream.chunk().await);
    }
    kill_the_busy_one(cluster).await;
    let rest = stream.transcript().await;
    told.extend(rest.events.into_iter().filter_map(|(_, event)| match event {
        Event::Chunk(chunk) => Some(chunk),
        Event::Comment(_) => None,
        Event::Done => panic!("neither API has a [DONE]"),
    }));
    told
}

fn count(told: &[Value], kind: &str) -> usize {
    told.iter().filter(|event| event["type"] == kind).count()
}

#[tokio::test]
async fn a_response_whose_worker_is_killed_is_one_stream() {
    let mut cluster = cluster().await;
    let request = json!({"model": "m", "input": "hi", "max_output_tokens": TOKENS});
    let stream = cluster.client().stream_at("/v1/responses", &[], &request).await;
    let told = told(&mut cluster, stream, "response.output_text.delta").await;
    for (n, event) in told.iter().enumerate() {
        assert_eq!(event["sequence_number"], n, "{event}");
    }
    for once in [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ] {
        assert_eq!(count(&told, once), 1, "{once}");
    }
    let deltas = told
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta");
    let text: String = deltas.map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!(text, sim_text(TOKENS));
    let response = &told.last().unwrap()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    // The simulated engine says `length` when it has said what it was asked for.
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(response["usage"]["output_tokens"], TOKENS);
}

#[tokio::test]
async fn a_message_whose_worker_is_killed_is_one_stream() {
    let mut cluster = cluster().await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let request = json!({"model": "m", "messages": messages, "max_tokens": TOKENS});
    let stream = cluster.client().stream_at("/v1/messages", &[], &request).await;
    let told = told(&mut cluster, stream, "content_block_delta").await;
    let order: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let order: Vec<&str> = order
        .into_iter()
        .filter(|kind| !matches!(*kind, "ping" | "content_block_delta"))
        .collect();
    let want = [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(order, want);
    let deltas = told.iter().filter(|event| event["type"] == "content_block_delta");
    let text: String = deltas.map(|event| event["delta"]["text"].as_str().unwrap()).collect();
    assert_eq!(text, sim_text(TOKENS));
    let end = &told[told.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "max_tokens");
    assert_eq!(end["usage"]["output_tokens"], TOKENS);
}

#[tokio::test]
async fn a_call_of_a_tool_whose_worker_is_killed_is_an_honest_error() {
    let mut cluster = cluster().await;
    // Half a call cannot be handed over as text.
    let call = json!({"name": "f", "arguments": {"text": "x".repeat(1000)}});
    let tool = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    let messages = json!([{"role": "user", "content": "hi"}]);
    let request = json!({"model": "m", "messages": messages, "max_tokens": 500, "tools": tool,
        "sim": {"tool_calls": [call]}});
    let stream = cluster.client().stream_at("/v1/messages", &[], &request).await;
    let told = told(&mut cluster, stream, "content_block_delta").await;
    assert_eq!(told.last().unwrap()["type"], "error");
    assert_eq!((count(&told, "message_delta"), count(&told, "message_stop")), (0, 0));
    assert_eq!(count(&told, "content_block_stop"), 0, "half a call is not complete");
}
