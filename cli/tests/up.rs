//! `tokenbus up` with the real nats-server, engine and model: it answers, and it leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
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
    model: String,
    url: String,
    /// What it says on standard error from then on. It may be left unread.
    told: Option<Lines<BufReader<ChildStderr>>>,
}

impl Cluster {
    /// Starts one and reads its standard error until it says where it serves.
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        let served = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let served = line
                .split_once(" is served at ")
                .map(|(model, rest)| (model.trim().to_owned(), rest.split_once(". ").unwrap().0.to_owned()));
            told.push(line);
            served
        });
        let (model, url) = served.unwrap_or_else(|| panic!("it ended: {told:?}"));
        Self {
            child,
            model,
            url,
            told: Some(lines),
        }
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

    /// All that it has said on standard output when it has ended.
    fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        said
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
    let answer = cluster.said();
    let said = answer
        .trim()
        .strip_prefix("> What is gravity?")
        .unwrap_or_else(|| panic!("{answer}"))
        .to_lowercase();
    // What a small model says of it differs with what runs beside it; that it answers the question does not.
    assert!(said.len() > 40 && said.contains("gravity"), "{answer}");
    wait_until_gone(&children);
}

#[test]
fn an_engine_that_runs_already_is_taken_and_the_published_address_is_told() {
    let home = tempfile::tempdir().unwrap();
    let mut engine = tokenbus(home.path());
    engine.args(["sim-server", "--listen", "127.0.0.1:0", "--model", "theirs"]);
    let mut engine = engine.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(engine.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    let mut command = up(home.path());
    command.args(["--url", url, "--published", "127.0.0.1:4711"]);
    let mut cluster = Cluster::start(command);
    assert_eq!(
        (cluster.model.as_str(), cluster.url.as_str()),
        ("theirs", "http://127.0.0.1:4711/v1")
    );
    kill(cluster.pid(), Signal::SIGTERM).unwrap();
    assert!(cluster.child.wait().unwrap().success());
    engine.kill().unwrap();
    engine.wait().unwrap();
    let answer = cluster.said();
    assert!(answer.contains("t0 t1"), "{answer}");
}

/// A stream that the model goes on with until its context is full.
fn endless(cluster: &Cluster) -> TcpStream {
    let address = cluster
        .url
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/v1")
        .unwrap();
    let body = format!(
        r#"{{"model":"{}","stream":true,"max_tokens":4000,"ignore_eos":true,"messages":[{{"role":"user","content":"Count."}}]}}"#,
        cluster.model
    );
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut begun = [0; 1024];
        let read = client.read(&mut begun).unwrap();
        let begun = String::from_utf8_lossy(begun.get(..read).unwrap());
        if begun.starts_with("HTTP/1.1 200") {
            return client;
        }
        // The gateway learns of the model a moment after the engine has it.
        let soon = begun.starts_with("HTTP/1.1 404") || begun.starts_with("HTTP/1.1 503");
        assert!(soon && Instant::now() < deadline, "{begun}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_says_that_answers_may_end_and_a_second_one_ends_it_at_once() {
    let home = tempfile::tempdir().unwrap();
    let mut command = up(home.path());
    command.arg("--no-prompt");
    let mut cluster = Cluster::start(command);
    let children = cluster.descendants();
    let stream = endless(&cluster);
    kill(cluster.pid(), Signal::SIGINT).unwrap();
    let mut lines = cluster.told.take().unwrap().map_while(Result::ok);
    let said = lines.find(|line| line.starts_with("stopping: "));
    assert!(said.is_some_and(|line| line.contains("a second Ctrl-C ends it at once")));
    // Not sooner than a person would: that counts as the same one.
    let echo = Instant::now() + Duration::from_millis(400);
    while Instant::now() < echo {
        std::thread::yield_now();
    }
    kill(cluster.pid(), Signal::SIGINT).unwrap();
    let ended = cluster.child.wait().unwrap();
    assert_eq!(ended.code(), Some(130), "in good order it would end with 0");
    drop(stream);
    wait_until_gone(&children);
}

#[cfg(target_os = "linux")]
#[test]
fn a_cluster_that_nobody_listens_to_any_more_stops() {
    let home = tempfile::tempdir().unwrap();
    let mut command = up(home.path());
    command.args(["--no-prompt", "--log", "info"]);
    let mut cluster = Cluster::start(command);
    let children = cluster.descendants();
    drop(cluster.told.take());
    drop(cluster.child.stdout.take());
    kill(cluster.pid(), Signal::SIGTERM).unwrap();
    assert!(cluster.child.wait().unwrap().success());
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
    let ended = run(up(home.path()).args(["--model", "llama3"]));
    assert_eq!(ended.status, 1);
    assert!(ended.stderr.contains("hf:owner/repo"), "{}", ended.stderr);
}
