//! Two workers of the default engine with a real model: an answer whose worker is killed in the
//! middle of it is, at temperature 0, the answer that nothing happened to.
//!
//! `tokenbus worker` brings the engine itself, and the model too unless `TOKENBUS_LLAMA_MODEL` names
//! a GGUF file; `tests/run` has both in the cache before it starts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenbus_tests::http::CHAT;
use tokenbus_tests::sse_client::{Event, Sse, Transcript};
use tokenbus_tests::{Cluster, Role, metrics};

const TOKENS: u64 = 80;

/// Tokens after which the worker is killed: early, within the answer, and late.
const CUTS: [usize; 3] = [3, 20, 45];

fn worker(number: usize, logs: &TempDir) -> Role {
    let folder = logs.path().join(number.to_string());
    // One thread and one slot: the tests of this machine share its processors.
    let role = Role::new("worker")
        .named(&format!("worker {number}"))
        .model("smol")
        .args(&[
            "--engine",
            "llama",
            "--slots",
            "1",
            "--threads",
            "1",
            "--ctx",
            "1024",
            "--engine-log-dir",
            folder.to_str().unwrap(),
            "--id",
            &format!("w{number}"),
        ]);
    match std::env::var("TOKENBUS_LLAMA_MODEL") {
        Ok(model) => role.args(&["--model-path", &model]),
        Err(_) => role,
    }
}

/// A question whose answer leaves the model no choice. Where two tokens are nearly as likely, an engine that reads the
/// answer so far may go on otherwise than one that wrote it: it adds the same numbers in another order.
fn question() -> Value {
    json!({"model": "smol", "temperature": 0, "max_tokens": TOKENS, "stream": true,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Write the numbers from 1 to 100, separated by commas."}]})
}

/// The text of a chunk, of either API.
fn piece(chunk: &Value) -> &str {
    let choice = &chunk["choices"][0];
    choice["delta"]["content"]
        .as_str()
        .or(choice["text"].as_str())
        .unwrap_or_default()
}

/// Reads until `pieces` pieces of text have come.
async fn read(stream: &mut Sse, pieces: usize) -> Vec<(Instant, Event)> {
    let (mut events, mut seen) = (Vec::new(), 0);
    while seen < pieces {
        let event = stream.next().await.expect("the stream goes on");
        if let Event::Chunk(chunk) = &event.1 {
            seen += usize::from(!piece(chunk).is_empty());
        }
        events.push(event);
    }
    events
}

async fn attempts(cluster: &Cluster) -> f64 {
    let page = cluster.client().get("/metrics").await.text();
    let samples = metrics::parse(&page);
    let known = samples
        .iter()
        .any(|sample| sample.name == "tokenbus_gateway_attempts_total");
    assert!(known, "the gateway does not count its attempts: {page}");
    metrics::sum(&samples, "tokenbus_gateway_attempts_total", &[])
}

/// Asks, kills the worker that answers once `cut` pieces of text have come, and reads the rest.
/// Gives the index of the worker that was killed.
async fn killed(cluster: &mut Cluster, path: &str, body: &Value, cut: usize) -> (Transcript, usize) {
    let before = attempts(cluster).await;
    let mut stream = cluster.client().stream_at(path, &[], body).await;
    let mut events = read(&mut stream, 1).await;
    let at = cluster.busy().await;
    events.extend(read(&mut stream, cut - 1).await);
    cluster.workers[at].kill().await;
    let rest = stream.transcript().await;
    events.extend(rest.events);
    let attempts = attempts(cluster).await - before;
    assert!(
        attempts >= 2.0,
        "the answer was complete when its worker was killed: {events:#?}"
    );
    (Transcript { events, end: rest.end }, at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_real_answer_is_the_same_when_its_worker_is_killed_in_the_middle() {
    let logs = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::plan()
        .worker(worker(0, &logs))
        .worker(worker(1, &logs))
        .start()
        .await;
    let undisturbed = cluster.client().transcript(&question()).await;
    let text = undisturbed.whole();
    assert!(text.starts_with("1, 2, 3, 4"), "{text}");
    let usage = undisturbed.usage().unwrap();
    assert_eq!(usage["completion_tokens"], TOKENS, "{usage}");

    for (round, cut) in CUTS.into_iter().enumerate() {
        cluster.wait_active(0).await;
        let (transcript, at) = killed(&mut cluster, CHAT, &question(), cut).await;
        assert_eq!(transcript.whole(), text, "killed after {cut} tokens");
        assert_eq!(
            transcript.finish_reasons(0),
            undisturbed.finish_reasons(0),
            "after {cut}"
        );
        let counted = transcript.usage().unwrap();
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(
                counted[count], usage[count],
                "{count} after {cut}: {counted} and {usage}"
            );
        }
        cluster.workers.remove(at);
        cluster.add_worker(worker(round + 2, &logs)).await;
    }
}

/// Texts that the model goes on with: each of their characters is one to four tokens to it.
const SCRIPTS: [(&str, usize); 3] = [
    (
        "😀 你好 Привет 🚀 😀 你好 Привет 🚀 😀 你好 Привет 🚀 😀 你好 Привет 🚀 😀 你好",
        9,
    ),
    (
        "Привет, мир! Привет, мир! Привет, мир! Привет, мир! Привет, мир! Привет",
        17,
    ),
    (
        "我是学生。我是学生。我是学生。我是学生。我是学生。我是学生。我是学生。我是",
        5,
    ),
];

fn going_on(text: &str) -> Value {
    json!({"model": "smol", "temperature": 0, "max_tokens": TOKENS, "prompt": text,
        "stream_options": {"include_usage": true}})
}

fn pieces(transcript: &Transcript) -> Vec<&str> {
    transcript.chunks().map(piece).filter(|text| !text.is_empty()).collect()
}

/// No chunk has what the worker asks of its engine for its own sake.
fn has_no_counts(transcript: &Transcript) {
    for chunk in transcript.chunks() {
        let ends = chunk["choices"][0].is_null() || !chunk["choices"][0]["finish_reason"].is_null();
        assert!(ends || chunk.get("timings").is_none(), "{chunk}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_a_real_answer_in_another_script_has_as_many_tokens_when_its_worker_is_killed() {
    let path = "/v1/completions";
    let logs = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::plan()
        .worker(worker(0, &logs))
        .worker(worker(1, &logs))
        .start()
        .await;
    for (round, (text, cut)) in SCRIPTS.into_iter().enumerate() {
        let body = going_on(text);
        let undisturbed = cluster.client().stream_at(path, &[], &body).await.transcript().await;
        let usage = undisturbed.usage().unwrap();
        assert_eq!(usage["completion_tokens"], TOKENS, "{usage}");
        let whole = pieces(&undisturbed);
        assert!((whole.len() as u64) < TOKENS, "each piece is one token: {whole:?}");
        has_no_counts(&undisturbed);

        cluster.wait_active(0).await;
        let (transcript, at) = killed(&mut cluster, path, &body, cut).await;
        assert!(transcript.done() && transcript.error().is_none(), "{transcript:#?}");
        has_no_counts(&transcript);
        assert_eq!(
            pieces(&transcript).concat(),
            whole.concat(),
            "killed after {cut} pieces"
        );
        let counted = transcript.usage().unwrap();
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(
                counted[count], usage[count],
                "{count} after {cut}: {counted} and {usage}"
            );
        }
        cluster.workers.remove(at);
        cluster.add_worker(worker(round + 2, &logs)).await;
    }
}
