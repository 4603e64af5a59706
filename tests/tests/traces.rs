//! Traces: one trace across gateway, bus, worker and engine, told to a collector by OTLP.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use serde_json::{Value, json};
use tokenbus_tests::cluster::Plan;
use tokenbus_tests::collector::{Collector, Kind, Protocol, Span};
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::upstream::{Gate, Script};
use tokenbus_tests::{Cluster, Role, Upstream, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const PROMPT: &str = "a prompt that nobody else reads";

fn parent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{CALLER}-{flags}")
}

fn request() -> Value {
    json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": PROMPT}]})
}

fn traced(collector: &Collector, further: &[(&str, &str)]) -> Plan {
    let plan = collector
        .variables()
        .iter()
        .fold(Cluster::plan(), |plan, (name, value)| plan.env(name, value));
    further.iter().fold(plan, |plan, (name, value)| plan.env(name, value))
}

fn only<'s>(spans: &'s [Span], service: &str, kind: Kind) -> Vec<&'s Span> {
    let mut found: Vec<&Span> = spans
        .iter()
        .filter(|span| span.service == service && span.kind == kind)
        .collect();
    found.sort_by_key(|span| span.times.0);
    found
}

/// The span ids in the `traceparent`s that the engine was sent, with the flags.
fn told(engine: &Upstream) -> Vec<(String, String)> {
    let header = |exchange: &std::sync::Arc<tokenbus_tests::upstream::Exchange>| {
        assert_eq!(exchange.headers["tracestate"], "v=1");
        let header = exchange.headers["traceparent"].to_str().unwrap().to_owned();
        let parts: Vec<&str> = header.split('-').collect();
        assert_eq!((parts[0], parts[1].len()), ("00", 32));
        (parts[2].to_owned(), parts[3].to_owned())
    };
    engine.requests().iter().map(header).collect()
}

async fn ask(cluster: &Cluster, trace: &str) -> tokenbus_tests::sse_client::Transcript {
    let headers = [("traceparent", trace), ("tracestate", "v=1")];
    cluster
        .client()
        .stream_with(&headers, &request())
        .await
        .transcript()
        .await
}

#[tokio::test]
async fn one_trace_joins_gateway_attempts_worker_and_engine_over_a_failover() {
    let collector = Collector::start(Protocol::Http).await;
    let engines = [Upstream::start(&["m"]).await, Upstream::start(&["m"]).await];
    let gate = Gate::new();
    for engine in &engines {
        engine.always(Script::texts(&["Hello", " world"]).after(&gate));
    }
    let plan = traced(&collector, &[])
        .worker(Role::proxy(&engines[0], 1))
        .worker(Role::proxy(&engines[1], 1));
    let mut cluster = plan.start().await;
    let header = parent(TRACE, "01");
    let headers = [("traceparent", header.as_str()), ("tracestate", "v=1")];
    let body = request();
    let client = cluster.client();
    let lost = {
        let asked = client.stream_with(&headers, &body);
        let moved = async {
            let first = eventually("an engine with the request", async || {
                let running = engines.iter().position(|engine| engine.running() == 1);
                running.ok_or("none")
            })
            .await;
            cluster.workers[first].kill().await;
            gate.open();
            first
        };
        let (stream, first) = tokio::join!(asked, moved);
        assert_eq!(stream.transcript().await.whole(), "Hello world");
        first
    };
    let (dead, alive) = (&engines[lost], &engines[1 - lost]);

    // The request and two attempts at the gateway; the attempt and its engine at the worker that lives.
    let spans = collector.trace(TRACE, 5).await;
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let root = only(&spans, "tokenbus-gateway", Kind::Server)[0];
    assert_eq!(
        (root.parent.as_str(), root.state.as_str(), root.failed),
        (CALLER, "v=1", false)
    );
    assert_eq!(root.name, "POST /v1/chat/completions");
    let attempts = only(&spans, "tokenbus-gateway", Kind::Client);
    assert_eq!(attempts.len(), 2);
    assert!(
        attempts.iter().all(|attempt| attempt.parent == root.id),
        "{attempts:#?}"
    );
    assert_eq!(
        attempts.iter().map(|attempt| attempt.failed).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(attempts[0].get("tokenbus.worker"), cluster.workers[lost].id());
    assert_eq!(attempts[1].get("tokenbus.worker"), cluster.workers[1 - lost].id());
    let worker = only(&spans, "tokenbus-worker", Kind::Server)[0];
    assert_eq!(worker.parent, attempts[1].id);
    let engine = only(&spans, "tokenbus-worker", Kind::Client)[0];
    assert_eq!(engine.parent, worker.id);
    assert_eq!(told(alive), [(engine.id.clone(), "01".to_owned())]);
    // The lost worker told nothing; its engine was told of a span of the same trace, unlike all others.
    let dead = told(dead);
    assert!(dead.len() == 1 && spans.iter().all(|span| span.id != dead[0].0));

    tells_the_numbers_and_no_text(&spans, root, worker);
}

fn tells_the_numbers_and_no_text(spans: &[Span], root: &Span, worker: &Span) {
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "m"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "2"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(root.get(name), value, "{name} of {root:#?}");
    }
    assert_eq!(worker.get("gen_ai.usage.output_tokens"), "2");
    for span in spans {
        assert!(
            !span.raw.contains("nobody else reads") && !span.raw.contains("Hello"),
            "{}",
            span.raw
        );
        assert!(
            root.times.0 <= span.times.0 + 5_000_000,
            "nothing begins before the request"
        );
    }
}

#[tokio::test]
async fn a_failure_is_told_although_no_trace_is_sampled() {
    let collector = Collector::start(Protocol::Http).await;
    let engine = Upstream::start(&["m"]).await;
    let ratio = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("OTEL_SERVICE_NAME", "ours"),
    ];
    let cluster = traced(&collector, &ratio).worker(Role::proxy(&engine, 1)).start().await;
    let (good, bad) = (TRACE, "11111111111111111111111111111111");
    assert_eq!(ask(&cluster, &parent(good, "01")).await.whole(), "Hello world");
    assert_eq!(told(&engine)[0].1, "00", "the engine need not record it either");
    engine.always(Script::error(400, "invalid_request_error", None, PROMPT));
    let refused = cluster
        .client()
        .chat_with(&[("traceparent", &parent(good, "01"))], &request())
        .await;
    refused.error(400);
    engine.always(Script::error(500, "server_error", None, PROMPT));
    let failed = cluster
        .client()
        .chat_with(&[("traceparent", &parent(bad, "00"))], &request())
        .await;
    assert!(failed.status.is_server_error(), "{failed:?}");

    // Gateway and worker tell their spans each in its own time.
    eventually("the spans of the failed request", async || {
        let all = collector.spans();
        let is_told = |name: fn(&str) -> bool| all.iter().any(|span| span.trace == bad && name(&span.parent));
        let (root, below) = (is_told(|parent| parent == CALLER), is_told(|parent| parent != CALLER));
        if root && below && all.len() >= 4 {
            Ok(())
        } else {
            Err(all.len())
        }
    })
    .await;
    let all = collector.spans();
    let root = all.iter().find(|span| span.parent == CALLER).unwrap();
    assert!(
        root.failed && root.service == "ours" && !root.get("error.type").is_empty(),
        "{root:#?}"
    );
    assert!(
        all.iter()
            .any(|span| span.name == "chat m" && span.get("tokenbus.outcome") == "failed")
    );
    for span in collector.spans() {
        assert_eq!(span.trace, bad, "only what failed was told: {span:#?}");
        assert!(!span.raw.contains("nobody else reads"), "{}", span.raw);
    }
}

#[tokio::test]
async fn grpc_carries_the_same_spans_and_the_last_of_them_leave_at_the_stop() {
    let collector = Collector::start(Protocol::Grpc).await;
    let engine = Upstream::start(&["m"]).await;
    // Nothing leaves by itself within the test.
    let late = [("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let mut cluster = traced(&collector, &late).worker(Role::proxy(&engine, 1)).start().await;
    assert_eq!(ask(&cluster, &parent(TRACE, "01")).await.whole(), "Hello world");
    cluster.workers[0].stop().await;
    cluster.gateways[0].stop().await;
    let spans = collector.trace(TRACE, 4).await;
    let ids = |service, kind| only(&spans, service, kind)[0];
    let (root, attempt) = (
        ids("tokenbus-gateway", Kind::Server),
        ids("tokenbus-gateway", Kind::Client),
    );
    let (worker, call) = (
        ids("tokenbus-worker", Kind::Server),
        ids("tokenbus-worker", Kind::Client),
    );
    assert_eq!(
        [&root.parent, &attempt.parent, &worker.parent, &call.parent],
        [&CALLER.to_owned(), &root.id, &attempt.id, &worker.id]
    );
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_no_stop() {
    let nobody = format!("http://127.0.0.1:{}", tokenbus_tests::port::lasting());
    let plan = Cluster::plan()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody)
        .env("OTEL_BSP_SCHEDULE_DELAY", "20");
    let mut cluster = plan.worker(Role::sim("m", 1)).start().await;
    for _ in 0..3 {
        assert!(ask(&cluster, &parent(TRACE, "01")).await.done());
    }
    eventually("spans that were not taken", async || {
        let page = cluster.client().get("/metrics").await.text();
        let failed = sum(
            &parse(&page),
            "tokenbus_gateway_trace_spans_total",
            &[("result", "failed")],
        );
        if failed >= 1.0 { Ok(()) } else { Err(failed) }
    })
    .await;
    cluster.gateways[0].stop_within(Duration::from_secs(15)).await;
}
