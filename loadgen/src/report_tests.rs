//! Tests of the report: its fields, its units, and what it says where nothing was measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::exchange::Outcome;
use crate::failure::{Failure, Kind};

fn load() -> Load {
    Load {
        url: "http://h/v1".to_owned(),
        model: "m".to_owned(),
        mode: "closed",
        concurrency: Some(4),
        http2_connections: None,
        rate_per_second: None,
        arrivals: None,
        max_in_flight: None,
        max_tokens: 10,
        request_bytes: 99,
        stream: true,
        check: "sim",
        timeout_seconds: 60.0,
        threads: 1,
        warmup_requests: 0,
        warmup_failed: 0,
    }
}

fn used(name: &str, cpu: Option<f64>) -> ProcessUse {
    ProcessUse {
        name: name.to_owned(),
        pids: vec![7],
        ended_pids: if cpu.is_none() { vec![7] } else { vec![] },
        cpu_user_seconds: cpu,
        cpu_system_seconds: cpu,
        cpu_seconds: cpu.map(|c| c * 2.0),
        cpu_us_per_token: cpu,
        cpu_us_per_request: cpu,
        memory_bytes: Some(1 << 20),
        peak_memory_bytes: Some(3 << 20),
    }
}

fn outcome(failure: Option<Failure>) -> Outcome {
    Outcome {
        failure,
        tokens: 10,
        arrivals: 10,
        ttft: Some(Duration::from_micros(20_500)),
        decode: Some(Duration::from_millis(90)),
        total: Duration::from_millis(111),
        start_delay: Duration::ZERO,
    }
}

fn report() -> Report {
    let mut stats = Stats::new().unwrap();
    stats.started = 3;
    stats.add(outcome(None), &[Duration::from_millis(10); 9]);
    stats.add(
        outcome(Some(Failure::new(Kind::ErrorEvent, "worker_lost", "gone"))),
        &[],
    );
    let processes = vec![used("gateway", Some(1.5)), used("nats", None)];
    Report::new(load(), 2.0, false, &stats, processes, used("bench", Some(0.25)))
}

#[test]
fn the_json_is_the_documented_one() {
    let json: Value = serde_json::to_value(report()).unwrap();
    assert_eq!(json["schema"], "tokenbus.bench/1");
    assert_eq!(
        json["requests"],
        json!({"succeeded": 1, "failed": 1, "cut_off": 1, "succeeded_per_second": 0.5})
    );
    assert_eq!(
        json["tokens"],
        json!({"received": 20, "received_per_second": 10.0, "arrivals": 20})
    );
    let ttft = &json["latency"]["ttft"];
    let keys: Vec<_> = ttft.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["max_us", "mean_us", "p50_us", "p90_us", "p99_us", "samples"]);
    // Three significant digits: 20,500 µs falls into a bucket of 16 µs.
    assert!((20_484..=20_516).contains(&ttft["p50_us"].as_u64().unwrap()), "{ttft}");
    assert_eq!(json["latency"]["start_delay"], Value::Null);
    let failure = json!([{"kind": "error_event", "code": "worker_lost", "count": 1, "example": "gone"}]);
    assert_eq!(json["failures"], failure);
    assert_eq!(json["processes"][0]["cpu_seconds"], 3.0);
    assert_eq!(json["processes"][1]["cpu_seconds"], Value::Null);
    assert_eq!(json["processes"][1]["ended_pids"], json!([7]));
    assert_eq!(json["bench"]["peak_memory_bytes"], 3 << 20);
}

#[test]
fn the_text_says_the_same() {
    let text = report().to_string();
    for part in [
        "4 connections, 10 tokens streamed, check sim",
        "1 succeeded, 1 failed, 1 cut off, 0.5/s",
        "20, 10/s, in 20 arrivals",
        "1 × error_event worker_lost: gone",
        "ended during the run",
    ] {
        assert!(text.contains(part), "{part:?} not in\n{text}");
    }
    assert!(!text.contains("late by"), "{text}");
}

#[test]
fn nothing_measured_is_no_number() {
    let stats = Stats::new().unwrap();
    let empty = Report::new(load(), 0.0, true, &stats, vec![], used("bench", Some(0.0)));
    let json = serde_json::to_value(&empty).unwrap();
    assert_eq!(json["latency"]["ttft"], Value::Null);
    assert_eq!(json["requests"]["succeeded_per_second"], 0.0);
    assert!(!empty.to_string().contains("ttft"));
}
