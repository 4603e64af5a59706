//! A server process of our own: started, restarted, and never left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod openai_support;

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openai_support::{PATIENCE, down, job, ready, start};
use serde_json::json;
use tokenbus_worker::engine::Engine as _;
use tokenbus_worker::engine::openai::{EngineCommand, OpenAiEngine, OpenAiOptions};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_support/server.py");

async fn supervised(arguments: &str, logs: &Path) -> Arc<OpenAiEngine> {
    let command = EngineCommand::parse(&format!("python3 '{SERVER}' {arguments}"), logs).unwrap();
    OpenAiEngine::start(OpenAiOptions {
        command: Some(command),
        ..OpenAiOptions::default()
    })
    .await
    .unwrap()
}

async fn pid(engine: &Arc<OpenAiEngine>) -> Pid {
    let whole = start(engine, job("m", &json!({"messages": []}))).whole().await;
    whole.finish();
    Pid::from_raw(whole.text().parse().unwrap())
}

/// Whether a process runs; one that waits to be reaped by somebody else does not.
fn runs(pid: Pid) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X']))
    });
    kill(pid, None).is_ok() && !zombie
}

#[tokio::test]
async fn a_server_is_started_restarted_when_killed_and_stopped() {
    let logs = tempfile::tempdir().unwrap();
    let engine = supervised("{port}", logs.path()).await;
    ready(engine.as_ref()).await;
    let first = pid(&engine).await;
    kill(first, Signal::SIGKILL).unwrap();
    down(engine.as_ref()).await;
    ready(engine.as_ref()).await;
    let second = pid(&engine).await;
    assert_ne!(first, second);
    engine.stop().await;
    assert!(!runs(second), "stop returned before the server was gone");
}

#[tokio::test]
async fn a_server_that_cannot_start_is_explained() {
    let logs = tempfile::tempdir().unwrap();
    let engine = supervised("{port} --fail", logs.path()).await;
    down(engine.as_ref()).await;
    assert_eq!(engine.log_tail(), ["the model is broken"]);
    assert!(
        std::fs::read_to_string(engine.log_path().unwrap())
            .unwrap()
            .contains("the model is broken")
    );
    engine.stop().await;
}

/// Run by the next test in a process of its own, which is then killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only as a child of the test below"]
async fn worker_to_be_killed() {
    let logs = tempfile::tempdir().unwrap();
    let engine = supervised("{port}", logs.path()).await;
    ready(engine.as_ref()).await;
    // Blocking threads come and go; the server must not go with them.
    tokio::task::spawn_blocking(|| {}).await.unwrap();
    eprintln!("server {}", pid(&engine).await);
    std::future::pending::<()>().await;
}

#[test]
fn a_server_does_not_outlive_a_worker_that_is_killed() {
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(worker.stderr.take().unwrap()).lines();
    let server = lines
        .map(|line| line.unwrap())
        .find_map(|line| {
            line.strip_prefix("server ")
                .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        })
        .expect("the worker has a server");
    assert!(runs(server));
    worker.kill().unwrap();
    worker.wait().unwrap();
    let killed = std::time::Instant::now();
    while runs(server) {
        assert!(killed.elapsed() < PATIENCE, "the server is still there");
        // A process that is not our child ends without an event.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(5));
    }
}
