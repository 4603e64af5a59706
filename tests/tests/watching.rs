//! What operators see: the access log, a request's story, the list of metrics, and what watches them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenbus_tests::ask::{ask, ask_for};
use tokenbus_tests::limits::PATIENCE;
use tokenbus_tests::metrics::{parse, sum};
use tokenbus_tests::{ClosedBus, Cluster, Process, Role, binary, eventually};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The line of the access log about the request `id`.
async fn access(gateway: &Process, id: &str) -> Value {
    let pick = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        (line["target"] == "access" && fields["request"] == id).then(|| fields.clone())
    };
    gateway
        .logs()
        .wait_for(PATIENCE, "a line of the access log", pick)
        .await
}

#[tokio::test]
async fn one_line_and_one_story_tell_where_a_request_went_and_why_it_moved() {
    let sim = || Role::sim("m", 2).pace("5ms", "20ms");
    let mut cluster = Cluster::plan().worker(sim()).worker(sim()).start().await;
    let client = cluster.client();
    let mut stream = client
        .stream_with(&[("x-request-id", "moved-1")], &ask_for("m", 200))
        .await;
    assert_eq!(stream.text().await, "t0 ");
    let first = cluster.busy().await;
    let (lost, other) = (cluster.workers[first].id(), cluster.workers[1 - first].id());
    cluster.workers[first].kill().await;
    let rest = stream.transcript().await;
    assert!(rest.done() && rest.text().ends_with("t199 "), "{rest:#?}");

    let line = access(&cluster.gateways[0], "moved-1").await;
    assert_eq!(line["outcome"], "succeeded", "{line}");
    assert_eq!((&line["model"], &line["status"]), (&json!("m"), &json!(200)), "{line}");
    assert_eq!(line["completion_tokens"], 200, "{line}");
    assert_eq!(line["worker"], json!(other), "{line}");
    assert!(line["attempts"].as_u64().unwrap() >= 2, "{line}");
    for number in [
        "wait_ms",
        "ttft_ms",
        "itl_p99_ms",
        "duration_ms",
        "prompt_tokens",
        "cached_tokens",
    ] {
        assert!(line[number].is_u64(), "{number} in {line}");
    }
    assert!(line["decision"].is_string() && line["call"].is_string(), "{line}");

    let url = cluster.nats.url();
    let told = binary::run(PATIENCE, &["trace", "moved-1", "--json", "--nats", &url]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let story = &told[0]["stories"][0];
    let steps: Vec<(&str, &str)> = story["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["k"].as_str().unwrap(), step["w"].as_str().unwrap_or_default()))
        .collect();
    let place = |step: (&str, &str)| steps.iter().position(|seen| *seen == step);
    let (left, went_on) = (place(("left", &lost)), place(("accepted", &other)));
    assert!(left.is_some() && left < went_on, "{story:#}");
    // The answer's own id finds the same story, for a reader.
    let by_answer = format!("chatcmpl-{}", story["call"].as_str().unwrap().replace('-', ""));
    let text = binary::run(PATIENCE, &["trace", &by_answer, "--nats", &url]).await;
    assert!(text.stdout.contains(&format!("left {lost}")), "{text:?}");
    let unknown = binary::run(PATIENCE, &["trace", "never", "--nats", &url]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("no gateway knows"), "{unknown:?}");
}

#[tokio::test]
async fn refused_requests_have_their_line_too() {
    let cluster = Cluster::plan().start().await;
    let headers = [("x-request-id", "refused-1")];
    cluster
        .client()
        .chat_with(&headers, &ask("nosuchmodel"))
        .await
        .error(404);
    let line = access(&cluster.gateways[0], "refused-1").await;
    assert_eq!(line["outcome"], "rejected", "{line}");
    assert_eq!(line["status"], 404, "{line}");
    assert_eq!(line["code"], "model_not_found", "{line}");
}

#[tokio::test]
async fn an_operator_of_a_closed_bus_may_ask_for_a_story() {
    let bus = ClosedBus::start(1, &[("w", &["m"])]).await;
    let start = async |role, user| bus.role(role, user).start(&bus.urls()).await;
    let gateway: Process = start(Role::gateway(), "gateway").await;
    let _coordinator: Process = start(Role::coordinator(), "coordinator").await;
    let _worker: Process = start(Role::sim("m", 2).args(&["--id", "w"]), "worker-w").await;
    let headers = [("x-request-id", "closed-1")];
    eventually("an answer", async || {
        let answer = gateway.client().chat_with(&headers, &ask_for("m", 2)).await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.status)
        }
    })
    .await;
    access(&gateway, "closed-1").await;
    let told = bus.run("operator", &["trace", "closed-1"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("accepted by w"), "{told:?}");
}

/// A metric as a page describes it.
#[derive(Debug, Default)]
struct Described {
    kind: String,
    meaning: String,
    labels: BTreeSet<String>,
}

/// The labels of metrics that have no value in a short run.
const RARE_LABELS: [(&str, &str); 2] = [
    ("tokenbus_coordinator_model_estimated_wait_seconds", "model"),
    ("tokenbus_worker_kv_used_ratio", "worker"),
];

/// Adds the metrics of `page`, by family.
fn describe(all: &mut BTreeMap<String, Described>, page: &str) {
    for line in page.lines() {
        if let Some((name, meaning)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().meaning = meaning.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
    }
    for sample in parse(page) {
        let family = ["", "_total", "_bucket"]
            .into_iter()
            .filter_map(|suffix| sample.name.strip_suffix(suffix))
            .find(|family| all.contains_key(*family));
        if let Some(described) = family.and_then(|family| all.get_mut(family)) {
            let labels = sample.labels.into_keys().filter(|label| label != "le");
            described.labels.extend(labels);
        }
    }
    for (name, label) in RARE_LABELS {
        if let Some(described) = all.get_mut(name) {
            described.labels.insert(label.to_owned());
        }
    }
}

/// The table of docs/metrics.md.
fn table(all: &BTreeMap<String, Described>) -> String {
    let mut table = "| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, described) in all {
        let suffix = if described.kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> = described.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, meaning, labels) = (&described.kind, &described.meaning, labels.join(", "));
        table.push_str(&format!("| `{name}{suffix}` | {kind} | {labels} | {meaning} |\n"));
    }
    table
}

/// A cluster that has done what gives every metric a value, and its pages.
async fn pages() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let keys = keys.to_str().unwrap();
    let key = async |args: &[&str]| {
        let created = binary::run(PATIENCE, &[&["keys", "create", "--keys", keys], args].concat()).await;
        format!("Bearer {}", created.stdout.trim())
    };
    let alice = key(&["alice", "--requests-per-minute", "1"]).await;
    let mut cluster = Cluster::plan().gateway_args(&["--keys", keys]).start().await;
    cluster.add_worker(Role::sim("m", 2)).await;
    let client = cluster.client();
    let headers = [("authorization", &*alice)];
    eventually("an answer, then a refusal", async || {
        match client.chat_with(&headers, &ask_for("m", 5)).await.status.as_u16() {
            429 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(client.chat(&ask_for("m", 5)).await.status, 401);
    let told = eventually("the worker's counts at the leader", async || {
        let told = cluster.coordinators[0].client().get("/metrics").await.text();
        let finished = [("outcome", "finished")];
        match sum(&parse(&told), "tokenbus_worker_requests_total", &finished) {
            counted if counted > 0.5 => Ok(told),
            counted => Err(counted),
        }
    })
    .await;
    // The file of keys is read again while the gateway runs.
    let reader = key(&["reader", "--read-metrics"]).await;
    let headers = [("authorization", &*reader)];
    let page = eventually("the reader's page", async || {
        let get = client.request(http::Method::GET, "/metrics", &headers, bytes::Bytes::new());
        let page = get.await;
        if page.status == 200 {
            Ok(page.text())
        } else {
            Err(page.status)
        }
    })
    .await;
    vec![told, page]
}

#[tokio::test]
async fn every_metric_is_listed_with_its_labels_and_meaning() {
    let mut all = BTreeMap::new();
    for page in pages().await {
        describe(&mut all, &page);
    }
    assert!(all.keys().all(|name| name.starts_with("tokenbus_")), "{:?}", all.keys());
    let path = repository().join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- list -->\n").unwrap();
    let (listed, after) = rest.split_once("<!-- end -->").unwrap();
    let table = table(&all);
    if std::env::var_os("TOKENBUS_WRITE_DOCS").is_some() {
        let written = format!("{before}<!-- list -->\n{table}<!-- end -->{after}");
        std::fs::write(&path, written).unwrap();
        return;
    }
    for (line, expected) in table.lines().zip(listed.lines()) {
        assert_eq!(
            line, expected,
            "docs/metrics.md is old: TOKENBUS_WRITE_DOCS=1 writes it anew"
        );
    }
    assert_eq!(table.lines().count(), listed.lines().count());
}

/// The names of tokenbus's metrics in `text`.
fn named(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let is_metric = |name: &&str| {
        ["tokenbus_gateway_", "tokenbus_coordinator_", "tokenbus_worker_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    text.split(word).filter(is_metric).collect()
}

#[test]
fn alerts_and_dashboards_ask_only_for_metrics_that_exist() {
    let list = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let listed = named(&list);
    let folder = repository().join("deploy/observability");
    let mut asked = 0;
    for file in ["alerts.yaml", "grafana/cluster.json", "grafana/model.json"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for name in named(&text) {
            let series = ["", "_bucket", "_sum", "_count"];
            let known = series
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|name| listed.contains(name)));
            assert!(known, "{file} asks for {name}, which docs/metrics.md does not list");
            asked += 1;
        }
        if file.ends_with("json") {
            let dashboard: Value = serde_json::from_str(&text).unwrap();
            assert!(!dashboard["panels"].as_array().unwrap().is_empty(), "{file}");
        }
    }
    assert!(asked > 20, "{asked}");
}

#[tokio::test]
async fn every_setting_is_listed_with_its_flag_variable_key_default_and_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let made = binary::run(PATIENCE, &["man", "--markdown", folder.path().to_str().unwrap()]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let page = std::fs::read_to_string(folder.path().join("configuration.md")).unwrap();
    for part in [
        "`--trace-slow DURATION`",
        "`TOKENBUS_WORKER_URL`",
        "`[gateway]` `body-limit`",
        "`32MiB`",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let path = repository().join("docs/configuration.md");
    if std::env::var_os("TOKENBUS_WRITE_DOCS").is_some() {
        return std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    for (line, expected) in written.lines().zip(page.lines()) {
        assert_eq!(
            line, expected,
            "docs/configuration.md is old: TOKENBUS_WRITE_DOCS=1 writes it anew"
        );
    }
    assert_eq!(written.lines().count(), page.lines().count(), "docs/configuration.md");
}
