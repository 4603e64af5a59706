//! Errors: each has its status and OpenAI's envelope, whatever brought it about.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokenbus_protocol::{Body, EngineError, ErrorCode, Reject, RejectReason};
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::fake_worker::{FakeWorker, finish, last, room, text};
use tokenbus_tests::http::{Answer, CHAT};
use tokenbus_tests::metrics;
use tokenbus_tests::{Cluster, Gate, Link, Role, Script, Upstream, eventually, within};

fn failed(code: ErrorCode, retryable: bool) -> Body<'static> {
    Body::Error(EngineError {
        code,
        message: format!("the engine says {code}"),
        param: None,
        engine_code: None,
        retryable,
        retry_after_ms: Some(7_000),
    })
}

/// The status of each kind of failure, and the `code` in the envelope where OpenAI's clients look
/// for one.
fn expected(code: ErrorCode) -> (u16, Option<&'static str>) {
    match code {
        ErrorCode::BadRequest => (400, None),
        ErrorCode::ContextLengthExceeded => (400, Some("context_length_exceeded")),
        ErrorCode::ContentFilter => (400, Some("content_filter")),
        ErrorCode::UpstreamUnauthorized => (401, None),
        ErrorCode::UpstreamForbidden => (403, None),
        ErrorCode::ModelNotFound => (404, Some("model_not_found")),
        ErrorCode::TooLarge => (413, None),
        ErrorCode::RateLimited => (429, None),
        ErrorCode::EngineUnavailable | ErrorCode::WorkerOverloaded | ErrorCode::Draining | ErrorCode::Cancelled => {
            (503, None)
        }
        ErrorCode::Timeout => (504, None),
        ErrorCode::Internal => (500, None),
    }
}

#[tokio::test]
async fn every_error_crosses_the_wire_and_gets_its_status() {
    let cluster = Cluster::plan().coordinators(0).start().await;
    let mut worker = FakeWorker::join(&cluster.nats, "fake", "m").await;
    for &code in ErrorCode::ALL {
        let client = cluster.client();
        let answer = tokio::spawn(async move { client.chat(&ask("m")).await });
        let taken = worker.next_request().await;
        let accepted = worker.accepted(&taken, false);
        worker.send(&taken, vec![(0, accepted), (1, failed(code, false))]).await;
        let answer = within("the answer", answer).await.unwrap();
        let (status, name) = expected(code);
        let error = answer.error(status);
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(&format!("the engine says {code}")),
            "{error}"
        );
        if let Some(name) = name {
            assert_eq!(error["code"], name);
        }
        if status == 429 || status == 503 {
            assert!(answer.retry_after() >= 1, "{code}");
        }
        if code == ErrorCode::RateLimited {
            assert_eq!(answer.retry_after(), 7, "the engine's own Retry-After");
        }
    }
}

#[tokio::test]
async fn every_error_crosses_the_wire_mid_stream_too() {
    let cluster = Cluster::plan().coordinators(0).start().await;
    let mut worker = FakeWorker::join(&cluster.nats, "fake", "m").await;
    for &code in ErrorCode::ALL {
        let client = cluster.client();
        let stream = tokio::spawn(async move { client.transcript(&ask("m")).await });
        let taken = worker.next_request().await;
        let accepted = worker.accepted(&taken, false);
        worker
            .send(&taken, vec![(0, accepted), (1, text("a")), (2, failed(code, false))])
            .await;
        let transcript = within("the end of the stream", stream).await.unwrap();
        assert_eq!(transcript.text(), "a");
        let error = transcript.broken_off();
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(&format!("the engine says {code}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn every_reject_sends_the_request_to_another_worker_under_its_id() {
    let cluster = Cluster::plan().coordinators(0).start().await;
    let mut worker = FakeWorker::join(&cluster.nats, "fake", "m").await;
    for &reason in RejectReason::ALL {
        // A worker that runs the request already is waited for, not replaced.
        if reason == RejectReason::Duplicate || reason == RejectReason::Expired {
            continue;
        }
        let client = cluster.client();
        let answer = tokio::spawn(async move { client.chat(&ask("m")).await });
        let first = worker.next_request().await;
        let reject = Reject {
            reason,
            worker: worker.name().clone(),
            room: room(0),
            message: String::new(),
            retry_after_ms: Some(1),
            id: Some(first.id),
        };
        worker.send(&first, vec![(0, Body::Reject(reject))]).await;
        // A worker cannot serve what it does not know; whether others are asked is up to the
        // gateway, but the client is told the truth.
        if reason == RejectReason::UnknownModel || reason == RejectReason::Unsupported {
            let mut answer = answer;
            let answer = tokio::select! {
                answer = within("the answer", &mut answer) => answer,
                again = worker.next_request() => {
                    let accepted = worker.accepted(&again, false);
                    let whole = vec![(0, accepted), (1, text("ok")), (2, last("stop")), (3, finish())];
                    worker.send(&again, whole).await;
                    within("the answer", answer).await
                }
            };
            let answer = answer.unwrap();
            assert!(
                answer.status == 200 || answer.status.is_client_error() || answer.status == 503,
                "{answer:?}"
            );
            continue;
        }
        // A hint of room, as a real worker sends when it has some again.
        let hint = tokenbus_protocol::FreeHint {
            worker: worker.name().clone(),
            room: room(1),
        };
        let hint = tokenbus_protocol::encode(&hint).unwrap();
        worker.client.publish("tb.v1.free.m.fake", hint.into()).await.unwrap();
        let second = worker.next_request().await;
        assert_eq!(second.id, first.id, "{reason}");
        assert!(second.attempt > first.attempt, "{reason}");
        let accepted = worker.accepted(&second, false);
        worker
            .send(
                &second,
                vec![(0, accepted), (1, text("ok")), (2, last("stop")), (3, finish())],
            )
            .await;
        assert_eq!(within("the answer", answer).await.unwrap().content(), "ok", "{reason}");
    }
}

/// What vLLM and others say, with or without a code of its own.
const CONTEXT: &str = "This model's maximum context length is 8 tokens. However, you requested 9 tokens";

/// The engine's status, type, code and message; the client's status and code.
type Case = (
    u16,
    &'static str,
    Option<&'static str>,
    &'static str,
    u16,
    Option<&'static str>,
);

const INVALID: &str = "invalid_request_error";
const TOO_LONG: &str = "context_length_exceeded";

#[rustfmt::skip]
const CASES: [Case; 8] = [
    (400, INVALID, Some("bad_grammar"), "no such grammar", 400, Some("bad_grammar")),
    (400, INVALID, Some(TOO_LONG), CONTEXT, 400, Some(TOO_LONG)),
    (400, "BadRequestError", None, CONTEXT, 400, Some(TOO_LONG)),
    (400, INVALID, Some("content_filter"), "not this", 400, Some("content_filter")),
    (413, INVALID, None, "too long", 413, None),
    (429, "rate_limit_error", None, "slow down", 429, None),
    (500, "server_error", None, "boom", 500, None),
    (504, "server_error", None, "too slow", 504, None),
];

#[tokio::test]
async fn an_error_that_the_engine_answers_is_what_the_client_gets() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 4)).start().await;
    for (status, kind, code, message, expected, expected_code) in CASES {
        let script = Script::error(status, kind, code, message);
        let limited = status == 429;
        upstream.always(if limited {
            script.header("retry-after", "9")
        } else {
            script
        });
        for streaming in [false, true] {
            // A success in between, so that the circuit to this engine stays closed.
            upstream.next(Script::texts(&["well"]));
            assert_eq!(cluster.client().chat(&ask("m")).await.content(), "well");
            let answer = cluster.client().chat(&with(ask("m"), "stream", json!(streaming))).await;
            let error = answer.error(expected);
            assert!(error["message"].as_str().unwrap().contains(message), "{error}");
            if let Some(code) = expected_code {
                assert_eq!(error["code"], code, "{error}");
            }
            if limited {
                assert_eq!(answer.retry_after(), 9);
            }
        }
    }
}

#[tokio::test]
async fn an_engine_that_does_not_answer_in_time_is_a_504() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan().worker(Role::proxy(&upstream, 1)).start().await;
    let never = Gate::new();
    upstream.next(Script::texts(&["late"]).after(&never));
    let answer = cluster
        .client()
        .chat_with(&[("x-request-timeout", "1")], &ask("m"))
        .await;
    answer.error(504);
    upstream.request(0).await.abandoned().await;
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
}

#[tokio::test]
async fn an_engine_that_is_down_is_a_503_and_comes_back_by_itself() {
    let upstream = Upstream::start(&["m"]).await;
    let link = Link::to(upstream.address()).await;
    let url = format!("http://{}/v1", link.address());
    let worker = Role::new("worker").args(&["--engine", "openai", "--url", &url, "--slots", "1"]);
    let cluster = Cluster::plan().worker(worker).start().await;
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
    link.cut();
    let answer = cluster
        .client()
        .chat_with(&[("x-request-timeout", "20")], &ask("m"))
        .await;
    answer.error(503);
    answer.retry_after();
    link.open();
    eventually("the engine to be back", async || {
        let answer = cluster.client().chat(&ask("m")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_model_is_a_404_that_names_the_known_ones() {
    let cluster = Cluster::plan()
        .worker(Role::sim("alpha", 1))
        .worker(Role::sim("beta/b:1", 1))
        .start()
        .await;
    let error = cluster.client().chat(&ask("gamma")).await.error(404);
    assert_eq!(error["code"], "model_not_found");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("gamma") && message.contains("alpha") && message.contains("beta/b:1"),
        "{message}"
    );
}

#[tokio::test]
async fn a_known_model_without_a_worker_is_a_503_with_retry_after_and_not_a_429() {
    let mut cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    assert_eq!(cluster.client().chat(&ask_for("m", 2)).await.content(), sim_text(2));
    cluster.workers[0].stop().await;
    cluster.workers.clear();
    cluster.settled().await;
    let answer = cluster
        .client()
        .chat_with(&[("x-request-timeout", "20")], &ask("m"))
        .await;
    answer.error(503);
    answer.retry_after();
}

async fn raw(cluster: &Cluster, body: &str) -> Answer {
    cluster
        .client()
        .request(Method::POST, CHAT, &[], Bytes::from(body.to_owned()))
        .await
}

#[tokio::test]
async fn a_malformed_body_is_a_400_that_says_where() {
    let cluster = Cluster::plan().worker(Role::sim("m", 1)).start().await;
    for broken in [
        "",
        "{",
        "{\"model\": \"m\", }",
        "[1,2]",
        "\"m\"",
        "null",
        "{\"model\":\"m\"} trailing",
        "\u{feff}",
    ] {
        let error = raw(&cluster, broken).await.error(400);
        assert_eq!(error["type"], "invalid_request_error", "{broken}");
    }
    let message = r#""messages":[{"role":"user","content":"x"}]"#;
    let wrong = [
        (format!("{{{message}}}"), "model"),
        (format!(r#"{{"model":7,{message}}}"#), "model"),
        (format!(r#"{{"model":"",{message}}}"#), "model"),
        (format!(r#"{{"model":"m","stream":"yes",{message}}}"#), "stream"),
        (format!(r#"{{"model":"m","max_tokens":"x",{message}}}"#), "max_tokens"),
        (
            format!(r#"{{"model":"m","temperature":"hot",{message}}}"#),
            "temperature",
        ),
        (format!(r#"{{"model":"m","n":0,{message}}}"#), "n"),
        (
            format!(r#"{{"model":"m","stream_options":{{"include_usage":1}},"stream":true,{message}}}"#),
            "stream_options",
        ),
        (r#"{"model":"m"}"#.to_owned(), "messages"),
    ];
    for (body, field) in wrong {
        let error = raw(&cluster, &body).await.error(400);
        let blamed = error["param"].as_str().unwrap_or_default();
        assert!(
            blamed.starts_with(field),
            "{field} is to blame for {body}, not {blamed:?}"
        );
    }
    let bytes = Bytes::from_static(b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}");
    cluster
        .client()
        .request(Method::POST, CHAT, &[], bytes)
        .await
        .error(400);
    assert_eq!(cluster.client().chat(&ask_for("m", 1)).await.content(), "t0 ");
}

#[tokio::test]
async fn wrong_paths_and_methods_get_the_envelope_too() {
    let cluster = Cluster::plan().start().await;
    let client = cluster.client();
    client.get("/v1/nothing/here").await.error(404);
    let answer = client.get(CHAT).await;
    answer.error(405);
    assert!(
        answer.header("allow").is_some_and(|allow| allow.contains("POST")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_unknown_model_is_a_404_without_a_coordinator_too() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan()
        .coordinators(0)
        .worker(Role::proxy(&upstream, 1))
        .start()
        .await;
    // The gateway asks the workers every few seconds.
    cluster.lists("m").await;
    let error = cluster.client().chat(&ask("other")).await.error(404);
    assert_eq!(error["code"], "model_not_found");
}

#[tokio::test]
async fn a_request_of_which_two_engines_died_reaches_no_third_and_no_other_request_suffers() {
    let upstream = Upstream::start(&["m"]).await;
    let deadly = Script::stream().role().cut();
    upstream.next(deadly.clone());
    upstream.next(deadly);
    let cluster = Cluster::plan()
        .worker(Role::proxy(&upstream, 1))
        .worker(Role::proxy(&upstream, 1))
        .worker(Role::proxy(&upstream, 1))
        .start()
        .await;
    let poison = with(ask("m"), "user", json!("poison"));
    for _ in 0..3 {
        let answer = cluster.client().chat(&poison).await;
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(answer.error(500)["code"], "engine_died");
    }
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(cluster.client().chat(&ask("m")).await.content(), "Hello world");
}

#[tokio::test]
async fn a_request_of_which_engines_died_at_one_gateway_is_refused_at_the_others() {
    let upstream = Upstream::start(&["m"]).await;
    let deadly = Script::stream().role().cut();
    upstream.next(deadly.clone());
    upstream.next(deadly);
    let plan = Cluster::plan().gateways(2);
    let plan = (0..4).fold(plan, |plan, _| plan.worker(Role::proxy(&upstream, 1)));
    let cluster = plan.start().await;
    let [here, there] = [0, 1].map(|gateway| cluster.gateways[gateway].client());
    let poison = with(ask("m"), "user", json!("poison"));
    assert_eq!(here.chat(&poison).await.error(500)["code"], "engine_died");
    eventually("the other gateway to hear of it", async || {
        let page = metrics::parse(&there.get("/metrics").await.text());
        let heard = metrics::sum(
            &page,
            "tokenbus_gateway_deadly_requests_total",
            &[("seen", "elsewhere")],
        );
        if heard > 0.0 { Ok(()) } else { Err(heard) }
    })
    .await;
    let answer = there.chat(&poison).await;
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.error(500)["code"], "engine_died");
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(there.chat(&ask("m")).await.content(), "Hello world");
}

#[tokio::test]
async fn requests_that_engines_answer_with_500_take_no_worker_from_others() {
    let upstream = Upstream::start(&["m"]).await;
    let cluster = Cluster::plan()
        .worker(Role::proxy(&upstream, 1))
        .worker(Role::proxy(&upstream, 1))
        .start()
        .await;
    for round in 1..=3 {
        for request in 0..4 {
            let poison = with(ask("m"), "user", json!(format!("poison {request}")));
            let own = Script::error(500, "server_error", None, "index out of range");
            upstream.next(own.clone());
            upstream.next(own);
            cluster.client().chat(&poison).await.error(500);
        }
        // Each was tried elsewhere once. Both workers must serve the others, at the same time.
        let gate = Gate::new();
        let held = Script::texts(&["x"]).after(&gate);
        upstream.next(held.clone());
        upstream.next(held);
        let (client, other) = (cluster.client(), cluster.client());
        let (first, second) = (ask("m"), with(ask("m"), "user", json!("other")));
        let both = async { tokio::join!(client.chat(&first), other.chat(&second)) };
        let opened = async {
            eventually("both to be served", async || {
                let running = upstream.running();
                if running == 2 { Ok(()) } else { Err(running) }
            })
            .await;
            gate.open();
        };
        let ((first, second), ()) = tokio::join!(both, opened);
        assert!(first.status == 200 && second.status == 200, "{first:?} {second:?}");
        assert_eq!(upstream.requests().len(), round * (4 * 2 + 2));
    }
}
