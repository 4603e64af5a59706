//! The plan of the house: no circle of imports in any crate, and no import up the floors of one that has them.
#![allow(clippy::expect_used)]

use std::path::Path;

use tokenbus_tests::{house, tidy};

/// The floors of each crate that has declared them, from the lowest up; rooms in one line are beside each other.
const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "gateway",
        &[
            &["limits", "http::limits"],
            &["metrics", "story"],
            &["file_watch"],
            &["auth", "placement", "responses_store", "usage", "fast_path::splice"],
            // What the streams see of the fast path; the rest of it knows HTTP and is above them.
            &["waiting_room", "fast_path::lane"],
            &["call"],
            &["model_config"],
            &["stream"],
            &["shared"],
            &["stream::driver"],
            &["loops"],
            &["fast_path"],
            &["http::format", "http::origin", "http::page"],
            &["http::error", "http::options"],
            &["http::held"],
            &["http::edge", "http::openapi"],
            &["http::request"],
            &["http::answer", "http::connection"],
            &["http::endpoints"],
            &["http::router"],
            &["http"],
            &["service"],
        ],
    ),
    (
        "protocol",
        &[
            &["limits", "smoothed_time", "wire"],
            &[
                "codec",
                "feature",
                "labels",
                "model_token",
                "name",
                "openai",
                "spending",
            ],
            &[
                "capabilities",
                "consumption",
                "deadly",
                "event",
                "frame",
                "news",
                "repeat",
                "waiting",
            ],
            &["model_mark", "plain", "status"],
            &["capacity", "control"],
            &["batch", "request", "subject"],
            &["usage"],
            &["story"],
            &["messages"],
        ],
    ),
    (
        "placement",
        &[
            &["limits", "pending", "rates", "turns"],
            &["chain", "score", "trust", "pick"],
            &["news"],
            &["directory", "held"],
            &["recent"],
        ],
    ),
    (
        "bus",
        &[
            &[
                "backoff",
                "clock",
                "credentials",
                "known_streams",
                "limits",
                "link",
                "metrics",
                "rhythm",
                "server_version",
                "task",
            ],
            &["address", "refusals", "replicas", "subscription"],
            &["options"],
            &["dialer", "events", "handshake"],
            &["connection"],
            &["jetstream"],
        ],
    ),
    (
        "coordinator",
        &[
            &["limits", "page_access"],
            &["scaling::rules"],
            &["scaling::desired"],
            &[
                "demand",
                "election",
                "metrics",
                "options",
                "outbound",
                "pacer",
                "page_server",
                "waiting",
            ],
            &["leader", "lease", "registry"],
            &["scaling"],
            &["allowance", "http", "snapshot"],
            &["glance", "watcher"],
            &["service"],
        ],
    ),
    (
        "worker",
        &[
            &["limits", "sync"],
            &["options"],
            &["fast_path"],
            &["engine"],
            &["engine::openai::limits"],
            &["engine::openai::supervisor"],
            &["engine::openai::options"],
            &[
                "engine::openai::error",
                "engine::openai::manner",
                "engine::openai::target",
            ],
            &["engine::openai::wire"],
            &["engine::openai::request", "engine::openai::watch"],
            &["engine::openai::answer"],
            &["engine::openai::generate"],
            &["engine::openai::testing"],
            &["engine::openai"],
            &["engine::llama"],
            &["report"],
            &["outbox"],
            &["core", "testing"],
            &["service"],
            &["worker"],
        ],
    ),
    (
        "http-parts",
        &[&[
            "chunked",
            "completion_pattern",
            "event_stream",
            "json_text",
            "web_guard",
        ]],
    ),
    ("process", &[&["deaths", "lines", "starter"], &["process"]]),
    ("engine", &[&["channel", "overrides"]]),
    (
        "telemetry",
        &[
            &["limits"],
            &["settings", "span", "trace"],
            &["shared"],
            &["otlp"],
            &["tracer"],
        ],
    ),
    (
        "api",
        &[
            &["limits", "models"],
            &["answer", "delta"],
            &["request"],
            &["embeddings", "generation", "rank", "tokens", "translation"],
            &["chat", "completions"],
            &["messages", "ollama", "responses"],
        ],
    ),
    ("sim", &[&["limits", "refusal"], &["engine"], &["server"]]),
    (
        "loadgen",
        &[
            &[
                "budget", "deadline", "http1", "limits", "openai", "procfs", "sim_text", "socket",
            ],
            &["args", "failure"],
            &["arrivals", "check", "target"],
            &["conn", "error"],
            &["exchange", "floor"],
            &["probe", "stats"],
            &["load", "report"],
            &["progress", "report_text", "process_usage"],
            &["run"],
        ],
    ),
    (
        "bench/placement",
        &[
            &["time"],
            &["random"],
            &["prompt", "queue"],
            &["cache", "cuts"],
            &["engine", "holders", "offers"],
            &["lines"],
            &["setting"],
            &["reporter"],
            &["fleet", "worker_side"],
            &["policy", "stats", "workload"],
            &["cluster"],
            &["capacity"],
            &["scenario"],
            &["targets"],
            &["report"],
            &["page"],
        ],
    ),
    (
        "cli",
        &[
            &[
                "failure",
                "files",
                "limits",
                "listen",
                "open_files",
                "secret",
                "size",
                "variables",
            ],
            &["config"],
            &["reference"],
            &["generated", "http", "outlet"],
            &["shared", "signals", "ui"],
            &[
                "access",
                "chat",
                "coordinator",
                "drain",
                "fleet",
                "health",
                "keys",
                "nats_config",
                "sim_server",
                "status",
            ],
            &["gateway", "up"],
            &["worker"],
            &["app"],
        ],
    ),
];

fn sources() -> Vec<tidy::Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository");
    tidy::sources(root)
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let crates = house::crates(&sources());
    let circles = crates
        .iter()
        .flat_map(|(folder, imports)| imports.circles().into_iter().map(move |circle| (folder, circle)));
    let complaints: Vec<String> = circles
        .map(|(folder, circle)| format!("{folder}: {} files in a circle: {circle:?}", circle.len()))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn no_import_runs_up_the_floors() {
    let crates = house::crates(&sources());
    let mut complaints = Vec::new();
    for (folder, floors) in FLOORS {
        let imports = crates.get(*folder).expect("a crate with floors is there");
        complaints.extend(
            imports
                .upward(floors)
                .into_iter()
                .map(|complaint| format!("{folder}: {complaint}")),
        );
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
