//! Every error at every endpoint, in the form of that endpoint's API.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, with};
use tokenbus_tests::http::{Answer, CHAT};
use tokenbus_tests::{Client, Cluster, Gate, Role, Script, Upstream, eventually};

/// All that the engines of these tests are capable of.
const ALL: [&str; 6] = ["chat", "completion", "embeddings", "rerank", "score", "tokenize"];

/// An endpoint: its path, a request that it takes, and the member that says what is asked.
struct Endpoint {
    path: &'static str,
    body: Value,
    member: &'static str,
}

/// All that takes a model and a body.
fn endpoints() -> Vec<Endpoint> {
    let hello = json!([{"role": "user", "content": "Hello?"}]);
    let message = json!({"model": "m", "max_tokens": 1, "messages": hello});
    let pairs = json!({"model": "m", "query": "q", "documents": ["a"]});
    let all = [
        (CHAT, message.clone(), "messages"),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "a", "max_tokens": 1}),
            "prompt",
        ),
        ("/v1/embeddings", json!({"model": "m", "input": "a"}), "input"),
        (
            "/v1/responses",
            json!({"model": "m", "input": "a", "max_output_tokens": 1}),
            "input",
        ),
        (
            "/v1/responses/input_tokens",
            json!({"model": "m", "input": "a"}),
            "input",
        ),
        ("/v1/messages", message.clone(), "messages"),
        (
            "/v1/messages/count_tokens",
            json!({"model": "m", "messages": hello}),
            "messages",
        ),
        ("/v1/rerank", pairs.clone(), "documents"),
        ("/rerank", pairs.clone(), "documents"),
        ("/v2/rerank", pairs, "documents"),
        ("/v1/score", json!({"model": "m", "text_1": "a", "text_2": "b"}), ""),
        ("/score", json!({"model": "m", "text_1": "a", "text_2": "b"}), ""),
        ("/tokenize", json!({"model": "m", "prompt": "a"}), "prompt"),
        ("/detokenize", json!({"model": "m", "tokens": [1]}), "tokens"),
    ];
    let endpoint = |(path, body, member)| Endpoint { path, body, member };
    all.into_iter().map(endpoint).collect()
}

impl Endpoint {
    fn is_anthropic(&self) -> bool {
        self.path.starts_with("/v1/messages")
    }

    /// Checks that `answer` is an error with this status, in this endpoint's form.
    fn refused(&self, answer: &Answer, status: u16, code: &str) {
        let path = self.path;
        assert_eq!(answer.status.as_u16(), status, "{path} ({code}): {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        let id = answer.header("x-request-id").map(str::to_owned);
        assert!(id.is_some(), "{path}: {answer:?}");
        if self.is_anthropic() {
            let body = answer.json();
            let members: Vec<&String> = body.as_object().unwrap().keys().collect();
            assert_eq!(members, ["error", "request_id", "type"], "{path}: {body}");
            assert_eq!(
                (&body["type"], body["request_id"].as_str()),
                (&json!("error"), id.as_deref()),
                "{path}"
            );
            assert_eq!(body["error"]["type"], anthropics(status), "{path}: {body}");
            assert!(!body["error"]["message"].as_str().unwrap().is_empty(), "{path}: {body}");
        } else {
            let error = answer.error(status);
            assert_eq!(error["code"], code, "{path}: {error}");
            assert!(!error["message"].as_str().unwrap().is_empty(), "{path}: {error}");
        }
    }

    /// Asks for a stream too, where there is one.
    fn ways(&self) -> Vec<Value> {
        let streams = [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"];
        let mut ways = vec![self.body.clone()];
        if streams.contains(&self.path) {
            ways.push(with(self.body.clone(), "stream", json!(true)));
        }
        ways
    }
}

/// Anthropic's word for an error with this status.
fn anthropics(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500 | 502 => "api_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "invalid_request_error",
    }
}

async fn raw(client: &Client, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    client.request(Method::POST, path, headers, body.into()).await
}

/// Sends `body` in each of its ways, and checks that each is refused so.
async fn all_refused(client: &Client, headers: &[(&str, &str)], model: &str, status: u16, code: &str) {
    let endpoints = endpoints();
    let asked = endpoints.iter().flat_map(|endpoint| {
        let each = move |body| async move {
            let body = with(body, "model", json!(model)).to_string();
            (endpoint, raw(client, endpoint.path, headers, body).await)
        };
        endpoint.ways().into_iter().map(each)
    });
    for (endpoint, answer) in join_all(asked).await {
        // Counts are estimated where no engine can tokenize.
        if code == "unsupported_feature" && endpoint.path.ends_with("_tokens") {
            assert_eq!(
                (answer.status, answer.header("x-tokenbus-estimated")),
                (http::StatusCode::OK, Some("true"))
            );
            continue;
        }
        endpoint.refused(&answer, status, code);
        if status == 429 || status == 503 {
            assert!(answer.retry_after() >= 1, "{}", endpoint.path);
        }
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_at_every_endpoint_in_its_own_form() {
    let cluster = Cluster::plan()
        .gateway_args(&["--body-limit", "64KiB"])
        .worker(Role::sim("m", 16))
        .start()
        .await;
    let client = cluster.client();
    for endpoint in endpoints() {
        let path = endpoint.path;
        let good = endpoint.body.to_string();
        let post = async |headers: &[(&str, &str)], body: Bytes| raw(&client, path, headers, body).await;
        for broken in ["", "{", "[1,2]", "null", "\"m\"", "{} trailing", "\u{feff}{}"] {
            endpoint.refused(&post(&[], broken.into()).await, 400, "invalid_json");
        }
        let not_utf8 = Bytes::from_static(b"{\"model\":\"m\",\"x\":\"\xff\"}");
        endpoint.refused(&post(&[], not_utf8).await, 400, "invalid_json");

        let mut without = endpoint.body.clone();
        without.as_object_mut().unwrap().remove("model");
        endpoint.refused(
            &post(&[], without.to_string().into()).await,
            400,
            "missing_required_parameter",
        );
        for (model, code) in [(json!(7), "invalid_type"), (json!(""), "invalid_value")] {
            let body = with(endpoint.body.clone(), "model", model).to_string();
            endpoint.refused(&post(&[], body.into()).await, 400, code);
        }
        if !endpoint.member.is_empty() {
            let mut without = endpoint.body.clone();
            without.as_object_mut().unwrap().remove(endpoint.member);
            endpoint.refused(
                &post(&[], without.to_string().into()).await,
                400,
                "missing_required_parameter",
            );
        }

        let large = with(endpoint.body.clone(), "user", json!("x".repeat(70_000))).to_string();
        endpoint.refused(&post(&[], large.into()).await, 413, "request_too_large");
        let get = client.get(path).await;
        endpoint.refused(&get, 405, "method_not_allowed");
        assert!(get.header("allow").unwrap().contains("POST"), "{path}");
        let brotli = [("content-encoding", "br")];
        endpoint.refused(
            &post(&brotli, good.clone().into()).await,
            415,
            "unsupported_content_encoding",
        );
        let soon = [("x-request-timeout", "soon")];
        endpoint.refused(&post(&soon, good.clone().into()).await, 400, "invalid_value");

        // The type is not asked for, because `curl -d` sends that of a form; what is one is no JSON.
        for kind in [
            "application/x-www-form-urlencoded",
            "text/plain",
            "application/json; charset=utf-8",
        ] {
            let answer = post(&[("content-type", kind)], good.clone().into()).await;
            assert_eq!(answer.status, 200, "{path} {kind}: {}", answer.text());
        }
        let form = [("content-type", "multipart/form-data; boundary=x")];
        let parts = Bytes::from_static(b"--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--\r\n");
        endpoint.refused(&post(&form, parts).await, 400, "invalid_json");
    }
}

#[tokio::test]
async fn members_of_a_wrong_type_are_refused_by_name_before_an_engine_is_asked() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 16)).start().await;
    let client = cluster.client();
    for (path, member, wrong) in [
        (CHAT, "messages", json!("hi")),
        (CHAT, "messages", json!([])),
        (CHAT, "temperature", json!("hot")),
        (CHAT, "max_tokens", json!("many")),
        (CHAT, "n", json!(0)),
        (CHAT, "stream", json!("yes")),
        (CHAT, "tools", json!({})),
        ("/v1/completions", "prompt", json!({})),
        ("/v1/completions", "temperature", json!([])),
        ("/v1/completions", "n", json!(-1)),
        ("/v1/embeddings", "input", json!({})),
        ("/v1/embeddings", "dimensions", json!("few")),
        ("/v1/responses", "input", json!(7)),
        ("/v1/responses", "tools", json!("web")),
        ("/v1/responses", "max_output_tokens", json!("many")),
        ("/v1/responses/input_tokens", "input", json!(7)),
        ("/v1/messages", "messages", json!("hi")),
        ("/v1/messages", "max_tokens", json!("many")),
        ("/v1/messages", "system", json!(7)),
        ("/v1/messages/count_tokens", "messages", json!("hi")),
        ("/v1/rerank", "documents", json!([])),
        ("/v1/rerank", "top_n", json!("all")),
        ("/tokenize", "messages", json!("hi")),
        ("/detokenize", "tokens", json!({})),
    ] {
        let endpoint = endpoints().into_iter().find(|endpoint| endpoint.path == path).unwrap();
        let body = with(endpoint.body.clone(), member, wrong).to_string();
        let answer = raw(&client, path, &[], body.clone()).await;
        let error = &answer.json()["error"];
        let code = error["code"].as_str().unwrap_or_default().to_owned();
        endpoint.refused(&answer, 400, &code);
        let names = if endpoint.is_anthropic() {
            &error["message"]
        } else {
            &error["param"]
        };
        assert!(
            names.as_str().is_some_and(|names| names.contains(member)),
            "{path} {body}: {error}"
        );
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn what_nobody_can_serve_is_refused_at_every_endpoint_in_its_own_form() {
    let nothing: Vec<&str> = ALL.iter().flat_map(|one| ["--no-capability", *one]).collect();
    let mut cluster = Cluster::plan()
        .worker(Role::sim("unable", 4).args(&nothing))
        .worker(Role::sim("gone", 4))
        .start()
        .await;
    let client = cluster.client();
    // Before the first snapshot a model may be one that is only not known yet, which is a 503.
    eventually("the gateway to know all models", async || {
        let answer = client.chat(&ask("nobody")).await;
        if answer.status == 404 { Ok(()) } else { Err(answer) }
    })
    .await;
    all_refused(&client, &[], "nobody", 404, "model_not_found").await;
    all_refused(&client, &[], "unable", 400, "unsupported_feature").await;
    cluster.workers.pop().unwrap().stop().await;
    cluster.settled().await;
    all_refused(&client, &[("x-request-timeout", "20")], "gone", 503, "no_worker").await;
}

#[tokio::test]
async fn who_finds_no_room_is_told_so_at_every_endpoint_in_its_own_form() {
    let cluster = Cluster::plan()
        .gateway_args(&["--waiting", "0"])
        .worker(Role::sim("m", 1))
        .start()
        .await;
    let client = cluster.client();
    let endless = with(with(ask("m"), "sim", json!({"hang_after": 1})), "max_tokens", json!(2));
    let mut running = client.stream(&endless).await;
    assert_eq!(running.text().await, "t0 ");
    all_refused(&client, &[], "m", 429, "server_busy").await;
    drop(running);
}

/// An engine's status, type, code and message; the client's status and OpenAI's code.
type Case = (u16, &'static str, Option<&'static str>, &'static str, u16, &'static str);

/// What an engine answers, and what the client of it sees.
#[rustfmt::skip]
const ENGINE: [Case; 7] = [
    (400, "invalid_request_error", Some("bad_grammar"), "no such grammar", 400, "bad_grammar"),
    (400, "BadRequestError", None, "This model's maximum context length is 8 tokens. However, you requested 9 tokens", 400, "context_length_exceeded"),
    (401, "authentication_error", None, "credentials", 401, "upstream_unauthorized"),
    (413, "invalid_request_error", None, "too long", 413, "request_too_large"),
    (429, "rate_limit_error", Some("tokens"), "slow down", 429, "tokens"),
    (500, "server_error", Some("cuda"), "boom", 500, "cuda"),
    (504, "server_error", None, "too slow", 504, "engine_timeout"),
];

#[tokio::test]
async fn what_an_engine_answers_is_what_the_client_of_every_endpoint_gets() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 16)).start().await;
    let client = cluster.client();
    for (status, kind, code, message, expected, expected_code) in ENGINE {
        let script = Script::error(status, kind, code, message);
        let limited = status == 429;
        upstream.always(if limited {
            script.header("retry-after", "9")
        } else {
            script
        });
        for endpoint in endpoints() {
            for body in endpoint.ways() {
                // A success in between, so that the circuit to this engine stays closed.
                upstream.next(Script::texts(&["well"]));
                assert_eq!(client.chat(&ask("m")).await.content(), "well");
                let answer = raw(&client, endpoint.path, &[], body.to_string()).await;
                endpoint.refused(&answer, expected, expected_code);
                assert!(answer.text().contains(message), "{}: {}", endpoint.path, answer.text());
                if limited {
                    assert_eq!(answer.retry_after(), 9, "{}", endpoint.path);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_deadline_is_a_504_at_every_endpoint_in_its_own_form() {
    let upstream = Upstream::start_capable("m", &ALL).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 64)).start().await;
    let never = Gate::new();
    upstream.always(Script::texts(&["late"]).after(&never));
    all_refused(
        &cluster.client(),
        &[("x-request-timeout", "1")],
        "m",
        504,
        "deadline_exceeded",
    )
    .await;
}
