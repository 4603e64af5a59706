//! The metrics as the registry prints them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::labels::MAX_MODEL_LABELS;
use super::*;

fn text(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[track_caller]
fn has(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
}

#[tokio::test(start_paused = true)]
async fn a_request_leaves_its_measures() {
    let metrics = Metrics::default();
    let start = Instant::now();
    let mut meter = metrics.begin(start);
    has(&metrics, "requests_in_flight 1");
    meter.model("m");
    meter.output(start + Duration::from_millis(300), 2, 1);
    meter.output(start + Duration::from_millis(340), 4, 4);
    meter.output(start + Duration::from_millis(350), 1, 0);
    meter.usage(Some(10), Some(8), 3);
    meter.end(start + Duration::from_secs(2), Outcome::Succeeded, 200);
    drop(meter);
    has(&metrics, "requests_in_flight 0");
    has(
        &metrics,
        r#"requests_total{model="m",outcome="succeeded",status="200"} 1"#,
    );
    has(&metrics, r#"prompt_tokens_total{model="m"} 10"#);
    has(&metrics, r#"completion_tokens_total{model="m"} 8"#);
    has(&metrics, r#"cached_tokens_total{model="m"} 3"#);
    has(&metrics, r#"time_to_first_token_seconds_sum{model="m"} 0.3"#);
    has(&metrics, r#"inter_token_latency_seconds_bucket{le="0.01",model="m"} 4"#);
    has(
        &metrics,
        r#"inter_token_latency_seconds_bucket{le="0.005",model="m"} 0"#,
    );
    has(&metrics, r#"request_duration_seconds_count{model="m"} 1"#);
    assert!(
        !text(&metrics).contains("cancelled"),
        "the drop after the end counts nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_meter_is_a_client_that_left() {
    let metrics = Metrics::default();
    let mut meter = metrics.begin(Instant::now());
    meter.model("m");
    meter.output(Instant::now(), 5, 5);
    drop(meter);
    has(
        &metrics,
        r#"requests_total{model="m",outcome="cancelled",status="499"} 1"#,
    );
    has(&metrics, r#"completion_tokens_total{model="m"} 5"#);
    assert_eq!(metrics.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn made_up_models_make_no_series() {
    let metrics = Metrics::default();
    for n in 0..10 {
        let mut meter = metrics.begin(Instant::now());
        meter.claimed_model(&format!("made-up-{n}"));
        meter.end(Instant::now(), Outcome::Rejected, 404);
    }
    has(
        &metrics,
        r#"requests_total{model="(unknown)",outcome="rejected",status="404"} 10"#,
    );
    assert!(!text(&metrics).contains("made-up"));
}

#[tokio::test(start_paused = true)]
async fn models_beyond_the_bound_share_one_series() {
    let metrics = Metrics::default();
    for n in 0..MAX_MODEL_LABELS + 7 {
        let mut meter = metrics.begin(Instant::now());
        meter.model(&format!("m{n}"));
        meter.end(Instant::now(), Outcome::Succeeded, 200);
    }
    has(
        &metrics,
        r#"requests_total{model="(other)",outcome="succeeded",status="200"} 7"#,
    );
    let known = metrics.0.by_model.read().unwrap().len();
    assert_eq!(known, MAX_MODEL_LABELS + 1);
}
