//! The endpoints beside chat: text completions, embeddings, rerank, score, tokenize, detokenize.

use serde_json::{Value, json};
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::CallError;
use tokenbus_protocol::{Delta, Feature, Features, Finish, RequestKind, model_mark};
use tokio::task::JoinHandle;

use crate::support::{Answer, Events, Gateway, counted, delta, reason, soon};

fn send(gateway: &Gateway, path: &str, body: &Value) -> JoinHandle<Answer> {
    let request = gateway.client.post(gateway.url(path)).body(body.to_string());
    spawn("client", async move {
        Answer::of(soon(request.send()).await.unwrap()).await
    })
}

fn of(choice: u32, delta: Delta<'static>) -> Delta<'static> {
    Delta { choice, ..delta }
}

#[tokio::test]
async fn a_text_completion_in_one_piece() {
    let mut gateway = Gateway::start().await;
    let body = json!({"model": "m", "prompt": ["a", "b"], "logprobs": 1});
    let answer = send(&gateway, "/v1/completions", &body);
    let call = gateway.call().await;
    assert_eq!(
        (call.call.kind, call.call.model.as_str()),
        (RequestKind::Completion, "m")
    );
    assert_eq!(call.call.needs, Feature::Logprobs.into());
    assert!(call.call.not_resumable.is_some());
    assert_eq!(call.call.body, body.to_string());
    for said in [
        of(1, delta("B")),
        of(0, delta("A")),
        of(0, reason("stop")),
        of(1, reason("length")),
    ] {
        call.say(said).await;
    }
    call.say(counted(2, 2)).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status, 200);
    let mut json = answer.json();
    assert!(json["created"].take().as_u64().unwrap() > 1_700_000_000);
    let choice = |index: u32, text: &str, reason: &str| json!({"text": text, "index": index, "logprobs": null, "finish_reason": reason});
    assert_eq!(
        json,
        json!({
            "id": format!("cmpl-{}", call.call.id.simple()), "object": "text_completion", "created": null, "model": "m",
            "choices": [choice(0, "A", "stop"), choice(1, "B", "length")],
            "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
        })
    );
}

#[tokio::test]
async fn a_text_completion_in_pieces_and_its_failure() {
    let mut gateway = Gateway::start().await;
    let body = json!({"model": "m", "prompt": "a", "stream": true, "stream_options": {"include_usage": true}});
    let request = gateway
        .client
        .post(gateway.url("/v1/completions"))
        .body(body.to_string());
    let response = spawn("client", request.send());
    let call = gateway.call().await;
    assert_eq!(call.call.not_resumable, None);
    call.say("A").await;
    let response = response.await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut events = Events::of(response);
    let first = events.chunk().await;
    assert_eq!(
        (&first["object"], &first["choices"][0]["text"]),
        (&json!("text_completion"), &json!("A"))
    );
    assert!(first["id"].as_str().unwrap().starts_with("cmpl-"));
    call.say(reason("stop")).await;
    call.say(counted(1, 1)).await;
    assert_eq!(events.chunk().await["choices"][0]["finish_reason"], "stop");
    assert_eq!(events.chunk().await["usage"]["total_tokens"], 2);
    assert_eq!(events.data().await, "[DONE]");
    assert!(events.next().await.is_none());

    let request = gateway
        .client
        .post(gateway.url("/v1/completions"))
        .body(body.to_string());
    let response = spawn("client", request.send());
    let call = gateway.call().await;
    call.say("A").await;
    let mut events = Events::of(response.await.unwrap().unwrap());
    events.chunk().await;
    call.say(CallError::WorkerLost {
        reason: "gone".to_owned(),
    })
    .await;
    assert_eq!(events.chunk().await["error"]["code"], "worker_lost");
    assert!(events.next().await.is_none(), "no [DONE] after an error");
}

/// An endpoint that hands its engine's answer on, with a request that it takes.
fn whole_endpoints() -> Vec<(&'static str, RequestKind, Value)> {
    let rerank = || json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}]});
    let score = || json!({"model": "m", "text_1": "a", "text_2": ["b"]});
    vec![
        (
            "/v1/embeddings",
            RequestKind::Embeddings,
            json!({"model": "m", "input": ["a", "b"]}),
        ),
        ("/v1/rerank", RequestKind::Rerank, rerank()),
        ("/rerank", RequestKind::Rerank, rerank()),
        ("/v2/rerank", RequestKind::Rerank, rerank()),
        ("/v1/score", RequestKind::Score, score()),
        ("/score", RequestKind::Score, score()),
        ("/tokenize", RequestKind::Tokenize, json!({"model": "m", "prompt": "a"})),
        (
            "/detokenize",
            RequestKind::Detokenize,
            json!({"model": "m", "tokens": [1, 2]}),
        ),
    ]
}

#[tokio::test]
async fn what_the_engine_answers_in_one_piece_is_handed_on_but_for_the_models_name() {
    let mut gateway = Gateway::start().await;
    for (path, kind, body) in whole_endpoints() {
        let answer = send(&gateway, path, &body);
        let call = gateway.call().await;
        assert_eq!(call.call.kind, kind, "{path}");
        assert_eq!(call.call.all_needs(), Features::from(kind.feature()), "{path}");
        assert_eq!(call.call.body, body.to_string());
        call.say(delta("{\"x\": [1.50,")).await;
        call.say(delta(" 2],\"model\":")).await;
        call.say(model_mark()).await;
        call.say(delta("}")).await;
        call.say(Finish {
            prompt_tokens: Some(3),
            completion_tokens: Some(0),
            ..Finish::default()
        })
        .await;
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/json"),
            "{path}"
        );
        assert_eq!(answer.text, r#"{"x": [1.50, 2],"model":"m"}"#, "{path}");
    }
    let page = gateway.get("/metrics").await.text;
    assert!(page.contains("prompt_tokens_total{model=\"m\"} 24"), "{page}");
    assert!(
        !page.contains("completion_tokens_total{model=\"m\"} 8"),
        "its pieces are no tokens: {page}"
    );
}

#[tokio::test]
async fn wrong_requests_are_refused_before_a_call_is_opened() {
    let mut gateway = Gateway::start().await;
    for (path, _, body) in whole_endpoints() {
        for member in body.as_object().unwrap().keys().filter(|key| !key.starts_with("text_")) {
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(member);
            let answer = send(&gateway, path, &without).await.unwrap();
            assert_eq!(answer.status, 400, "{path} without {member}");
            let error = answer.error();
            assert_eq!(
                (&error["param"], &error["code"]),
                (&json!(member), &json!("missing_required_parameter"))
            );
        }
        let answer = send(&gateway, path, &json!([1])).await.unwrap();
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (400, &json!("invalid_json")),
            "{path}"
        );
        assert_eq!(gateway.get(path).await.status, 405, "{path}");
    }
    let answer = send(&gateway, "/v1/completions", &json!({"model": "m"})).await.unwrap();
    assert_eq!((answer.status, &answer.error()["param"]), (400, &json!("prompt")));
    assert!(gateway.untouched());
}

#[tokio::test]
async fn what_no_worker_can_do_is_a_400_that_names_it() {
    let mut gateway = Gateway::start().await;
    let answer = send(&gateway, "/v1/embeddings", &json!({"model": "m", "input": "a"}));
    let call = gateway.call().await;
    let missing = Feature::Embeddings.into();
    call.say(CallError::Unsupported {
        model: "m".to_owned(),
        missing,
    })
    .await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status, 400);
    let error = answer.error();
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("unsupported_feature"), &json!("model"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("\"m\"") && message.contains("embeddings"), "{message}");
}

#[tokio::test]
async fn an_idempotency_key_is_passed_over_whatever_it_is() {
    let mut gateway = Gateway::start().await;
    let long = "k".repeat(1000);
    for (path, _, body) in whole_endpoints() {
        let mut texts = Vec::new();
        for key in [&b"k"[..], b"k", b"", b"\xff", long.as_bytes()] {
            let request = gateway.client.post(gateway.url(path)).body(body.to_string());
            let request = request.header("idempotency-key", key);
            let answer = spawn("client", async move {
                Answer::of(soon(request.send()).await.unwrap()).await
            });
            // Each request is a call of its own.
            let call = gateway.call().await;
            call.say(delta("[7]")).await;
            call.say(counted(1, 1)).await;
            let answer = answer.await.unwrap();
            assert_eq!(
                (answer.status, answer.header("idempotent-replayed")),
                (200, ""),
                "{path}"
            );
            texts.push(answer.text);
        }
        texts.dedup();
        assert_eq!(texts.len(), 1, "{path}");
    }
    assert!(gateway.untouched());
}

/// Each API's way to refer to an image elsewhere, and to steer an engine.
fn steering() -> Vec<(&'static str, Value)> {
    const URL: &str = "http://169.254.169.254/latest";
    let part = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]);
    let said = json!([{"role": "user", "content": "a"}]);
    vec![
        ("/v1/chat/completions", json!({"model": "m", "messages": part})),
        (
            "/v1/chat/completions",
            json!({"model": "m", "messages": said, "id_slot": 0}),
        ),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "a", "kv_transfer_params": {}}),
        ),
        ("/v1/embeddings", json!({"model": "m", "input": "a", "priority": 1})),
        (
            "/v1/responses",
            json!({"model": "m", "store": false, "input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": URL}]}]}),
        ),
        (
            "/v1/responses",
            json!({"model": "m", "store": false, "input": "a", "lora_path": "x"}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": URL}}]}]}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 9, "messages": said, "chat_template": "x"}),
        ),
    ]
}

#[tokio::test]
async fn no_api_lets_a_client_steer_an_engine_or_make_it_fetch() {
    let mut gateway = Gateway::start().await;
    for (path, body) in steering() {
        let answer = send(&gateway, path, &body).await.unwrap();
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text);
        let setting = answer.text.contains("--engine-member") || answer.text.contains("--media-urls");
        assert!(setting, "{path} {body}: {}", answer.text);
    }
    assert!(gateway.untouched());
}
