//! `tokenbus sim-server`: answers that `tokenbus bench` accepts word for word, faults as scripted, errors with a status.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{only_line, run, tokenbus};
use serde_json::Value;

/// A running server; dropped, it is gone.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(flags: &str) -> Self {
        let home = std::env::temp_dir();
        let mut command = tokenbus(&home);
        command.args(["sim-server", "--listen", "127.0.0.1:0", "--model", "m"]);
        let mut child = command
            .args(flags.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        let address = address.strip_suffix("/v1").unwrap().to_owned();
        Self { child, address }
    }

    /// Runs the load generator against it and returns its report.
    fn bench(&self, flags: &str) -> Value {
        let home = std::env::temp_dir();
        let mut command = tokenbus(&home);
        let url = format!("http://{}/v1", self.address);
        command.args(["bench", "--url", &url, "--model", "m", "--check", "sim", "--json"]);
        let run = run(command.args(flags.split_whitespace()));
        assert_eq!(run.status, 0, "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Sends one request on a connection of its own.
    fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all((head + body).as_bytes()).unwrap();
        socket
    }

    /// The same, and the whole answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut answer = String::new();
        // A connection that breaks in the middle of an answer is one of the answers.
        drop(self.send(method, path, body).read_to_string(&mut answer));
        answer
    }

    fn chat(&self, body: &str) -> String {
        self.ask("POST", "/v1/chat/completions", body)
    }

    /// Waits until the counter has the value.
    fn await_metric(&self, name: &str, value: u64) {
        let line = format!("\n{name} {value}\n");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.ask("GET", "/metrics", "").contains(&line) {
            assert!(Instant::now() < deadline, "{name} is not {value}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn paced_streams_are_the_simulated_engines_word_for_word_and_in_time() {
    let server = Server::start("--ttft 30ms --itl 5ms");
    let report = server.bench("--concurrency 8 --requests 32 --max-tokens 21");
    assert_eq!(report["tokens"]["received"], 32 * 21);
    let ttft = report["latency"]["ttft"]["p50_us"].as_u64().unwrap();
    let total = report["latency"]["total"]["p50_us"].as_u64().unwrap();
    assert!((29_000..).contains(&ttft), "{ttft}");
    assert!((29_000 + 20 * 4_500..).contains(&total), "{total}");
    server.await_metric("sim_server_generated_tokens_total", 32 * 21);
}

#[test]
fn without_pauses_long_and_short_answers_are_whole() {
    let server = Server::start("--ttft 0 --itl 0");
    server.bench("--concurrency 16 --requests 500 --max-tokens 4");
    server.bench("--concurrency 4 --requests 4 --max-tokens 20000");
    server.bench("--concurrency 4 --requests 40 --max-tokens 30 --stream false");
}

#[test]
fn slots_bound_what_runs_and_the_rest_waits() {
    let server = Server::start("--ttft 20ms --itl 20ms --slots 2");
    let report = server.bench("--concurrency 4 --requests 8 --max-tokens 5");
    // Two at a time, each at least 20 + 4 × 20 ms: four rounds.
    assert!(report["elapsed_seconds"].as_f64().unwrap() >= 0.39, "{report}");
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = Server::start("--ttft 0 --itl 10ms --slots 1");
    let mut first = server.send(
        "POST",
        "/v1/chat/completions",
        r#"{"model":"m","stream":true,"max_tokens":1000000}"#,
    );
    first.read_exact(&mut [0; 300]).unwrap();
    server.await_metric("sim_server_requests_running", 1);
    drop(first);
    server.await_metric("sim_server_requests_running", 0);
    server.bench("--concurrency 1 --requests 1 --max-tokens 3");
}

#[test]
fn what_cannot_be_served_is_refused_with_a_status() {
    let server = Server::start("");
    for (body, status, word) in [
        ("nonsense", "400", "cannot be read"),
        (r#"{"model":"other"}"#, "404", "does not exist"),
        (r#"{"model":"m","n":0,"stream":true}"#, "400", "n must be"),
        (
            r#"{"model":"m","sim":{"error_after":0,"error_code":"rate_limited"}}"#,
            "429",
            "scripted",
        ),
        (r#"{"model":"m","sim":{"drop_after":1}}"#, "500", "dropped"),
    ] {
        let answer = server.chat(body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body}: {answer}");
        assert!(
            answer.contains(word) && answer.contains("\"error\""),
            "{body}: {answer}"
        );
    }
    assert!(server.ask("GET", "/v1/nothing", "").starts_with("HTTP/1.1 404 "));
    assert!(server.ask("GET", "/health", "").starts_with("HTTP/1.1 200 "));
    assert!(server.ask("GET", "/v1/models", "").contains(r#""id":"m""#));
}

#[test]
fn scripted_faults_strike_in_the_middle_of_a_stream() {
    let server = Server::start("--ttft 0 --itl 1ms");
    let failed = server.chat(r#"{"model":"m","stream":true,"sim":{"error_after":2}}"#);
    assert!(
        failed.starts_with("HTTP/1.1 200 ") && failed.contains("\"t1 \""),
        "{failed}"
    );
    assert!(
        failed.contains("data: {\"error\"") && !failed.contains("\"t2 \""),
        "{failed}"
    );
    assert!(!failed.contains("[DONE]"), "{failed}");
    let dropped = server.chat(r#"{"model":"m","stream":true,"sim":{"drop_after":2}}"#);
    assert!(dropped.contains("\"t0 \"") && !dropped.contains("\"t2 \""), "{dropped}");
    assert!(
        !dropped.contains("[DONE]") && !dropped.contains("\"error\""),
        "{dropped}"
    );
    assert!(
        !dropped.ends_with("0\r\n\r\n"),
        "the end of the body would be a lie: {dropped}"
    );
}

#[test]
fn flags_that_cannot_be_used_are_said_in_one_line() {
    let server = Server::start("");
    let home = std::env::temp_dir();
    let taken = run(tokenbus(&home).args(["sim-server", "--listen", &server.address]));
    assert_eq!(taken.status, 1);
    assert!(
        only_line(&taken.stderr).contains("another program uses this port"),
        "{}",
        taken.stderr
    );
    let help = run(tokenbus(&home).args(["sim-server", "--help"]));
    assert!(help.stdout.contains("for benchmarks and tests only"), "{}", help.stdout);
}
