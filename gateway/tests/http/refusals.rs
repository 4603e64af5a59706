//! What a key may not do, told by every endpoint in the form of its own API.

use reqwest::Method;
use serde_json::{Value, json};
use tokenbus_gateway::testing::{Auth, HttpOptions, Metrics};
use tokenbus_gateway::{KeyHash, KeyTable};
use tokenbus_protocol::Name;

use crate::support::*;

/// What each endpoint that asks a model is asked, and whether it is one of Anthropic's.
fn endpoints() -> Vec<(&'static str, Value, bool)> {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let model = "org/m:7b";
    vec![
        (
            "/v1/chat/completions",
            json!({"model": model, "messages": messages}),
            false,
        ),
        (
            "/v1/chat/completions",
            json!({"model": model, "messages": messages, "stream": true}),
            false,
        ),
        ("/v1/completions", json!({"model": model, "prompt": "hi"}), false),
        ("/v1/responses", json!({"model": model, "input": "hi"}), false),
        (
            "/v1/responses",
            json!({"model": model, "input": "hi", "stream": true}),
            false,
        ),
        (
            "/v1/responses/input_tokens",
            json!({"model": model, "input": "hi"}),
            false,
        ),
        ("/v1/embeddings", json!({"model": model, "input": "hi"}), false),
        (
            "/v1/rerank",
            json!({"model": model, "query": "a", "documents": ["b"]}),
            false,
        ),
        (
            "/v1/score",
            json!({"model": model, "text_1": "a", "text_2": "b"}),
            false,
        ),
        ("/tokenize", json!({"model": model, "prompt": "hi"}), false),
        ("/detokenize", json!({"model": model, "tokens": [1]}), false),
        (
            "/v1/messages",
            json!({"model": model, "max_tokens": 9, "messages": messages}),
            true,
        ),
        (
            "/v1/messages",
            json!({"model": model, "max_tokens": 9, "messages": messages, "stream": true}),
            true,
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": model, "messages": messages}),
            true,
        ),
    ]
}

/// A gateway with a key that has used up its limits, and one that may use another model only.
async fn gateway() -> Gateway {
    let auth = Auth::on(Name::new("g1").unwrap(), Metrics::default());
    let entry = |name: &str, more: &str| {
        let hash = KeyHash::of(format!("tb-{name}").as_bytes());
        format!("[keys.{name}]\nhash = \"{hash}\"\n{more}\n")
    };
    let keys = [
        entry("other", "models = [\"other\"]"),
        entry("spent", "requests-per-minute = 1"),
    ];
    auth.set(KeyTable::parse(&keys.concat()).unwrap());
    let caller = auth.authenticate([&b"tb-spent"[..]]).unwrap().unwrap();
    drop(caller.admit(tokio::time::Instant::now()).unwrap());
    let extras = Extras {
        auth,
        ..Extras::default()
    };
    Gateway::with_extras(HttpOptions::default(), extras).await
}

async fn send(request: reqwest::RequestBuilder) -> Answer {
    Answer::of(soon(request.send()).await.unwrap()).await
}

fn members(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The error's type, checked to be told in the form of the API.
fn kind(answer: &Answer, anthropic: bool) -> String {
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    if anthropic {
        assert_eq!(members(&body), ["error", "request_id", "type"], "{body}");
        assert_eq!(members(&body["error"]), ["message", "type"], "{body}");
        assert_eq!(body["request_id"], answer.header("request-id"));
    } else {
        assert_eq!(members(&body), ["error"], "{body}");
        assert_eq!(members(&body["error"]), ["code", "message", "param", "type"], "{body}");
    }
    body["error"]["type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_endpoint_refuses_in_the_form_of_its_own_api() {
    let mut gateway = gateway().await;
    for (path, body, anthropic) in endpoints() {
        let cases = [
            ("nobody", 401, "invalid_request_error", "authentication_error"),
            ("other", 403, "permission_error", "permission_error"),
            ("spent", 429, "requests", "rate_limit_error"),
        ];
        for (key, status, openai, anthropics) in cases {
            for header in ["authorization", "x-api-key"] {
                let scheme = if header == "authorization" { "Bearer " } else { "" };
                let request = gateway.client.post(gateway.url(path)).body(body.to_string());
                let answer = send(request.header(header, format!("{scheme}tb-{key}"))).await;
                assert_eq!(answer.status, status, "{path} {key}: {}", answer.text);
                let expected = if anthropic { anthropics } else { openai };
                assert_eq!(kind(&answer, anthropic), expected, "{path} {key}");
                let told = answer.header("x-ratelimit-remaining-requests");
                assert_eq!(told, if key == "spent" { "0" } else { "" });
                let after = answer.header("retry-after").parse::<u64>();
                assert_eq!(
                    after.is_ok_and(|seconds| (50..=60).contains(&seconds)),
                    status == 429,
                    "{path} {key}"
                );
            }
        }
        let answer = send(gateway.client.post(gateway.url(path)).body(body.to_string())).await;
        assert_eq!(answer.status, 401, "{path}");
        kind(&answer, anthropic);
    }
    assert!(gateway.untouched());
}

#[tokio::test]
async fn what_asks_no_model_wants_a_key_too() {
    let gateway = gateway().await;
    for (method, path, anthropic) in [
        (Method::GET, "/v1/models", false),
        (Method::GET, "/v1/models", true),
        (Method::GET, "/v1/models/org/m:7b", true),
        (Method::GET, "/v1/responses/resp_1", false),
        (Method::DELETE, "/v1/responses/resp_1", false),
        (Method::GET, "/v1/responses/resp_1/input_items", false),
        (Method::POST, "/v1/messages/batches", true),
        (Method::GET, "/cluster", false),
        (Method::GET, "/openapi.json", false),
    ] {
        let mut request = gateway.client.request(method.clone(), gateway.url(path));
        if anthropic {
            request = request.header("anthropic-version", "2023-06-01");
        }
        let answer = send(request.header("x-api-key", "tb-nobody")).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        let expected = if anthropic {
            "authentication_error"
        } else {
            "invalid_request_error"
        };
        assert_eq!(kind(&answer, anthropic), expected, "{method} {path}");
    }
    // Its models in Anthropic's form are those of the key alone.
    let mut models = Vec::new();
    for name in ["org/m:7b", "other"] {
        models.push(tokenbus_api::ListedModel {
            name: name.to_owned(),
            created: 1,
            context_length: None,
            capabilities: tokenbus_protocol::Capabilities::default(),
            live: true,
        });
    }
    gateway.list(models);
    let request = gateway.client.get(gateway.url("/v1/models"));
    let request = request.header("anthropic-version", "2023-06-01");
    let answer = send(request.header("x-api-key", "tb-other")).await;
    let data = answer.json()["data"].as_array().unwrap().clone();
    assert_eq!(data.iter().map(|model| &model["id"]).collect::<Vec<_>>(), ["other"]);
}
