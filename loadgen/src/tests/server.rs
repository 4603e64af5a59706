//! A real HTTP server on loopback, whose answers are right or wrong in a known way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One step of an answer.
#[derive(Clone)]
enum Step {
    Send(String),
    Pause(Duration),
    /// Ends the connection without ending the answer.
    Break,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A server whose behaviour is chosen by the model's name; dropped, it is gone.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicU64>,
    asked: watch::Receiver<u64>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::speaking(false).await
    }

    /// One that speaks HTTP/2 only.
    pub(super) async fn http2() -> Self {
        Self::speaking(true).await
    }

    async fn speaking(http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        let (count, asked) = watch::channel(0);
        let count = Arc::new(count);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tcp.set_nodelay(true).unwrap();
                let count = Arc::clone(&count);
                let service = service_fn(move |request| {
                    count.send_modify(|asked| *asked += 1);
                    answer(request)
                });
                served.spawn(async move {
                    if http2 {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(TokioIo::new(tcp), service).await;
                        return;
                    }
                    // A broken answer ends the connection with an error; that is what is wanted.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(tcp), service)
                        .await;
                });
            }
        });
        Self {
            address,
            connections,
            asked,
            _tasks: tasks,
        }
    }

    /// Waits until so many requests have come.
    pub(super) async fn asked(&self, requests: u64) {
        self.asked.clone().wait_for(|&asked| asked >= requests).await.unwrap();
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    assert_eq!(request.uri().path(), "/v1/chat/completions");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (model, tokens) = (body["model"].as_str().unwrap(), body["max_tokens"].as_u64().unwrap());
    let whole = |status: u16, content_type: &str, text: String| {
        let body = Full::new(Bytes::from(text))
            .map_err(|e: Infallible| match e {})
            .boxed_unsync();
        let response = Response::builder().status(status).header("content-type", content_type);
        Ok(response.body(body).unwrap())
    };
    match model {
        "closed" => return Err(std::io::ErrorKind::Other.into()),
        "full" => {
            let error = json!({"error": {"message": "full", "code": "busy", "type": "x", "param": null}});
            return whole(429, "application/json", error.to_string());
        }
        "page" => return whole(200, "text/html", "<html>".to_owned()),
        "crash" => return whole(500, "text/plain", "oops".to_owned()),
        _ => {}
    }
    if body["stream"] == false {
        let text: String = (0..tokens).map(|n| format!("t{n} ")).collect();
        let message = json!({"role": "assistant", "content": text});
        let choice = json!({"index": 0, "message": message, "finish_reason": "length"});
        let usage = json!({"completion_tokens": tokens});
        let body = json!({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage});
        return whole(200, "application/json", body.to_string());
    }
    assert_eq!(body["stream_options"]["include_usage"], true);
    let steps = futures_util::stream::iter(steps(model, tokens)).filter_map(|step| async {
        match step {
            Step::Send(text) => Some(Ok(Frame::data(Bytes::from(text)))),
            Step::Pause(time) => {
                tokio::time::sleep(time).await;
                None
            }
            Step::Break => Some(Err(std::io::Error::other("broken on purpose"))),
        }
    });
    let mut response = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    if model == "one-off" {
        response = response.header("connection", "close");
    }
    Ok(response.body(StreamBody::new(steps).boxed_unsync()).unwrap())
}

fn event(delta: Value, finish: Value) -> Step {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "choices": [choice]});
    Step::Send(format!("data: {chunk}\n\n"))
}

fn good(tokens: u64) -> Vec<Step> {
    let usage = json!({"id": "c", "object": "chat.completion.chunk", "choices": [],
        "usage": {"completion_tokens": tokens}});
    let mut steps = vec![event(json!({"role": "assistant", "content": ""}), Value::Null)];
    steps.extend((0..tokens).map(|n| event(json!({"content": format!("t{n} ")}), Value::Null)));
    steps.push(event(json!({}), json!("length")));
    steps.push(Step::Send(format!("data: {usage}\n\n")));
    steps.push(Step::Send("data: [DONE]\n\n".to_owned()));
    steps
}

fn joined(steps: &[Step]) -> String {
    let text = steps.iter().filter_map(|step| match step {
        Step::Send(text) => Some(text.as_str()),
        Step::Pause(_) | Step::Break => None,
    });
    text.collect()
}

/// A good answer is: role, tokens…, finish, usage, [DONE].
fn steps(model: &str, tokens: u64) -> Vec<Step> {
    let mut steps = good(tokens);
    let finish = steps.len() - 3;
    let error = json!({"error": {"message": "gone", "code": "worker_lost"}});
    match model {
        "truncated" => steps.truncate(3),
        "broken" => steps
            .splice(3.., [Step::Pause(Duration::from_millis(5)), Step::Break])
            .for_each(drop),
        "wrong-text" => steps[2] = event(json!({"content": "t7 "}), Value::Null),
        "double-finish" => steps.insert(finish, event(json!({}), json!("length"))),
        "no-done" => drop(steps.pop()),
        "no-role" => drop(steps.remove(0)),
        "no-usage" => drop(steps.remove(finish + 1)),
        "error" => steps
            .splice(3.., [Step::Send(format!("data: {error}\n\n"))])
            .for_each(drop),
        "malformed" => steps[2] = Step::Send("data: {\n\n".to_owned()),
        "hang" => steps
            .splice(3.., [Step::Pause(Duration::from_secs(600))])
            .for_each(drop),
        "slow" => steps.insert(0, Step::Pause(Duration::from_millis(50))),
        "paced" => {
            let pause = || Step::Pause(Duration::from_millis(10));
            steps = steps.into_iter().flat_map(|step| [pause(), step]).collect();
        }
        "halves" => {
            let text = joined(&steps);
            let (one, two) = text.split_at(text.len() / 2);
            let pause = Step::Pause(Duration::from_millis(20));
            steps = vec![Step::Send(one.to_owned()), pause, Step::Send(two.to_owned())];
        }
        "crlf-in-crumbs" => {
            let text = joined(&steps).replace('\n', "\r\n");
            steps = text.chars().map(|c| Step::Send(c.to_string())).collect();
        }
        "good" | "one-off" => {}
        other => panic!("no such model: {other}"),
    }
    steps
}
