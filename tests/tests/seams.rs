//! An engine's stream breaks, and another worker's goes on: what the client gets is one answer, counted
//! as one. The engine is a scripted vLLM behind two workers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tokenbus_tests::http::CHAT;
use tokenbus_tests::sse_client::Transcript;
use tokenbus_tests::upstream::{Script, Upstream};
use tokenbus_tests::{Cluster, Role};

const PROMPT: u64 = 7;

/// A chunk as vLLM counts it: `tokens` so far.
fn chunk(script: Script, choice: Value, prompt: u64, tokens: u64) -> Script {
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens});
    script.chunk(json!({"choices": [choice], "usage": usage, "system_fingerprint": null}))
}

/// vLLM's answer up to the end of `pieces`, each with the tokens so far.
fn said(pieces: &[(&str, u64)], prompt: u64) -> Script {
    let role = json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null});
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt});
    let first = json!({"choices": [role], "prompt_text": null, "usage": usage});
    pieces
        .iter()
        .fold(Script::stream().chunk(first), |script, (text, tokens)| {
            // Of both APIs.
            let choice = json!({"index": 0, "delta": {"content": text}, "text": text, "finish_reason": null});
            chunk(script, choice, prompt, *tokens)
        })
}

fn whole(pieces: &[(&str, u64)], prompt: u64) -> Script {
    let tokens = pieces.last().map_or(0, |(_, tokens)| *tokens);
    let tokens = usize::try_from(tokens).unwrap();
    let prompt_tokens = usize::try_from(prompt).unwrap();
    said(pieces, prompt).finish("stop").usage(prompt_tokens, tokens).done()
}

fn request(change: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20,
        "stream": true, "stream_options": {"include_usage": true}});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The client's answer, and the requests that the engine got: the first answer breaks off behind `first`.
async fn moved(path: &str, body: &Value, first: &[(&str, u64)], then: Vec<Script>) -> (Transcript, Vec<Value>) {
    let upstream = Upstream::start_vllm("m").await;
    let cluster = Cluster::plan()
        .worker(Role::proxy(&upstream, 4))
        .worker(Role::proxy(&upstream, 4))
        .start()
        .await;
    upstream.next(said(first, PROMPT).cut());
    then.into_iter().for_each(|script| upstream.next(script));
    let transcript = cluster.client().stream_at(path, &[], body).await.transcript().await;
    let asked = upstream.requests().iter().map(|exchange| exchange.json()).collect();
    (transcript, asked)
}

fn text(transcript: &Transcript) -> String {
    let piece = |chunk: &Value| {
        let choice = chunk["choices"][0].clone();
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        text.unwrap_or_default().to_owned()
    };
    transcript.chunks().map(piece).collect()
}

/// The answer is `wanted` with this many completion tokens.
fn is_whole(transcript: &Transcript, wanted: &str, completion: u64, form: &str) {
    assert!(
        transcript.done() && transcript.error().is_none(),
        "{form}: {transcript:#?}"
    );
    assert_eq!(text(transcript), wanted, "{form}");
    let usage = transcript.usage().unwrap();
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(PROMPT), &json!(completion)),
        "{form}: {usage}"
    );
}

#[tokio::test]
async fn an_answer_is_counted_by_the_engine() {
    for (form, change) in [
        ("sampled", json!({})),
        ("temperature 0", json!({"temperature": 0})),
        ("logprobs", json!({"temperature": 0, "logprobs": true})),
    ] {
        // Three tokens in two chunks, behind one that says nothing.
        let rest = whole(&[(" c", 1), (" d e", 3)], PROMPT + 3);
        let (transcript, asked) = moved(CHAT, &request(change), &[("a b", 2), (" x", 3)], vec![rest]).await;
        is_whole(&transcript, "a b x c d e", 6, form);
        assert_eq!(asked[1]["messages"][1]["content"], "a b x", "{form}");
        assert_eq!(asked[1]["max_tokens"], 17, "{form}");
    }
}

#[tokio::test]
async fn what_a_continuation_cannot_bring_exactly_is_generated_again() {
    for (form, change) in [
        ("stop strings", json!({"temperature": 0, "stop": ["END"]})),
        ("a seed", json!({"temperature": 0.8, "seed": 3})),
    ] {
        // Its text ends inside the last of three tokens.
        let rest = whole(&[("a b", 2), (" underlies", 3), (" the", 5)], PROMPT);
        let (transcript, asked) = moved(CHAT, &request(change), &[("a b", 2), (" un", 3)], vec![rest]).await;
        is_whole(&transcript, "a b underlies the", 5, form);
        assert_eq!(asked[1]["messages"], asked[0]["messages"], "{form}");
        assert_eq!(asked[1]["max_tokens"], 20, "{form}");
    }
    // Comes out otherwise: the engine can still go on from what the client has.
    let again = whole(&[("a c", 2)], PROMPT);
    let rest = whole(&[("derlies", 1)], PROMPT + 3);
    let body = request(json!({"temperature": 0, "stop": "END"}));
    let (transcript, asked) = moved(CHAT, &body, &[("a b", 2), (" un", 3)], vec![again, rest]).await;
    is_whole(&transcript, "a b underlies", 4, "otherwise");
    assert_eq!(asked[2]["messages"][1]["content"], "a b un");
}

#[tokio::test]
async fn white_space_at_the_seam_comes_once() {
    for (first, rest) in [("The ", " quick"), ("The ", "quick"), ("The\n", "\nquick")] {
        let prompt = PROMPT + if rest.starts_with('q') { 2 } else { 1 };
        let rest = vec![whole(&[(rest, 1)], prompt)];
        let (transcript, asked) = moved(CHAT, &request(json!({})), &[(first, 2)], rest).await;
        assert_eq!(text(&transcript), format!("{first}quick"));
        assert_eq!(transcript.usage().unwrap()["prompt_tokens"], PROMPT);
        assert_eq!(asked[1]["messages"][1]["content"], "The");
    }
}

#[tokio::test]
async fn a_schema_offered_tools_and_token_ids_are_generated_again() {
    let schema = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}});
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (path, change) in [
        (CHAT, json!({"temperature": 0, "response_format": schema})),
        (CHAT, json!({"temperature": 0, "tools": tools})),
        (
            "/v1/completions",
            json!({"seed": 7, "prompt": [1, 2, 3], "messages": null}),
        ),
    ] {
        let form = change.to_string();
        let rest = whole(&[("{\"a\"", 2), (": 1", 3), ("}", 4)], PROMPT);
        let (transcript, asked) = moved(path, &request(change), &[("{\"a\":", 3)], vec![rest]).await;
        is_whole(&transcript, "{\"a\": 1}", 4, &form);
        assert_eq!(asked[1]["messages"], asked[0]["messages"], "{form}");
    }
}

#[tokio::test]
async fn several_choices_go_on_each_by_itself() {
    let body = request(json!({"temperature": 0, "n": 2}));
    let upstream = Upstream::start_vllm("m").await;
    let worker = || Role::proxy(&upstream, 4);
    let cluster = Cluster::plan().worker(worker()).worker(worker()).start().await;
    let piece = |index: u64, text: &str| json!({"index": index, "delta": {"content": text}, "finish_reason": null});
    let first = chunk(
        chunk(Script::stream(), piece(0, "a b"), PROMPT, 2),
        piece(1, "x"),
        PROMPT,
        2,
    );
    upstream.next(first.cut());
    upstream.always(whole(&[(" c", 1)], PROMPT + 2));
    let transcript = cluster.client().stream(&body).await.transcript().await;
    assert_eq!(
        (transcript.text_of(0), transcript.text_of(1)),
        ("a b c".to_owned(), "x c".to_owned())
    );
    let usage = transcript.usage().unwrap();
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(PROMPT), &json!(6))
    );
}

fn refusal() -> Script {
    let message = "continue_final_message is set but the final message does not appear in the chat";
    Script::error(400, "BadRequestError", None, message)
}

#[tokio::test]
async fn an_engine_that_refuses_to_continue_is_not_the_clients_fault() {
    let rest = whole(&[("a b", 2), (" c", 3)], PROMPT);
    let body = request(json!({"temperature": 0}));
    let (transcript, _) = moved(CHAT, &body, &[("a b", 2)], vec![refusal(), rest]).await;
    is_whole(&transcript, "a b c", 3, "temperature 0");
    let refused = vec![refusal(), refusal(), refusal(), refusal()];
    let (transcript, _) = moved(CHAT, &request(json!({})), &[("a b", 2)], refused).await;
    let error = transcript.error().unwrap();
    assert_ne!(error["type"], "invalid_request_error", "{error}");
    assert_eq!(error["code"], "engine_unavailable", "{error}");
}

#[tokio::test]
async fn another_answer_is_an_error_and_no_text() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let body = request(json!({"temperature": 0, "tools": tools}));
    let other = || whole(&[("b", 1), (" c", 2)], PROMPT);
    let (transcript, _) = moved(CHAT, &body, &[("a b", 2)], vec![other(), other(), other(), other()]).await;
    assert_eq!(text(&transcript), "a b");
    assert_eq!(transcript.error().unwrap()["code"], "engine_unavailable");
}
