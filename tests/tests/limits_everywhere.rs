//! The limits of a key in every API, streamed and not: what is told on an answer, and how a refusal looks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Value, json};
use tokenbus_tests::ask::{ask_for, with};
use tokenbus_tests::http::{Answer, CHAT};
use tokenbus_tests::keys::{bearer, create, text};
use tokenbus_tests::{Cluster, Role, eventually};

/// The form in which an API tells an error.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    OpenAi,
    Anthropic,
    Ollama,
}

/// Each API: its path, a request, and the form of its errors.
fn apis() -> Vec<(&'static str, Value, Form)> {
    let messages = json!([{"role": "user", "content": "Hello?"}]);
    let tokens = json!({"num_predict": 2});
    let chat = ask_for("m", 2);
    vec![
        (CHAT, chat, Form::OpenAi),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "a", "max_tokens": 2}),
            Form::OpenAi,
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": "a", "max_output_tokens": 16, "store": false}),
            Form::OpenAi,
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 2, "messages": messages}),
            Form::Anthropic,
        ),
        (
            "/api/chat",
            json!({"model": "m", "messages": messages, "options": tokens}),
            Form::Ollama,
        ),
        (
            "/api/generate",
            json!({"model": "m", "prompt": "a", "options": tokens}),
            Form::Ollama,
        ),
    ]
}

/// Each request as it is, streamed, and not streamed.
fn requests() -> impl Iterator<Item = (&'static str, Value, Form)> {
    let forms = apis().into_iter().flat_map(|(path, body, form)| {
        [false, true].map(|stream| (path, with(body.clone(), "stream", json!(stream)), form))
    });
    forms.collect::<Vec<_>>().into_iter()
}

async fn send(cluster: &Cluster, key: &str, path: &str, body: &Value) -> Answer {
    let headers = [("authorization", &*bearer(key))];
    cluster.client().post(path, &headers, body).await.collect().await
}

/// The headers of a limit: how much it is, what remains, and when it begins anew.
fn told(answer: &Answer, limit: &str) -> [Option<String>; 3] {
    ["limit", "remaining", "reset"].map(|what| answer.header(&format!("x-ratelimit-{what}-{limit}")).map(str::to_owned))
}

/// Checks that this refusal has the form of its API, and says `kind` and `code` where the form has a place for it.
#[track_caller]
fn refused(answer: &Answer, form: Form, kind: &str, code: &str, what: &str) {
    assert_eq!(answer.status, 429, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let body: Value = serde_json::from_str(&answer.text()).unwrap();
    match form {
        Form::OpenAi => {
            let error = answer.error(429);
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!(kind), &json!(code)),
                "{what}: {error}"
            );
        }
        Form::Anthropic => {
            assert_eq!(body["type"], "error", "{what}: {body}");
            assert_eq!(body["error"]["type"], "rate_limit_error", "{what}: {body}");
            assert!(body["error"]["message"].is_string(), "{what}: {body}");
        }
        Form::Ollama => assert!(body["error"].is_string(), "{what}: {body}"),
    }
}

/// A cluster with a worker, and keys with these limits.
async fn cluster<const N: usize>(keys: [&[&str]; N]) -> (Cluster, [String; N], tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let place = ["--keys", text(&file)];
    let mut made = keys.map(|_| String::new());
    for (number, limits) in keys.into_iter().enumerate() {
        made[number] = create(&place, &format!("k{number}"), limits).await;
    }
    let mut cluster = Cluster::plan().gateway_args(&place).start().await;
    cluster.add_worker(Role::sim("m", 16)).await;
    (cluster, made, folder)
}

#[tokio::test]
async fn every_api_tells_what_is_left_of_a_keys_limits() {
    let limits: &[&str] = &["--requests-per-minute", "1000", "--tokens-per-minute", "100000"];
    let limits = [limits, &["--streams", "9", "--tokens-per-day", "1000000"]].concat();
    let (cluster, [key], _folder) = cluster([&limits]).await;
    for (path, body, _) in requests() {
        let answer = send(&cluster, &key, path, &body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        for (limit, most) in [("requests", 1000), ("tokens", 100_000), ("tokens-day", 1_000_000)] {
            let [told_limit, left, reset] = told(&answer, limit).map(|told| told.unwrap_or_default());
            assert_eq!(told_limit, most.to_string(), "{path} {body} {limit}");
            let left: u64 = left.parse().unwrap();
            // Limits by the minute refill, budgets do not.
            assert!(
                left <= most && (left < most || limit != "tokens-day"),
                "{path} {body} {limit}: {left}"
            );
            assert!(reset.ends_with('s'), "{path} {body} {limit}: {reset}");
        }
        for limit in ["tokens-month", "cost-day", "cost-month"] {
            assert_eq!(told(&answer, limit), [None, None, None], "{path}: it has no such limit");
        }
    }
}

#[tokio::test]
async fn every_api_refuses_what_is_over_a_keys_limits_in_its_own_form() {
    let (cluster, [rate, busy, large, spent], _folder) = cluster([
        &["--requests-per-minute", "1"],
        &["--streams", "1"],
        &["--tokens-per-minute", "10"],
        &["--tokens-per-day", "400"],
    ])
    .await;
    assert_eq!(send(&cluster, &rate, CHAT, &ask_for("m", 1)).await.status, 200);
    // A single request may be larger than the limit of a minute; the next ones wait until it is worked off.
    assert_eq!(send(&cluster, &large, CHAT, &ask_for("m", 60)).await.status, 200);
    let headers = [("authorization", &*bearer(&busy))];
    let endless = with(ask_for("m", 9), "sim", json!({"hang_after": 1}));
    let mut held = cluster.client().stream_with(&headers, &endless).await;
    assert_eq!(held.text().await, "t0 ");
    eventually("the end of the budget", async || {
        let answer = send(&cluster, &spent, CHAT, &ask_for("m", 60)).await;
        let code = serde_json::from_str::<Value>(&answer.text()).unwrap()["error"]["code"].clone();
        if code == "insufficient_quota" {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    for (path, body, form) in requests() {
        let what = format!("{path} {body}");
        let over = [
            (&rate, "requests", "rate_limit_exceeded", "requests"),
            (&busy, "requests", "rate_limit_exceeded", ""),
            (&spent, "insufficient_quota", "insufficient_quota", "tokens-day"),
        ];
        for (key, kind, code, limit) in over {
            let answer = send(&cluster, key, path, &body).await;
            refused(&answer, form, kind, code, &what);
            let again = (answer.header("retry-after").is_some(), answer.header("x-should-retry"));
            let expected = if code == "insufficient_quota" {
                (false, Some("false"))
            } else {
                (true, Some("true"))
            };
            assert_eq!(again, expected, "{what} {code}");
            if !limit.is_empty() {
                let left = told(&answer, limit)[1].clone();
                assert_eq!(left.as_deref(), Some("0"), "{what} {limit}");
            }
        }
        let answer = send(&cluster, &large, path, &body).await;
        refused(&answer, form, "tokens", "rate_limit_exceeded", &what);
    }
    // All the while, nothing of that reached the engine, and the stream that was begun is still there. What the
    // coordinator tells is a second old.
    cluster.wait_active(1).await;
    drop(held);
}
