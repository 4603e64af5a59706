//! A real nats-server, a worker with the simulated engine, and a bare gateway for the tests.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use tokenbus_bus::{BusOptions, task};
use tokenbus_protocol::{
    BatchReader, Body, Cancel, Control, ControlReply, Features, Frame, Name, Request, RequestKind, Room, SlotsFrom,
    Status, Subjects,
};
use tokenbus_sim::{SimEngine, SimOptions};
use tokenbus_worker::engine::Overrides;
use tokenbus_worker::{Handle, Options, Worker, WorkerError};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a busy machine may add to a promised time before the promise counts as broken.
pub const NOISE: Duration = Duration::from_secs(2);

/// Waits for `future`, and says what did not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

/// A port that no outgoing connection is given while the server on it is away: one below the range out
/// of which the system takes those.
fn lasting_port() -> String {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).find(free);
    port.unwrap().to_string()
}

/// A nats-server on a port of its own; killed on drop.
pub struct Nats {
    child: Child,
    pub url: String,
}

impl Nats {
    pub async fn start() -> Self {
        Self::on_port(&lasting_port()).await
    }

    /// One with `config` as its configuration file.
    pub async fn configured(config: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.as_bytes()).unwrap();
        Self::with(&["-p", &lasting_port(), "-c", file.path().to_str().unwrap()]).await
    }

    /// Kills the server and waits until it is gone.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.unwrap();
        self.url.clone()
    }

    /// A server where another one was.
    pub async fn again(url: &str) -> Self {
        Self::on_port(url.rsplit(':').next().unwrap()).await
    }

    async fn on_port(port: &str) -> Self {
        Self::with(&["-p", port]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        let program = std::env::var("TOKENBUS_NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
        let mut child = Command::new(&program)
            .args(["-a", "127.0.0.1"])
            .args(arguments)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program}: {error}; set TOKENBUS_NATS_SERVER to a nats-server, or put one on PATH")
            });
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = within("listening line of nats-server", async {
            loop {
                let line = lines.next_line().await.unwrap().expect("nats-server ended");
                if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                    return format!("nats://{address}");
                }
            }
        })
        .await;
        // Read on, or the server would block on a full pipe.
        drop(task::spawn("nats-log", async move {
            while let Ok(Some(_)) = lines.next_line().await {}
        }));
        Self { child, url }
    }

    pub async fn client(&self) -> Client {
        async_nats::connect(&self.url).await.unwrap()
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn subjects() -> Subjects {
    Subjects::new(name("tb"))
}

pub fn sim(slots: u32, ttft_ms: u64, itl_ms: u64) -> SimOptions {
    SimOptions {
        models: vec!["m".to_owned()],
        slots,
        slots_from: SlotsFrom::Flag,
        ttft: Duration::from_millis(ttft_ms),
        itl: Duration::from_millis(itl_ms),
        context_length: None,
        overrides: Overrides::default(),
    }
}

/// A worker that is ready.
pub struct Running {
    pub handle: Handle,
    pub engine: Arc<SimEngine>,
    stop: Option<DropGuard>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    pub async fn start(nats: &Nats, worker: &str, engine: SimOptions) -> Self {
        Self::with(nats, worker, engine, |_| {}).await
    }

    pub async fn with(nats: &Nats, worker: &str, engine: SimOptions, change: impl FnOnce(&mut Options)) -> Self {
        let mut running = Self::begin(nats, worker, engine, change).await;
        assert!(within("ready worker", running.handle.ready()).await);
        running
    }

    /// A worker that need not be ready yet.
    pub async fn begin(nats: &Nats, worker: &str, engine: SimOptions, change: impl FnOnce(&mut Options)) -> Self {
        let bus = BusOptions {
            urls: vec![nats.url.clone()],
            ..BusOptions::default()
        };
        let mut options = Options::new(bus, name("tb"));
        options.worker = Some(name(worker));
        change(&mut options);
        let engine = SimEngine::start(engine);
        let as_engine: Arc<dyn tokenbus_worker::engine::Engine> = Arc::clone(&engine) as _;
        let worker = Worker::connect(options, as_engine).await.unwrap();
        let handle = worker.handle();
        let stop = CancellationToken::new();
        let task = task::spawn("worker", worker.run(stop.clone()));
        Self {
            handle,
            engine,
            stop: Some(stop.drop_guard()),
            task,
        }
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&mut self) {
        drop(self.stop.take().unwrap());
    }

    /// Waits until it has stopped.
    pub async fn stopped(mut self) {
        if self.stop.is_some() {
            self.ask_to_stop();
        }
        within("stopped worker", self.task).await.unwrap().unwrap();
    }
}

/// All that came for one stream, checked for order and holes.
#[derive(Debug, Default)]
pub struct Seen {
    pub text: String,
    pub tokens: u64,
    pub alive: usize,
    pub next_seq: u32,
    /// A frame is missing; nothing behind it was taken in. Only for gateways that bear holes.
    pub broken: bool,
    pub heard: Option<Instant>,
    pub accepted: Option<(String, u32)>,
    pub end: Option<Body<'static>>,
}

impl Seen {
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    pub fn end(&self) -> String {
        match &self.end {
            Some(Body::Finish(finish)) => format!("finish {}", finish.completion_tokens.unwrap_or(0)),
            Some(Body::Reject(reject)) => format!("reject {}", reject.reason),
            Some(Body::Error(error)) => format!("error {} {}", error.code, error.retryable),
            other => format!("{other:?}"),
        }
    }
}

/// A gateway that only publishes and reads.
pub struct Gateway {
    pub client: Client,
    pub name: Name,
    out: Subscriber,
    /// By stream and attempt.
    pub streams: BTreeMap<(u64, u32), Seen>,
    pub rooms: BTreeMap<String, Room>,
    /// Slots that workers offered.
    pub offered: u32,
    pub messages: u64,
    pub frames: u64,
    /// Whether a hole in a sequence is no failure of the test.
    pub bears_holes: bool,
}

impl Gateway {
    pub async fn start(nats: &Nats, gateway: &str) -> Self {
        Self::on(nats.client().await, gateway).await
    }

    /// A gateway on this connection.
    pub async fn on(client: Client, gateway: &str) -> Self {
        let gateway = name(gateway);
        let out = client.subscribe(subjects().out_all(&gateway)).await.unwrap();
        client.flush().await.unwrap();
        Self {
            client,
            name: gateway,
            out,
            streams: BTreeMap::new(),
            rooms: BTreeMap::new(),
            offered: 0,
            messages: 0,
            frames: 0,
            bears_holes: false,
        }
    }

    pub fn request(&self, stream: u64, attempt: u32, body: &str) -> Request<'static> {
        Request {
            id: Uuid::from_u128(u128::from(stream)),
            gateway: self.name.clone(),
            stream,
            attempt,
            floor: 0,
            kind: RequestKind::Chat,
            model: "m".to_owned(),
            needs: Features::NONE,
            budget_ms: 60_000,
            priority: 0,
            tenant: None,
            client_id: None,
            trace: None,
            resume: None,
            parts: None,
            prompt: (&[]).into(),
            body: body.as_bytes().to_vec().into(),
        }
    }

    /// Publishes on the queue subject.
    pub async fn send(&self, request: &Request<'_>) {
        self.publish(subjects().request(request.kind.family(), &request.model), request)
            .await;
    }

    /// Publishes to one worker.
    pub async fn send_to(&self, worker: &str, request: &Request<'_>) {
        self.publish(
            subjects().request_to(request.kind.family(), &request.model, &name(worker)),
            request,
        )
        .await;
    }

    async fn publish(&self, subject: String, request: &Request<'_>) {
        let payload = Bytes::from(tokenbus_protocol::encode(request).unwrap());
        self.client.publish(subject, payload).await.unwrap();
    }

    pub async fn control(&self, worker: &str, control: &Control) {
        let payload = Bytes::from(tokenbus_protocol::encode(control).unwrap());
        self.client
            .publish(subjects().control(&name(worker)), payload)
            .await
            .unwrap();
    }

    pub async fn ask(&self, worker: &str, control: &Control) -> ControlReply {
        let payload = Bytes::from(tokenbus_protocol::encode(control).unwrap());
        let answer = self.client.request(subjects().control(&name(worker)), payload);
        let answer = within("control reply", answer).await.unwrap();
        tokenbus_protocol::decode(&answer.payload).unwrap()
    }

    pub async fn cancel(&self, worker: &str, stream: u64, attempt: u32) {
        let id = Uuid::from_u128(u128::from(stream));
        self.control(worker, &Control::Cancel(Cancel { id, attempt })).await;
    }

    /// Reads one message.
    pub async fn read(&mut self) {
        let message = within("message", self.out.next()).await.unwrap();
        let worker = message.subject.rsplit('.').next().unwrap().to_owned();
        self.messages += 1;
        let mut frames = Vec::new();
        BatchReader::new(&message.payload)
            .unwrap()
            .for_each(|frame| frames.push(frame.into_owned()))
            .unwrap();
        for frame in frames {
            self.take(&worker, frame);
        }
    }

    fn take(&mut self, worker: &str, frame: Frame<'static>) {
        self.frames += 1;
        if let Body::Room(room) = frame.body {
            assert_eq!(frame.stream, 0);
            self.rooms.insert(worker.to_owned(), room);
            return;
        }
        if let Body::Offer(offer) = frame.body {
            self.offered += offer.slots;
            return;
        }
        let key = (frame.stream, frame.attempt);
        let seen = self.streams.entry(key).or_default();
        seen.heard = Some(Instant::now());
        seen.broken |= self.bears_holes && frame.seq != seen.next_seq;
        if seen.broken {
            return;
        }
        assert_eq!(frame.seq, seen.next_seq, "stream and attempt {key:?}");
        assert!(!seen.is_ended(), "a frame after the end of {key:?}: {frame:?}");
        seen.next_seq += 1;
        match frame.body {
            Body::Accepted(accepted) => {
                seen.accepted = Some((accepted.worker.to_string(), accepted.queue_position));
            }
            Body::Delta(delta) => {
                seen.text.push_str(&delta.text);
                seen.tokens += u64::from(delta.tokens);
            }
            Body::Alive(_) => seen.alive += 1,
            end => seen.end = Some(end),
        }
    }

    pub fn seen(&mut self, stream: u64, attempt: u32) -> &Seen {
        self.streams.entry((stream, attempt)).or_default()
    }

    /// Reads until something is true of a stream.
    pub async fn until(&mut self, stream: u64, attempt: u32, what: &str, done: impl Fn(&Seen) -> bool) -> &Seen {
        within(what, async {
            while !done(self.seen(stream, attempt)) {
                self.read().await;
            }
        })
        .await;
        self.seen(stream, attempt)
    }

    pub async fn accepted(&mut self, stream: u64, attempt: u32) {
        self.until(stream, attempt, "accepted or end", |s| {
            s.accepted.is_some() || s.is_ended()
        })
        .await;
        let seen = self.seen(stream, attempt);
        assert!(seen.accepted.is_some(), "{}", seen.end());
    }

    pub async fn ended(&mut self, stream: u64, attempt: u32) -> String {
        self.until(stream, attempt, "end of stream", Seen::is_ended).await.end()
    }
}

/// The value of a counter or gauge without labels.
pub fn metric(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next())
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Reads statuses until one fits.
pub async fn status_until(statuses: &mut Subscriber, what: &str, fits: impl Fn(&Status) -> bool) -> Status {
    within(what, async {
        loop {
            let message = statuses.next().await.unwrap();
            let status: Status = tokenbus_protocol::decode(&message.payload).unwrap();
            if fits(&status) {
                return status;
            }
        }
    })
    .await
}

/// The text of the simulated engine.
pub fn sim_text(tokens: std::ops::Range<u64>) -> String {
    tokens.map(|n| format!("t{n} ")).collect()
}
