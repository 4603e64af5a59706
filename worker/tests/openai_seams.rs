//! Seams between a dead worker's answer and the next one's, against a real server on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod openai_support;

use openai_support::server::{Piece, Reply, Server, answer, done, event, finish, text, usage, vllm};
use openai_support::{engine, job, question, resumed, start};
use serde_json::{Value, json};
use tokenbus_protocol::{Resume, ResumeChoice};
use tokio::sync::oneshot;

fn with(member: &str, value: Value) -> Value {
    let mut body = question();
    body[member] = value;
    body
}

fn had(reasoning: &str, text: &str, tokens: u64) -> Resume {
    let choice = ResumeChoice {
        reasoning: reasoning.to_owned(),
        text: text.to_owned(),
        tokens,
        ..ResumeChoice::default()
    };
    Resume { choices: vec![choice] }
}

fn unknown() -> Vec<(&'static str, String)> {
    vec![("/v1/models", r#"{"data":[{"id":"m","owned_by":"acme"}]}"#.to_owned())]
}

fn reasoning(piece: &str) -> Piece {
    event(json!({"choices": [{"index": 0, "delta": {"reasoning_content": piece}, "finish_reason": null}]}))
}

#[tokio::test]
async fn a_stop_string_across_the_seam_ends_the_answer_and_the_request() {
    let (_never, gate) = oneshot::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let server = Server::start(vllm("m"), move |_| {
        let gate = gate.lock().unwrap().take().unwrap();
        Reply::Stream(vec![text("N"), text("D and on"), Piece::Wait(gate)])
    })
    .await;
    let engine = engine(&server).await;
    let body = with("stop", json!(["END"]));
    // The server never ends its answer: that this one ends is the stop string's doing.
    let whole = start(&engine, resumed(job("m", &body), had("", "The E", 3)))
        .whole()
        .await;
    assert_eq!(whole.text(), "");
    assert_eq!(whole.deltas.last().unwrap().finish_reason.as_deref(), Some("stop"));
    assert_eq!(whole.finish().completion_tokens, Some(2));
}

#[tokio::test]
async fn a_begun_stop_string_that_comes_to_nothing_is_text() {
    let server = Server::start(vllm("m"), |_| answer(&["N", "E"])).await;
    let engine = engine(&server).await;
    let body = with("stop", json!("END"));
    let whole = start(&engine, resumed(job("m", &body), had("", "The E", 3)))
        .whole()
        .await;
    assert_eq!(whole.text(), "NE");
}

#[tokio::test]
async fn a_deterministic_answer_of_an_unknown_server_is_generated_again_and_its_beginning_skipped() {
    let mut server = Server::start(unknown(), |_| {
        Reply::Stream(vec![
            text("Be"),
            text("cau"),
            text("se"),
            finish("stop"),
            usage(9, 3),
            done(),
        ])
    })
    .await;
    let engine = engine(&server).await;
    let body = with("temperature", json!(0));
    let whole = start(&engine, resumed(job("m", &body), had("", "Beca", 2)))
        .whole()
        .await;
    assert_eq!(whole.text(), "use");
    assert_eq!(whole.deltas.last().unwrap().finish_reason.as_deref(), Some("stop"));
    assert_eq!(
        (whole.finish().prompt_tokens, whole.finish().completion_tokens),
        (Some(9), Some(1)),
        "what the client was told of before does not count again"
    );
    let sent: Value = serde_json::from_str(&server.next_seen().await.body).unwrap();
    assert_eq!(sent["messages"], body["messages"]);
}

#[tokio::test]
async fn an_answer_that_comes_out_otherwise_is_an_error_and_no_text() {
    let server = Server::start(unknown(), |_| answer(&["Be", "fore"])).await;
    let engine = engine(&server).await;
    let body = with("seed", json!(7));
    let whole = start(&engine, resumed(job("m", &body), had("", "Because", 2)))
        .whole()
        .await;
    assert!(whole.deltas.is_empty(), "{:?}", whole.deltas);
    assert_eq!(whole.error().engine_code.as_deref(), Some("not_continuable"));
    assert!(whole.error().retryable, "another kind of engine can");
}

#[tokio::test]
async fn reasoning_is_generated_again_where_it_is_deterministic() {
    let server = Server::start(vllm("m"), |_| {
        Reply::Stream(vec![
            reasoning("So "),
            reasoning("it is"),
            text("Yes"),
            finish("stop"),
            usage(9, 3),
            done(),
        ])
    })
    .await;
    let engine = engine(&server).await;
    let ask = |body: Value, resume| start(&engine, resumed(job("m", &body), resume)).whole();
    let whole = ask(with("temperature", json!(0)), had("So it", "", 2)).await;
    let first = whole.deltas[0].extra.as_ref().unwrap().delta.as_ref().unwrap();
    assert_eq!(first.get(), r#"{"reasoning_content":" is"}"#);
    assert_eq!(whole.text(), "Yes");
    let whole = ask(with("temperature", json!(0)), had("So it is", "Y", 3)).await;
    assert_eq!(whole.text(), "es");
    let whole = ask(question(), had("So it", "", 2)).await;
    assert_eq!(whole.error().engine_code.as_deref(), Some("not_continuable"));
}

/// A vLLM whose template finds no final message: it refuses to continue, and answers from the start.
fn refuses(seen: &openai_support::server::Seen) -> bool {
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    last["role"] == "assistant"
}

#[tokio::test]
async fn an_engine_that_refuses_to_continue_generates_again_or_says_so() {
    let server = Server::start(vllm("m"), |seen| {
        if refuses(&seen) {
            let error = json!({"message": "begun answers and thinking exclude each other", "type": "BadRequestError"});
            return Reply::Plain(400, Vec::new(), json!({ "error": error }).to_string());
        }
        answer(&["Be", "cause"])
    })
    .await;
    let engine = engine(&server).await;
    let ask = |body: Value, resume| start(&engine, resumed(job("m", &body), resume)).whole();
    let whole = ask(with("temperature", json!(0)), had("", "Be", 1)).await;
    assert_eq!(whole.text(), "cause");
    let whole = ask(question(), had("", "Be", 1)).await;
    assert!(whole.deltas.is_empty());
    assert_eq!(whole.error().engine_code.as_deref(), Some("not_continuable"));
    assert_ne!(
        whole.error().code,
        tokenbus_protocol::ErrorCode::BadRequest,
        "the client's request is well"
    );
}

#[tokio::test]
async fn an_answer_that_comes_out_otherwise_is_continued_where_the_engine_can() {
    let server = Server::start(vllm("m"), |seen| {
        if refuses(&seen) {
            answer(&["use"])
        } else {
            answer(&["Be", "fore"])
        }
    })
    .await;
    let engine = engine(&server).await;
    let mut body = with("temperature", json!(0));
    body["stop"] = json!("END");
    let whole = start(&engine, resumed(job("m", &body), had("", "Beca", 2)))
        .whole()
        .await;
    assert_eq!(whole.text(), "use");
}

#[tokio::test]
async fn white_space_at_the_seam_is_neither_doubled_nor_lost() {
    let mut server = Server::start(vllm("m"), |_| {
        Reply::Stream(vec![text("\n"), text("x"), finish("stop"), usage(11, 2), done()])
    })
    .await;
    let engine = engine(&server).await;
    let whole = start(&engine, resumed(job("m", &question()), had("", "```\n", 2)))
        .whole()
        .await;
    assert_eq!(whole.text(), "x");
    assert_eq!(
        (whole.finish().prompt_tokens, whole.finish().completion_tokens),
        (Some(10), Some(1))
    );
    let sent: Value = serde_json::from_str(&server.next_seen().await.body).unwrap();
    assert_eq!(sent["messages"][1]["content"], "```");
}
