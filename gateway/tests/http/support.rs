//! A scripted core, a gateway edge in front of it, and a client.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokenbus_api::ListedModel;
use tokenbus_bus::task::spawn;
use tokenbus_gateway::testing::server::Ending;
use tokenbus_gateway::testing::{Auth, KeptStories, Metrics, ModelConfig, Overview, ResponsesStore, SealKeys, Usage};
use tokenbus_gateway::testing::{
    Backend, Bodies, Call, CallError, CallStream, Edge, HttpOptions, Output, Prospect, router, server,
};
use tokenbus_protocol::{Delta, Features, Finish, Labels, Name, UsageRecord};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than anything here takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Calls that wait for the test to look at them.
const MAX_OPEN: usize = 64;

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

type Happened = Result<Output, CallError>;

/// A call that the edge has opened; the test says what happens to it.
pub(crate) struct Opened {
    pub(crate) call: Call,
    say: Option<mpsc::Sender<Happened>>,
    pub(crate) dropped: CancellationToken,
}

impl Opened {
    pub(crate) async fn say(&self, output: impl Into<Said>) {
        soon(self.say.as_ref().unwrap().send(output.into().0)).await.unwrap();
    }

    pub(crate) fn sender(&self) -> mpsc::Sender<Happened> {
        self.say.clone().unwrap()
    }

    /// Ends the stream without a finish, as a core with a bug would.
    pub(crate) fn break_off(&mut self) {
        self.say = None;
    }
}

/// Anything that can happen to a call.
pub(crate) struct Said(Happened);

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        delta(text).into()
    }
}

impl From<Delta<'static>> for Said {
    fn from(delta: Delta<'static>) -> Self {
        Self(Ok(Output::Delta(delta)))
    }
}

impl From<Finish> for Said {
    fn from(finish: Finish) -> Self {
        Self(Ok(Output::Finish(finish)))
    }
}

impl From<Name> for Said {
    fn from(worker: Name) -> Self {
        Self(Ok(Output::Accepted {
            worker,
            queue_position: 0,
            why: None,
            kind: Default::default(),
        }))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self(Ok(output))
    }
}

impl From<CallError> for Said {
    fn from(error: CallError) -> Self {
        Self(Err(error))
    }
}

pub(crate) fn delta(text: &str) -> Delta<'static> {
    Delta {
        text: text.to_owned().into(),
        tokens: 1,
        ..Delta::default()
    }
}

pub(crate) fn reason(reason: &str) -> Delta<'static> {
    Delta {
        finish_reason: Some(reason.to_owned()),
        ..Delta::default()
    }
}

pub(crate) fn counted(prompt: u64, completion: u64) -> Finish {
    Finish {
        prompt_tokens: Some(prompt),
        completion_tokens: Some(completion),
        ..Finish::default()
    }
}

#[derive(Clone)]
pub(crate) struct Scripted {
    opened: mpsc::Sender<Opened>,
    models: Arc<Mutex<Vec<ListedModel>>>,
    ready: Arc<Mutex<Result<(), String>>>,
}

impl Backend for Scripted {
    type Stream = ScriptedStream;

    fn open(&self, call: Call) -> ScriptedStream {
        let (say, happens) = mpsc::channel(64);
        let dropped = CancellationToken::new();
        let opened = Opened {
            call,
            say: Some(say),
            dropped: dropped.clone(),
        };
        self.opened
            .try_send(opened)
            .map_err(|_| "no test that takes it")
            .unwrap();
        ScriptedStream {
            happens,
            _guard: dropped.drop_guard(),
        }
    }

    fn prospect(&self, model: &str, _needs: Features, _labels: &Labels) -> Prospect {
        let models = self.models.lock().unwrap();
        match models.iter().find(|listed| listed.name == model) {
            Some(listed) if listed.live => Prospect::Room,
            Some(_) => Prospect::NoWorker,
            None => Prospect::Unknown,
        }
    }

    fn models(&self) -> Vec<ListedModel> {
        self.models.lock().unwrap().clone()
    }

    fn overview(&self) -> Overview {
        Overview {
            lost: vec![],
            gateway: Name::new("gw").unwrap(),
            coordinator: None,
            snapshot_age_ms: None,
            workers: Vec::new(),
            models: Vec::new(),
        }
    }

    fn readiness(&self) -> Result<(), String> {
        self.ready.lock().unwrap().clone()
    }
}

pub(crate) struct ScriptedStream {
    happens: mpsc::Receiver<Happened>,
    _guard: DropGuard,
}

impl CallStream for ScriptedStream {
    async fn next(&mut self) -> Option<Happened> {
        self.happens.recv().await
    }

    fn try_next(&mut self) -> Option<Happened> {
        self.happens.try_recv().ok()
    }
}

/// A gateway's edge on a port of its own.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) draining: CancellationToken,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    pub(crate) metrics: Metrics,
    opened: mpsc::Receiver<Opened>,
    records: mpsc::Receiver<UsageRecord>,
    core: Scripted,
}

/// What a gateway is given beside its options.
pub(crate) struct Extras {
    pub(crate) auth: Auth,
    pub(crate) models: ModelConfig,
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            auth: Auth::off(),
            models: ModelConfig::none(),
        }
    }
}

pub(crate) const GRACE: Duration = Duration::from_millis(300);

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::with(HttpOptions::default()).await
    }

    pub(crate) async fn with(options: HttpOptions) -> Self {
        Self::with_extras(options, Extras::default()).await
    }

    pub(crate) async fn with_extras(options: HttpOptions, extras: Extras) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider().install_default().unwrap();
        });
        let (opened, calls) = mpsc::channel(MAX_OPEN);
        let core = Scripted {
            opened,
            models: Arc::default(),
            ready: Arc::new(Mutex::new(Ok(()))),
        };
        let metrics = Metrics::default();
        let (usage, records) = Usage::new(Name::new("g1").unwrap(), metrics.clone());
        let mut registry = Registry::with_prefix("tokenbus");
        metrics.register(&mut registry);
        let shutdown = CancellationToken::new();
        // A shutdown is a drain as well; a drain alone is the time before it.
        let draining = shutdown.child_token();
        let ending = Ending {
            draining: draining.clone(),
            closing: shutdown.clone(),
            grace: GRACE,
        };
        let most = (options.max_connections, metrics.clone());
        let edge = Edge {
            core: core.clone(),
            bodies: Bodies::new(options.body_memory, metrics.clone()),
            options: Arc::new(options),
            metrics: metrics.clone(),
            registry: Arc::new(registry),
            auth: extras.auth,
            models: extras.models,
            usage,
            stories: KeptStories::default(),
            tracer: tokenbus_telemetry::Tracer::default(),
            draining: draining.clone(),
            responses: ResponsesStore::absent(),
            seals: SealKeys::absent(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            addr: listener.local_addr().unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            served: spawn("server", server::serve(listener, router(edge), most, ending)),
            draining,
            shutdown,
            metrics,
            opened: calls,
            records,
            core,
        }
    }

    /// The record of the next request that ends.
    pub(crate) async fn record(&mut self) -> UsageRecord {
        soon(self.records.recv()).await.unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn list(&self, models: Vec<ListedModel>) {
        *self.core.models.lock().unwrap() = models;
    }

    pub(crate) fn not_ready(&self, reason: &str) {
        *self.core.ready.lock().unwrap() = Err(reason.to_owned());
    }

    /// The next call that the edge opens.
    pub(crate) async fn call(&mut self) -> Opened {
        soon(self.opened.recv()).await.unwrap()
    }

    /// Nothing has been opened.
    pub(crate) fn untouched(&mut self) -> bool {
        self.opened.try_recv().is_err()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(soon(self.client.get(self.url(path)).send()).await.unwrap()).await
    }

    /// Posts a chat request and waits for its whole answer, in a task.
    pub(crate) fn chat(&self, body: impl ToString) -> JoinHandle<Answer> {
        let request = self.post(body);
        spawn("client", async move {
            Answer::of(soon(request.send()).await.unwrap()).await
        })
    }

    pub(crate) fn post(&self, body: impl ToString) -> reqwest::RequestBuilder {
        self.client
            .post(self.url("/v1/chat/completions"))
            .body(body.to_string())
    }

    /// Starts a streamed chat whose first output has come.
    pub(crate) async fn stream(&mut self, first: &str) -> (Events, Opened) {
        let request = self.post(ask(true));
        let response = spawn("client", async move { soon(request.send()).await.unwrap() });
        let call = self.call().await;
        call.say(first).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        (Events::of(response), call)
    }

    /// Sends `bytes` as they are and leaves the connection open.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut tcp = TcpStream::connect(self.addr).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp
    }

    /// Sends `bytes` as they are and reads until the server closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut tcp = self.raw(bytes).await;
        let mut answer = Vec::new();
        soon(tcp.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

pub(crate) fn ask(stream: bool) -> Value {
    json!({"model": "org/m:7b", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

/// A response that has been read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: soon(response.text()).await.unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{:?}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error object, checked to have OpenAI's members and no others.
    pub(crate) fn error(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        assert!(!self.header("x-request-id").is_empty());
        let error = self.json()["error"].clone();
        let members: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "message", "param", "type"]);
        error
    }
}

/// The events of a streamed answer, as they arrive.
pub(crate) struct Events {
    pub(crate) response: reqwest::Response,
    buffer: String,
}

impl Events {
    pub(crate) fn of(response: reqwest::Response) -> Self {
        Self {
            response,
            buffer: String::new(),
        }
    }

    /// The next event or comment, without the blank line behind it; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<String, reqwest::Error>> {
        loop {
            // One newline ends a comment, two end an event.
            let end = if self.buffer.starts_with(':') { "\n" } else { "\n\n" };
            if let Some((event, rest)) = self.buffer.split_once(end) {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(Ok(event));
            }
            match soon(self.response.chunk()).await {
                Err(error) => return Some(Err(error)),
                Ok(None) => {
                    assert_eq!(self.buffer, "", "half an event at the end");
                    return None;
                }
                Ok(Some(bytes)) => self.buffer += std::str::from_utf8(&bytes).unwrap(),
            }
        }
    }

    /// The data of the next event that is no comment.
    pub(crate) async fn data(&mut self) -> String {
        loop {
            let event = self.next().await.expect("the stream ended").unwrap();
            if let Some(data) = event.strip_prefix("data: ") {
                return data.to_owned();
            }
            assert_eq!(event, ": keep-alive");
        }
    }

    pub(crate) async fn chunk(&mut self) -> Value {
        serde_json::from_str(&self.data().await).unwrap()
    }

    /// The text of the next chunk.
    pub(crate) async fn text(&mut self) -> String {
        self.chunk().await["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}
