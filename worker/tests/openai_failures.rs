//! The HTTP engine against a real server on loopback that refuses, fails, hangs or dies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod openai_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openai_support::server::{Piece, Reply, Server, answer, done, event, finish, text, vllm};
use openai_support::{Told, down, engine, info, job, once, question, ready, start, start_with_room};
use serde_json::json;
use tokenbus_protocol::ErrorCode;
use tokenbus_worker::engine::openai::{ApiKey, OpenAiEngine, OpenAiOptions};
use tokenbus_worker::engine::{Engine as _, Health, Job};
use tokio::sync::oneshot;
use tokio::time::timeout;

#[tokio::test]
async fn statuses_become_errors_with_all_that_the_server_said() {
    let table = [
        (400, ErrorCode::BadRequest, false),
        (401, ErrorCode::UpstreamUnauthorized, true),
        (403, ErrorCode::UpstreamForbidden, true),
        (404, ErrorCode::ModelNotFound, true),
        (413, ErrorCode::TooLarge, false),
        (422, ErrorCode::BadRequest, false),
        (429, ErrorCode::RateLimited, true),
        (500, ErrorCode::Internal, true),
        (503, ErrorCode::EngineUnavailable, true),
        (504, ErrorCode::Timeout, true),
    ];
    for (status, code, retryable) in table {
        let body = json!({"error": {"message": "said", "type": "t", "param": "p", "code": "c"}}).to_string();
        let whole = once(move |_| Reply::Plain(status, vec![("retry-after", "3".to_owned())], body.clone())).await;
        assert!(whole.deltas.is_empty());
        let error = whole.error();
        assert_eq!(
            (error.code, error.retryable, error.retry_after_ms),
            (code, retryable, Some(3000)),
            "{status}"
        );
        assert_eq!(
            (error.param.as_deref(), error.engine_code.as_deref()),
            (Some("p"), Some("c"))
        );
        if !matches!(status, 401 | 403) {
            assert_eq!(error.message, "said");
        }
    }
}

#[tokio::test]
async fn a_context_error_is_one() {
    let body = r#"{"error":{"code":400,"message":"request (5031 tokens) exceeds the available context size (2048 tokens), try increasing it","type":"exceed_context_size_error"}}"#;
    let whole = once(move |_| Reply::Plain(400, Vec::new(), body.to_owned())).await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::ContextLengthExceeded, false)
    );
}

#[tokio::test]
async fn an_endless_error_body_is_not_waited_for() {
    let whole = once(|_| Reply::Plain(500, Vec::new(), "x".repeat(10 * 1024 * 1024))).await;
    assert_eq!(whole.error().message, "the engine answered with status 500");
}

#[tokio::test]
async fn an_error_in_the_middle_is_no_finish() {
    let whole = once(|_| {
        Reply::Stream(vec![
            text("Be"),
            event(r#"{"error":{"message":"out of memory","code":500}}"#),
            finish("stop"),
            done(),
        ])
    })
    .await;
    assert_eq!(whole.text(), "Be");
    assert_eq!(
        (whole.error().code, whole.error().message.as_str()),
        (ErrorCode::Internal, "out of memory")
    );
}

#[tokio::test]
async fn a_stream_that_ends_early_is_a_failure_however_it_ends() {
    let broken = once(|_| Reply::Stream(vec![text("Be"), Piece::Break])).await;
    let clean = once(|_| Reply::Stream(vec![text("Be")])).await;
    let empty = once(|_| Reply::Stream(Vec::new())).await;
    let given_up = once(|_| Reply::Stream(vec![text("Be"), finish("abort"), done()])).await;
    for whole in [broken, clean, empty, given_up] {
        assert_eq!(
            (whole.error().code, whole.error().retryable),
            (ErrorCode::EngineUnavailable, true)
        );
    }
    let without_done = once(|_| Reply::Stream(vec![text("Be"), finish("stop")])).await;
    assert_eq!(without_done.text(), "Be");
    without_done.finish();
    let done_only = once(|_| Reply::Stream(vec![text("Be"), done()])).await;
    assert_eq!(done_only.text(), "Be", "it says that it is done");
    done_only.finish();
}

#[tokio::test]
async fn json_that_is_no_answer_is_an_error() {
    let headers = || vec![("content-type", "application/json".to_owned())];
    let whole = once(move |_| Reply::Plain(200, headers(), r#"{"choices":[]}"#.to_owned())).await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::Internal, true)
    );
    let whole =
        once(move |_| Reply::Plain(200, headers(), r#"{"error":{"message":"no","code":429}}"#.to_owned())).await;
    assert_eq!(
        (whole.error().code, whole.error().message.as_str()),
        (ErrorCode::RateLimited, "no")
    );
}

#[tokio::test]
async fn cancelling_closes_the_connection_at_once() {
    for before_headers in [true, false] {
        // 100 ms are promised; on a busy machine the quickest of a few shows whether they are kept.
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            quickest = quickest.min(cancelled(before_headers).await);
        }
        assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    }
}

/// Cancels a stream before or after its first token, and gives the time until the server sees it.
async fn cancelled(before_headers: bool) -> Duration {
    let mut server = Server::start(vllm("m"), move |_| {
        let (keep, gate) = oneshot::channel::<()>();
        std::mem::forget(keep);
        if before_headers {
            Reply::Hang
        } else {
            Reply::Stream(vec![text("Be"), Piece::Wait(gate), done()])
        }
    })
    .await;
    let mut stream = start(&engine(&server).await, job("m", &question()));
    server.next_seen().await;
    if !before_headers {
        assert!(matches!(stream.next().await, Told::Delta(_)));
    }
    let cancelled = Instant::now();
    let told = stream.cancel().await;
    server.next_aborted().await;
    let took = cancelled.elapsed();
    assert_eq!(told, [Told::Dropped], "no word after the cancellation");
    took
}

#[tokio::test]
async fn a_sink_that_is_closed_stops_the_server() {
    let mut server = Server::start(vllm("m"), |_| {
        let (keep, gate) = oneshot::channel::<()>();
        std::mem::forget(keep);
        Reply::Stream(vec![text("a"), text("b"), text("c"), Piece::Wait(gate)])
    })
    .await;
    let engine = engine(&server).await;
    let whole = start_with_room(engine.as_ref(), job("m", &question()), 2).whole().await;
    server.next_aborted().await;
    assert_eq!((whole.text().as_str(), &whole.end), ("ab", &Told::Dropped));
}

#[tokio::test]
async fn the_deadline_ends_a_server_that_hangs() {
    let mut server = Server::start(vllm("m"), |_| Reply::Hang).await;
    let engine = engine(&server).await;
    let deadline = Instant::now() + Duration::from_millis(200);
    let whole = start(
        &engine,
        Job {
            deadline,
            ..job("m", &question())
        },
    )
    .whole()
    .await;
    assert!(Instant::now() >= deadline);
    assert_eq!(whole.error().code, ErrorCode::Timeout);
    server.next_aborted().await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let count = AtomicUsize::new(0);
    let server = Server::start(vllm("m"), move |_| match count.fetch_add(1, Ordering::Relaxed) {
        1 => Reply::Hangup,
        _ => answer(&["x"]),
    })
    .await;
    let engine = engine(&server).await;
    for _ in 0..3 {
        assert_eq!(start(&engine, job("m", &question())).whole().await.text(), "x");
    }
}

#[tokio::test]
async fn a_server_that_dies_is_down_at_once_and_ready_when_it_is_back() {
    // One that nobody knows is looked at twice a minute only: what tells of its death is the stream.
    let pages = || vec![("/v1/models", r#"{"data":[{"id":"m","owned_by":"someone"}]}"#.to_owned())];
    let server = Server::start(pages(), |_| {
        let (keep, gate) = oneshot::channel::<()>();
        std::mem::forget(keep);
        Reply::Stream(vec![text("a"), Piece::Wait(gate)])
    })
    .await;
    let engine = engine(&server).await;
    let mut stream = start(&engine, job("m", &question()));
    assert!(matches!(stream.next().await, Told::Delta(_)));
    let address = server.die().await;
    let died = Instant::now();
    let whole = stream.whole().await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::EngineUnavailable, true)
    );
    down(engine.as_ref()).await;
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    let whole = start(&engine, job("m", &question())).whole().await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::EngineUnavailable, true)
    );
    assert!(
        !whole.error().message.contains(&address.to_string()),
        "{}",
        whole.error().message
    );

    let _server = Server::start_at(address, pages(), |_| answer(&["back"])).await;
    ready(engine.as_ref()).await;
    assert_eq!(start(&engine, job("m", &question())).whole().await.text(), "back");
}

/// A proxy hands on `/v1` alone: what tells the health of its kind is a 404.
#[tokio::test]
async fn a_server_of_which_only_the_api_can_be_reached_stays_ready() {
    let stays_ready = async |owner: &str| {
        let models = format!(r#"{{"data":[{{"id":"m","owned_by":"{owner}"}}]}}"#);
        let server = Server::start(vec![("/v1/models", models)], |_| answer(&["x"])).await;
        let engine = engine(&server).await;
        let mut info = engine.info();
        let changed = info.wait_for(|info| info.health != Health::Ready);
        // Longer than two probes.
        assert!(timeout(Duration::from_millis(2500), changed).await.is_err(), "{owner}");
    };
    tokio::join!(stays_ready("vllm"), stays_ready("library"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_down() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let engine = OpenAiEngine::start(OpenAiOptions {
        url: Some(url),
        ..OpenAiOptions::default()
    })
    .await
    .unwrap();
    down(engine.as_ref()).await;
}

#[tokio::test]
async fn a_rotated_key_is_read_again_and_no_key_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-first").unwrap();
    let mut server = Server::start(vllm("m"), |seen| {
        match seen.headers["authorization"].to_str().unwrap() {
            "Bearer sk-second" => answer(&["in"]),
            key => Reply::Plain(
                401,
                Vec::new(),
                json!({"error": {"message": format!("bad key {key}")}}).to_string(),
            ),
        }
    })
    .await;
    let options = OpenAiOptions {
        url: Some(server.url()),
        api_key: ApiKey::File(path.clone()),
        ..OpenAiOptions::default()
    };
    let engine = OpenAiEngine::start(options).await.unwrap();
    ready(engine.as_ref()).await;
    let refused = start(&engine, job("m", &question())).whole().await;
    assert_eq!(refused.error().code, ErrorCode::UpstreamUnauthorized);
    assert!(!format!("{refused:?}").contains("sk-"));
    server.next_seen().await;
    std::fs::write(&path, "sk-second").unwrap();
    assert_eq!(start(&engine, job("m", &question())).whole().await.text(), "in");
    assert_eq!(server.next_seen().await.headers["authorization"], "Bearer sk-first");
    assert_eq!(server.next_seen().await.headers["authorization"], "Bearer sk-second");
}

#[tokio::test]
async fn a_server_that_fails_and_fails_is_left_alone_then_tried_once() {
    let healthy = Arc::new(AtomicUsize::new(0));
    let state = healthy.clone();
    let mut server = Server::start(vllm("m"), move |_| match state.load(Ordering::Relaxed) {
        0 => Reply::Plain(500, Vec::new(), "{}".to_owned()),
        _ => answer(&["well"]),
    })
    .await;
    let engine = engine(&server).await;
    for seed in 0..5 {
        // Different requests: one that fails again and again may be to blame itself.
        let mut question = question();
        question["seed"] = seed.into();
        let whole = start(&engine, job("m", &question)).whole().await;
        assert_eq!(whole.error().code, ErrorCode::Internal);
        server.next_seen().await;
    }
    down(engine.as_ref()).await;
    let asked = server.next_seen().await;
    assert!(
        asked.body.contains("\"max_tokens\":1"),
        "it was asked itself: {asked:?}"
    );
    let whole = start(&engine, job("m", &question())).whole().await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::EngineUnavailable, true)
    );
    assert!(server.seen.try_recv().is_err(), "the server was asked");
    healthy.store(1, Ordering::Relaxed);
    let half_open = ready(engine.as_ref()).await;
    assert_eq!(half_open.slots, 1, "one trial");
    assert_eq!(start(&engine, job("m", &question())).whole().await.text(), "well");
    info(engine.as_ref(), |info| {
        info.health == Health::Ready && info.slots == 256
    })
    .await;
}

#[tokio::test]
async fn requests_that_fail_by_themselves_take_a_server_from_nobody() {
    let mut server = Server::start(vllm("m"), |seen| match seen.body.contains("poison") {
        true => Reply::Plain(500, Vec::new(), "{}".to_owned()),
        false => answer(&["well"]),
    })
    .await;
    let engine = engine(&server).await;
    for number in 0..20 {
        let mut poison = question();
        poison["user"] = format!("poison {number}").into();
        let whole = start(&engine, job("m", &poison)).whole().await;
        assert_eq!(whole.error().code, ErrorCode::Internal, "{number}");
    }
    let mut asked = 0;
    while let Ok(seen) = server.seen.try_recv() {
        asked += usize::from(!seen.body.contains("poison"));
    }
    assert!(asked <= 4, "each five requests may cost a question: {asked}");
    assert_eq!(start(&engine, job("m", &question())).whole().await.text(), "well");
}

#[tokio::test]
async fn a_provider_over_tls_needs_no_preparation_by_who_starts_the_engine() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let options = OpenAiOptions {
        url: Some(url),
        models: vec!["m".parse().unwrap()],
        api_key: ApiKey::Value("sk-x".to_owned()),
        ..OpenAiOptions::default()
    };
    let engine = OpenAiEngine::start(options).await.unwrap();
    down(engine.as_ref()).await;
    let whole = start(&engine, job("m", &question())).whole().await;
    assert_eq!(
        (whole.error().code, whole.error().retryable),
        (ErrorCode::EngineUnavailable, true)
    );
}
