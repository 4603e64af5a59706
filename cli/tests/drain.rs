//! Draining with real processes: a worker over the bus, and a gateway that is asked to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{only_line, run, tokenbus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// The nats-server that the machine has, or else the one that tokenbus installs.
fn nats_server() -> PathBuf {
    let named = std::env::var_os("TOKENBUS_NATS_SERVER").filter(|path| !path.is_empty());
    if let Some(named) = named {
        return named.into();
    }
    let on_path = std::process::Command::new("nats-server").arg("--version").output();
    if on_path.is_ok_and(|output| output.status.success()) {
        return "nats-server".into();
    }
    let home = tempfile::tempdir().unwrap();
    let own = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let cache = std::env::var_os("TOKENBUS_CACHE").map_or(own, PathBuf::from);
    let provided = run(tokenbus(home.path())
        .env("TOKENBUS_CACHE", cache)
        .args(["provision", "nats"]));
    assert_eq!(provided.status, 0, "no nats-server: {}", provided.stderr);
    let line = provided
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("nats_server="));
    line.unwrap_or_else(|| panic!("no nats-server: {provided:?}")).into()
}

/// A process that is killed with its test, and its log.
struct Process {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Process {
    fn start(command: std::process::Command) -> Self {
        let mut command = Command::from(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("it can be started");
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    /// Reads the log up to a line in which `find` finds something.
    async fn says<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let reading = async {
            let mut told = Vec::new();
            while let Some(line) = self.log.next_line().await.unwrap() {
                if let Some(found) = find(&line) {
                    return found;
                }
                told.push(line);
            }
            panic!("it ended before {what}: {told:#?}")
        };
        soon(what, reading).await
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it runs");
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        soon("the end of a process", self.child.wait()).await.unwrap()
    }
}

/// A nats-server, and what runs on it.
struct Bus {
    home: TempDir,
    url: String,
    _server: Process,
}

impl Bus {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(nats_server());
        command.args(["-a", "127.0.0.1", "-p", "-1"]).current_dir(home.path());
        let mut server = Process::start(command);
        let port = server
            .says("its port", |line| {
                let (_, port) = line.split_once("Listening for client connections on 127.0.0.1:")?;
                port.trim().parse::<u16>().ok()
            })
            .await;
        server
            .says("its ready line", |line| line.ends_with("Server is ready").then_some(()))
            .await;
        Self {
            home,
            url: format!("nats://127.0.0.1:{port}"),
            _server: server,
        }
    }

    async fn role(&self, args: &[&str]) -> (Process, Value) {
        let mut command = tokenbus(self.home.path());
        command
            .args(args)
            .args(["--nats", &self.url, "--log-format", "json", "--log", "info"]);
        let mut process = Process::start(command);
        let ready = process
            .says("its ready line", |line| {
                let line: Value = serde_json::from_str(line).ok()?;
                line["message"].as_str()?.ends_with(" ready").then_some(line)
            })
            .await;
        (process, ready)
    }

    /// A worker that sends a token each `pace`.
    async fn worker(&self, id: &str, pace: &str) -> Process {
        let sim = ["worker", "--engine", "sim", "--model", "m", "--slots", "2", "--id", id];
        let paced = ["--sim-ttft", "0ms", "--sim-itl", pace];
        self.role(&[&sim[..], &paced].concat()).await.0
    }

    async fn gateway(&self, delay: &str) -> (Process, Client) {
        let args = ["gateway", "--listen", "127.0.0.1:0", "--drain-delay", delay];
        let (process, ready) = self.role(&args).await;
        let address = ready["address"].as_str().unwrap().parse().unwrap();
        (process, Client::new(address))
    }

    /// `tokenbus drain` with `args`; its exit status and what it wrote.
    async fn drain(&self, args: &[&str]) -> (i32, String, String) {
        drain(self.home.path(), &self.url, args).await
    }
}

async fn drain(home: &std::path::Path, nats: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = tokenbus(home);
    command.arg("drain").args(args).args(["--nats", nats]);
    let output = Command::from(command).kill_on_drop(true).output();
    let output = soon("the end of tokenbus drain", output).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[derive(Clone)]
struct Client {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, http }
    }

    async fn get(&self, path: &str) -> u16 {
        let sent = self.http.get(format!("http://{}{path}", self.address)).send();
        soon(path, sent).await.unwrap().status().as_u16()
    }

    /// A streamed answer of `tokens` tokens that has begun.
    async fn stream(&self, tokens: u32) -> reqwest::Response {
        let body = json!({
            "model": "m", "stream": true, "max_tokens": tokens,
            "messages": [{"role": "user", "content": "hi"}],
        });
        let request = self
            .http
            .post(format!("http://{}/v1/chat/completions", self.address))
            .body(body.to_string());
        soon("a stream to begin", request.send()).await.unwrap()
    }

    /// The status of short requests, again and again until it is `status`.
    async fn answers(&self, status: u16) {
        let asking = async {
            while self.stream(1).await.status() != status {
                tokio::task::yield_now().await;
            }
        };
        soon(&format!("the status {status}"), asking).await;
    }
}

/// The stream's text, which must be whole.
async fn whole(response: reqwest::Response, tokens: u32) {
    let text = soon("a stream to end", response.text()).await.unwrap();
    let mut expected = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
        for word in chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default()
            .split_whitespace()
        {
            assert_eq!(word, format!("t{expected}"), "{text}");
            expected += 1;
        }
    }
    assert_eq!(expected, tokens);
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
}

#[tokio::test]
async fn a_drained_worker_takes_nothing_until_it_is_undone() {
    let bus = Bus::start().await;
    let mut worker = bus.worker("w1", "0ms").await;
    let (_gateway, client) = bus.gateway("0s").await;
    client.answers(200).await;

    let (status, out, err) = bus.drain(&["w1", "--wait"]).await;
    assert_eq!((status, err.as_str()), (0, ""));
    let expected = "worker w1 takes no new requests; running ones have its own grace period\n\
                    worker w1 is drained: nothing runs on it\n";
    assert_eq!(out, expected);
    client.answers(503).await;
    assert!(worker.child.try_wait().unwrap().is_none(), "it stays");
    // Once more is no error, and ends at once as well.
    assert_eq!(bus.drain(&["w1", "--wait", "--grace", "1m"]).await.0, 0);

    let (status, out, err) = bus.drain(&["w1", "--undo"]).await;
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (0, "worker w1 takes requests again\n", "")
    );
    client.answers(200).await;
    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn waiting_ends_when_what_runs_has_ended() {
    let bus = Bus::start().await;
    let worker = bus.worker("w1", "20ms").await;
    let (_gateway, client) = bus.gateway("0s").await;
    client.answers(200).await;
    let began = Instant::now();
    let stream = client.stream(100).await;
    assert_eq!(stream.status(), 200);
    let running = tokio::join!(whole(stream, 100), bus.drain(&["w1", "--wait", "--grace", "30s"]));
    let (status, out, err) = running.1;
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(
        out.starts_with("worker w1 takes no new requests; running ones have 30s\n")
            && out.ends_with("worker w1 is drained: nothing runs on it\n"),
        "{out}"
    );
    // A hundred tokens of 20 ms: it did not end before they had.
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());

    // One that is shutting down does not take requests again; it has a stream to finish.
    assert_eq!(bus.drain(&["w1", "--undo"]).await.0, 0);
    client.answers(200).await;
    let stream = client.stream(200).await;
    worker.signal(Signal::SIGTERM);
    let (status, out, err) = bus.drain(&["w1", "--undo"]).await;
    assert_eq!((status, out.as_str()), (4, ""));
    assert_eq!(err, "error: worker w1 refuses: the worker is shutting down\n");
    // Whoever waits for it sees it end.
    let (told, ()) = tokio::join!(bus.drain(&["w1", "--wait"]), whole(stream, 200));
    assert!(
        told.0 == 0 && (told.1.ends_with("worker w1 has ended\n") || told.1.ends_with("nothing runs on it\n")),
        "{told:?}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_in_one_line_with_a_status_of_its_own() {
    let bus = Bus::start().await;
    let _worker = bus.worker("w1", "0ms").await;
    let (status, out, err) = bus.drain(&["w2"]).await;
    assert_eq!((status, out.as_str()), (3, ""));
    let line = only_line(&err);
    assert!(
        line.starts_with("error: there is no worker w2 in cluster tb;"),
        "{line}"
    );
    let elsewhere = bus.drain(&["w1", "--namespace", "other"]).await;
    assert!(
        elsewhere.0 == 3 && elsewhere.2.contains("in cluster other"),
        "{elsewhere:?}"
    );
    for wrong in [
        &["w.1"][..],
        &[],
        &["w1", "--undo", "--wait"],
        &["w1", "--grace", "soon"],
    ] {
        assert_eq!(bus.drain(wrong).await.0, 2, "{wrong:?}");
    }
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let began = Instant::now();
    let (status, _, err) = drain(bus.home.path(), &format!("nats://{free}"), &["w1"]).await;
    assert_eq!(status, 1);
    let line = only_line(&err);
    assert!(
        line.starts_with(&format!("error: NATS is not reachable at nats://{free}")),
        "{line}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_gateway_fails_readiness_then_refuses_then_ends() {
    let bus = Bus::start().await;
    let _worker = bus.worker("w1", "20ms").await;
    let delay = Duration::from_secs(4);
    let (mut gateway, client) = bus.gateway("4s").await;
    client.answers(200).await;
    assert_eq!(client.get("/readyz").await, 200);
    let old = client.stream(300).await;
    let asked = Instant::now();
    gateway.signal(Signal::SIGTERM);
    gateway
        .says("the stop", |line| line.contains("gateway stopping").then_some(()))
        .await;
    assert_eq!(client.get("/readyz").await, 503);
    // A load balancer that has not asked yet sends more, over connections of its own.
    let late = Client::new(client.address).stream(10).await;
    assert_eq!(
        (late.status().as_u16(), &late.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );
    assert!(asked.elapsed() < delay, "too slow to tell anything");
    whole(late, 10).await;
    let refused = async { while TcpStream::connect(client.address).await.is_ok() {} };
    soon("connections to be refused", refused).await;
    assert!(asked.elapsed() >= delay);
    whole(old, 300).await;
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_a_gateway_at_once() {
    let bus = Bus::start().await;
    let _worker = bus.worker("w1", "20ms").await;
    let (mut gateway, client) = bus.gateway("60s").await;
    client.answers(200).await;
    let _running = client.stream(10_000).await;
    let asked = Instant::now();
    gateway.signal(Signal::SIGTERM);
    gateway
        .says("the stop", |line| line.contains("gateway stopping").then_some(()))
        .await;
    // Signals that follow within a quarter of a second are taken for one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ended().await.code(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(10));
}
