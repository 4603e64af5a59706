//! `tokenbus chat` against a server that answers well, badly, or not to the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use common::{only_line, run, tokenbus};

/// One request as the server saw it.
struct Seen {
    head: String,
    body: String,
}

/// Answers one request after the other with the given texts (status line and all), then closes.
fn serve(answers: Vec<String>) -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (sender, seen) = sync_channel(16);
    std::thread::spawn(move || {
        for answer in answers {
            let (socket, _) = listener.accept().unwrap();
            sender.send(request(&socket)).unwrap();
            (&socket).write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, seen)
}

fn request(socket: &TcpStream) -> Seen {
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0);
    }
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Seen {
        head: head.to_lowercase(),
        body: String::from_utf8(body).unwrap(),
    }
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn events(events: &[&str]) -> String {
    let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n{body}")
}

const MODELS: &str = r#"{"object":"list","data":[{"id":"first/model"},{"id":"second"}]}"#;
const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}"#;
const LO: &str = r#"{"choices":[{"index":0,"delta":{"content":"lo \u00e9"},"finish_reason":null}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

fn chat(url: &str, arguments: &[&str]) -> Command {
    let mut command = tokenbus(std::path::Path::new("/nonexistent"));
    command.args(["chat", "--url", url]).args(arguments);
    command
}

#[test]
fn one_question_is_answered_by_the_first_model() {
    let (url, seen) = serve(vec![json("200 OK", MODELS), events(&[HELLO, LO, STOP, "[DONE]"])]);
    let ended = run(&mut chat(
        &url,
        &["--system", "Be brief.", "--api-key", "k1", "What", "is", "it?"],
    ));
    assert_eq!(
        (ended.status, ended.stdout.as_str(), ended.stderr.as_str()),
        (0, "Hello é\n", "")
    );
    let models = seen.recv().unwrap();
    assert!(models.head.starts_with("get /v1/models ") && models.head.contains("authorization: bearer k1"));
    let asked = seen.recv().unwrap();
    assert!(asked.head.starts_with("post /v1/chat/completions "), "{}", asked.head);
    let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"model": "first/model", "stream": true, "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]})
    );
}

#[test]
fn the_question_can_come_through_a_pipe() {
    let (url, seen) = serve(vec![events(&[HELLO, STOP, "[DONE]"])]);
    let mut child = chat(&url, &["--model", "m"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all("line 1\nline 2\n".as_bytes())
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert_eq!(ended.stdout, b"Hel\n");
    assert!(seen.recv().unwrap().body.contains(r"line 1\nline 2"));
}

#[test]
fn what_is_piped_in_follows_the_question_and_sampling_is_asked_for() {
    let (url, seen) = serve(vec![events(&[HELLO, STOP, "[DONE]"])]);
    let flags = ["--model", "m", "--temperature", "0.5", "--max-tokens", "7", "Summarise"];
    let mut child = chat(&url, &flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a report\n").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let body: serde_json::Value = serde_json::from_str(&seen.recv().unwrap().body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"model": "m", "stream": true, "temperature": 0.5, "max_tokens": 7,
            "messages": [{"role": "user", "content": "Summarise\n\na report"}]})
    );
}

#[test]
fn the_benchmark_asks_for_a_name_where_there_are_several_models() {
    let (url, _seen) = serve(vec![json("200 OK", MODELS)]);
    let ended = run(tokenbus(std::path::Path::new("/nonexistent")).args(["bench", "--url", &url]));
    assert_eq!(ended.status, 2, "{ended:?}");
    assert!(only_line(&ended.stderr).contains("first/model, second"), "{ended:?}");
}

#[test]
fn half_an_answer_is_shown_and_is_a_failure() {
    let lost = r#"{"error":{"message":"the worker is gone","type":"server_error","code":"worker_lost"}}"#;
    for (answer, part) in [
        (events(&[HELLO, lost]), "the worker is gone (worker_lost)"),
        (events(&[HELLO]), "the stream ended before the answer did"),
    ] {
        let (url, _seen) = serve(vec![answer]);
        let ended = run(&mut chat(&url, &["--model", "m", "x"]));
        assert_eq!((ended.status, ended.stdout.as_str()), (1, "Hel\n"), "{ended:?}");
        let line = only_line(&ended.stderr);
        assert!(line.starts_with("error: ") && line.contains(part), "{line}");
    }
}

#[test]
fn a_refusal_is_said_in_the_servers_words() {
    let full = r#"{"error":{"message":"all workers are busy","type":"server_error","code":"server_busy"}}"#;
    let (url, _seen) = serve(vec![json("429 Too Many Requests", full)]);
    let ended = run(&mut chat(&url, &["--model", "m", "x"]));
    assert_eq!((ended.status, ended.stdout.as_str()), (1, ""));
    assert_eq!(
        only_line(&ended.stderr),
        "error: all workers are busy (HTTP 429, server_busy)"
    );

    let (url, _seen) = serve(vec![json("200 OK", r#"{"data":[]}"#)]);
    let ended = run(&mut chat(&url, &["x"]));
    assert!(
        only_line(&ended.stderr).contains("no model is being served"),
        "{}",
        ended.stderr
    );
}

/// Ctrl-C ends the answer and, in a one-shot chat, the program with the shell's status for it.
#[test]
fn an_interrupt_ends_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut child = chat(&url, &["--model", "m", "x"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    request(&socket);
    (&socket).write_all(events(&[HELLO]).as_bytes()).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = [0; 3];
    stdout.read_exact(&mut shown).unwrap();
    assert_eq!(&shown, b"Hel");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.code(), Some(130), "{ended:?}");
    // The server sees that nobody listens any more.
    assert_eq!(BufReader::new(&socket).read(&mut shown).unwrap(), 0);
}
