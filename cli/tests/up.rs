//! `tokenbus up` with the real nats-server, engine and model: it answers, and it leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{only_line, run, tokenbus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kept between runs: the engine and the model are 130 MB.
fn cache() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
    std::env::var_os("TOKENBUS_CACHE").map_or(own, PathBuf::from)
}

fn up(home: &Path) -> Command {
    let mut command = tokenbus(home);
    command
        .env("TOKENBUS_CACHE", cache())
        .args(["up", "--listen", "127.0.0.1:0", "--slots", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running cluster; killed, with all that belongs to it, if a test fails.
struct Cluster {
    child: Child,
    url: String,
}

impl Cluster {
    /// Starts one and reads its standard error until it says where it serves.
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        let url = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let url = line
                .split_once(" is served at ")
                .map(|(_, rest)| rest.split_once(". ").unwrap().0.to_owned());
            told.push(line);
            url
        });
        let url = url.unwrap_or_else(|| panic!("it ended: {told:?}"));
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Its child processes, all generations.
    fn descendants(&self) -> Vec<i32> {
        let mut found = vec![self.pid().as_raw()];
        let mut at = 0;
        while at < found.len() {
            let parent = found[at];
            found.extend(
                processes()
                    .into_iter()
                    .filter(|(_, of)| *of == parent)
                    .map(|(pid, _)| pid),
            );
            at += 1;
        }
        found.split_off(1)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// All processes that have not ended, with their parents.
fn processes() -> Vec<(i32, i32)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let parse = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in brackets, may hold anything; after it come the state and the parent.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        (state != "Z").then_some((pid, parent))
    };
    entries.filter_map(parse).collect()
}

fn wait_until_gone(pids: &[i32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let alive: Vec<i32> = processes()
            .into_iter()
            .map(|(pid, _)| pid)
            .filter(|pid| pids.contains(pid))
            .collect();
        if alive.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still there: {alive:?}");
        std::thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_first_question_is_answered_and_a_stop_leaves_no_process() {
    let home = tempfile::tempdir().unwrap();
    // Whatever has to be installed is, so that the start is a second one.
    let provisioned = run(tokenbus(home.path()).env("TOKENBUS_CACHE", cache()).arg("provision"));
    assert_eq!(provisioned.status, 0, "{provisioned:?}");

    let mut cluster = Cluster::start(up(home.path()));
    let children = cluster.descendants();
    assert!(children.len() >= 2, "a nats-server and an engine: {children:?}");

    let mut chat = tokenbus(home.path());
    chat.args(["chat", "--url", &cluster.url, "Say hello."]);
    let answered = run(&mut chat);
    assert_eq!((answered.status, answered.stderr.as_str()), (0, ""), "{answered:?}");
    assert!(answered.stdout.trim().len() > 1, "{answered:?}");

    kill(cluster.pid(), Signal::SIGTERM).unwrap();
    assert!(cluster.child.wait().unwrap().success());
    let mut answer = String::new();
    cluster
        .child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut answer)
        .unwrap();
    let said = answer
        .trim()
        .strip_prefix("> What is gravity?")
        .unwrap_or_else(|| panic!("{answer}"))
        .to_lowercase();
    assert!(
        ["force", "mass", "attract"].iter().any(|word| said.contains(word)),
        "{answer}"
    );
    wait_until_gone(&children);
}

#[cfg(target_os = "linux")]
#[test]
fn a_kill_leaves_no_process_either() {
    let home = tempfile::tempdir().unwrap();
    let mut command = up(home.path());
    command.arg("--no-prompt");
    let mut cluster = Cluster::start(command);
    let children = cluster.descendants();
    assert!(children.len() >= 2, "{children:?}");
    kill(cluster.pid(), Signal::SIGKILL).unwrap();
    cluster.child.wait().unwrap();
    wait_until_gone(&children);
}

#[test]
fn a_taken_port_and_a_wrong_model_are_said_at_once() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(tokenbus(home.path()).args(["up", "--listen", &address]));
    assert_eq!(ended.status, 1);
    let line = only_line(&ended.stderr);
    assert!(
        line.contains("another program uses this port") && line.contains("--listen"),
        "{line}"
    );

    let model = home.path().join("x.gguf");
    std::fs::write(&model, "not a model").unwrap();
    let ended = run(up(home.path()).arg("--model").arg(&model));
    assert_eq!(ended.status, 1);
    assert!(ended.stderr.contains("is no GGUF file"), "{}", ended.stderr);
    assert_eq!(run(up(home.path()).args(["--model", "hf:nonsense"])).status, 2);
}
