//! The signal to scale by, and the command that acts on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenbus_tests::ask::{ask, ask_for, sim_text, with};
use tokenbus_tests::binary::tokenbus;
use tokenbus_tests::limits::STOP;
use tokenbus_tests::wait::eventually_in;
use tokenbus_tests::{Cluster, NatsServer, Role, eventually, within};

/// A folder with rules and a scaler's command, which notes its calls and the workers that it starts.
struct Scaler {
    folder: TempDir,
}

impl Scaler {
    fn new(rules: &str, command: &str) -> Self {
        let scaler = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(scaler.path("models.toml"), rules).unwrap();
        let text = format!("#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$1 $2 $3\" >> calls\n{command}\n");
        fs::write(scaler.path("scale"), text).unwrap();
        fs::set_permissions(scaler.path("scale"), fs::Permissions::from_mode(0o755)).unwrap();
        scaler
    }

    /// The command starts simulated workers, and stops them with SIGTERM.
    fn of_workers(rules: &str, nats: &str) -> Self {
        let worker = "worker --engine sim --sim-ttft 0ms --sim-itl 0ms --slots 2";
        let program = tokenbus().display();
        let start = format!("'{program}' {worker} --model \"$1\" --nats {nats} >/dev/null 2>&1 &\necho $! >> pids");
        let stop = "kill -TERM $(tail -n 1 pids)";
        Self::new(rules, &format!("if [ $2 -gt $3 ]; then\n{start}\nelse\n{stop}\nfi"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn role(&self) -> Role {
        let of = |name: &str| self.path(name).display().to_string();
        Role::coordinator().args(&["--models", &of("models.toml"), "--scaler-command", &of("scale")])
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.path("pids")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

async fn cluster(nats: NatsServer) -> Cluster {
    let url = nats.url();
    Cluster::plan().coordinators(0).start_on(nats, &url).await
}

#[tokio::test]
async fn a_model_without_a_worker_gets_one_when_it_is_asked_for_and_none_when_it_is_not() {
    let rules = r#"
        [models."org/m".scale]
        min = 0
        max = 1
        idle-after = "3s"
        start = "20s"
    "#;
    let nats = NatsServer::start().await;
    let scaler = Scaler::of_workers(rules, &nats.url());
    let mut cluster = cluster(nats).await;
    cluster
        .coordinators
        .push(scaler.role().start(&cluster.nats.url()).await);
    cluster.lists("org/m").await;
    let page = cluster.coordinators[0].client();
    let idle = json!({"model": "org/m", "desired": 0, "current": 0, "ready": 0, "active": 0, "waiting": 0});
    assert_eq!(page.get("/scale/org/m").await.ok(), idle);
    assert_eq!(page.get("/scale").await.ok(), json!([idle]));
    assert_eq!(page.get("/scale/other").await.status, 404);
    assert!(scaler.calls().is_empty(), "nobody has asked for it");

    let client = cluster.client();
    let (first, second) = within("both answers", async {
        tokio::join!(async { client.chat(&ask_for("org/m", 3)).await }, async {
            client
                .transcript(&with(ask_for("org/m", 3), "stream", json!(true)))
                .await
        })
    })
    .await;
    assert_eq!(first.content(), sim_text(3));
    assert_eq!(second.text(), sim_text(3));
    assert_eq!(scaler.calls(), ["org/m 1 0"]);
    eventually("the worker in the signal", async || {
        let seen = page.get("/scale/org/m").await.ok();
        let there = seen["desired"] == 1 && seen["current"] == 1 && seen["ready"] == 1;
        if there { Ok(()) } else { Err(seen) }
    })
    .await;

    eventually_in(Duration::from_secs(20), "no worker", async || {
        let seen = page.get("/scale/org/m").await.ok();
        if seen == idle {
            Ok(())
        } else {
            Err((seen, scaler.calls()))
        }
    })
    .await;
    assert_eq!(scaler.calls(), ["org/m 1 0", "org/m 0 1"]);
    assert_eq!(client.chat(&ask_for("org/m", 2)).await.content(), sim_text(2));
}

#[tokio::test]
async fn who_waits_in_vain_for_a_worker_learns_when_one_is_expected_and_why_none_comes_is_logged() {
    let rules = "[models.m.scale]\nmin = 0\nstart = \"40s\"";
    let nats = NatsServer::start().await;
    let scaler = Scaler::new(rules, "exit 3");
    let mut cluster = cluster(nats).await;
    cluster
        .coordinators
        .push(scaler.role().start(&cluster.nats.url()).await);
    cluster.lists("m").await;
    let answer = cluster
        .client()
        .chat_with(&[("x-request-timeout", "3")], &ask("m"))
        .await;
    assert_eq!(answer.error(503)["code"], "no_worker");
    let after = answer.retry_after();
    assert!((30..40).contains(&after), "{after}");
    let failed = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line).clone();
        let is_failure = fields["message"].as_str()?.contains("scaler's command failed");
        is_failure.then_some(fields)
    };
    let limit = Duration::from_secs(10);
    let logs = cluster.coordinators[0].logs();
    let fields = logs.wait_for(limit, "the failure", failed).await;
    assert_eq!((&fields["model"], &fields["desired"]), (&json!("m"), &json!(1)));
    // Another try has the time of a start.
    assert_eq!(scaler.calls(), ["m 1 0"]);
}

#[tokio::test]
async fn a_command_without_a_model_to_scale_is_refused() {
    let mut coordinator = Role::coordinator()
        .args(&["--scaler-command", "/bin/true"])
        .launch("nats://127.0.0.1:1");
    let status = coordinator.exited(STOP).await;
    assert!(!status.success());
    assert!(
        coordinator
            .logs()
            .lines()
            .join("\n")
            .contains("[models.\"NAME\".scale]")
    );
}
