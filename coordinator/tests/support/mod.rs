//! A real nats-server, coordinators and worker statuses for the coordinator's tests.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokenbus_bus::{BusOptions, task};
use tokenbus_coordinator::{CoordinatorError, Options, PageAccess};
use tokenbus_protocol::{
    Capabilities, Capacity, Event, EventKind, ModelInfo, Name, Quantiles, Status, Subjects, Totals, WorkerReport,
    WorkerState, decode, encode,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Allowance for a busy machine on top of a promised time.
pub(crate) const NOISE: Duration = Duration::from_secs(2);

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn subjects() -> Subjects {
    Subjects::new(name("t"))
}

/// Awaits `what` for [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

/// A nats-server on a port of its own, killed on drop.
pub(crate) struct NatsServer {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl NatsServer {
    pub(crate) async fn start(jetstream: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let (child, port) = launch(lasting_port(), jetstream, folder.path()).await;
        Self { child, port, folder }
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on the same port, after [`NatsServer::kill`].
    pub(crate) async fn start_again(&mut self, jetstream: bool) {
        (self.child, _) = launch(self.port, jetstream, self.folder.path()).await;
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(self.url())
            .await
            .unwrap()
    }
}

/// A port that no outgoing connection gets while its server is away: one below the range from which the system
/// takes those.
fn lasting_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .find(free)
        .unwrap()
}

async fn launch(port: u16, jetstream: bool, folder: &Path) -> (Child, u16) {
    let store = if jetstream {
        format!("jetstream {{ store_dir: {:?} }}", folder.join("js"))
    } else {
        String::new()
    };
    let config = folder.join("nats.conf");
    std::fs::write(
        &config,
        format!("listen: \"127.0.0.1:{port}\"\nping_interval: \"2s\"\n{store}\n"),
    )
    .unwrap();
    let program = std::env::var("TOKENBUS_NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
    let mut child = Command::new(&program)
        .arg("-c")
        .arg(&config)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): set TOKENBUS_NATS_SERVER"));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut bound = None;
    loop {
        let line = soon("line from nats-server", lines.next_line())
            .await
            .unwrap()
            .expect("nats-server ended");
        if let Some((_, port)) = line.split_once("Listening for client connections on 127.0.0.1:") {
            bound = port.parse().ok();
        }
        if line.contains("Server is ready") {
            break;
        }
    }
    task::spawn("nats-server log", async move {
        while let Ok(Some(_)) = lines.next_line().await {}
    });
    (child, bound.expect("nats-server tells its port"))
}

/// A coordinator in this process.
pub(crate) struct Coordinator {
    pub(crate) id: Name,
    port: u16,
    stop: CancellationToken,
    run: JoinHandle<Result<(), CoordinatorError>>,
}

impl Coordinator {
    pub(crate) async fn start(url: &str, id: &str) -> Self {
        Self::with(url, id, PageAccess::default()).await
    }

    pub(crate) async fn with(url: &str, id: &str, page: PageAccess) -> Self {
        let bus = BusOptions {
            urls: vec![url.to_owned()],
            ..BusOptions::default()
        };
        let options = Options {
            id: Some(name(id)),
            page,
            ..Options::new(bus, name("t"))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let run = task::spawn(
            "coordinator",
            tokenbus_coordinator::run(options, listener, stop.clone()),
        );
        Self {
            id: name(id),
            port,
            stop,
            run,
        }
    }

    /// Ends it as `kill -9` would.
    pub(crate) async fn crash(self) {
        self.run.abort();
        assert!(self.run.await.unwrap_err().is_cancelled());
    }

    /// Ends it as SIGTERM would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("end of the coordinator", self.run).await.unwrap().unwrap();
    }

    /// A connection to its page.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// The head and the body of its answer.
    pub(crate) async fn get(&self, path: &str) -> (String, String) {
        self.get_with(path, "").await
    }

    /// The same with more header lines.
    pub(crate) async fn get_with(&self, path: &str, headers: &str) -> (String, String) {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("answer over HTTP", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

/// A ready, idle worker with four slots that serves `m`.
pub(crate) fn status(worker: &str, seq: u64) -> Status {
    let capabilities = Capabilities {
        chat: true,
        ..Capabilities::default()
    };
    Status {
        report: WorkerReport {
            worker: name(worker),
            instance: 7,
            seq,
            version: "0.1.0".to_owned(),
            host: "host".to_owned(),
            engine: "sim".to_owned(),
            state: WorkerState::Ready,
            started_at_ms: 0,
            models: vec![ModelInfo {
                name: "m".to_owned(),
                context_length: Some(4096),
                capabilities,
            }],
            slots: 4,
            active: 1,
            queued: 0,
            tokens_per_second: 12.5,
            ttft: Quantiles::default(),
            itl: Quantiles::default(),
            kv_used: None,
            slots_from: None,
            labels: Default::default(),
            tier: 0,
        },
        totals: Totals::default(),
        loads: Vec::new(),
    }
}

/// `status` with a changed report.
pub(crate) fn reporting(mut status: Status, change: impl FnOnce(&mut WorkerReport)) -> Status {
    change(&mut status.report);
    status
}

pub(crate) async fn say(client: &Client, status: &Status) {
    let payload = encode(status).unwrap();
    client
        .publish(subjects().status(&status.report.worker), payload.into())
        .await
        .unwrap();
    client.flush().await.unwrap();
}

/// A worker that sends a status twice a second, until it is dropped.
pub(crate) struct Worker(JoinHandle<()>);

impl Worker {
    pub(crate) fn start(client: &Client, id: &str) -> Self {
        let (client, id) = (client.clone(), id.to_owned());
        Self(task::spawn("worker", async move {
            let mut period = tokio::time::interval(Duration::from_millis(500));
            for seq in 1.. {
                period.tick().await;
                say(&client, &status(&id, seq)).await;
            }
        }))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Snapshots as a gateway receives them.
pub(crate) struct Snapshots(Subscriber);

impl Snapshots {
    pub(crate) async fn listen(client: &Client) -> Self {
        let subscriber = client.subscribe(subjects().capacity()).await.unwrap();
        client.flush().await.unwrap();
        Self(subscriber)
    }

    pub(crate) async fn next(&mut self) -> Capacity {
        let message = soon("snapshot", self.0.next()).await.unwrap();
        decode(&message.payload).unwrap()
    }

    /// The next one that fits, and the time that it took.
    pub(crate) async fn until(&mut self, what: &str, is: impl Fn(&Capacity) -> bool) -> (Capacity, Duration) {
        let begun = Instant::now();
        soon(what, async {
            loop {
                let capacity = self.next().await;
                if is(&capacity) {
                    return (capacity, begun.elapsed());
                }
            }
        })
        .await
    }
}

/// Events as anyone receives them.
pub(crate) struct Events(Subscriber);

impl Events {
    pub(crate) async fn listen(client: &Client) -> Self {
        let subscriber = client.subscribe(subjects().event()).await.unwrap();
        client.flush().await.unwrap();
        Self(subscriber)
    }

    pub(crate) async fn next(&mut self) -> Event {
        let message = soon("event", self.0.next()).await.unwrap();
        decode(&message.payload).unwrap()
    }

    /// The next message; `None` if it is not an event.
    pub(crate) async fn next_if_any(&mut self) -> Option<Event> {
        let message = soon("event or end", self.0.next()).await.unwrap();
        decode(&message.payload).ok()
    }

    /// The next one of this kind; none of `never` may come before it.
    pub(crate) async fn until(&mut self, kind: EventKind, never: &[EventKind]) -> Event {
        loop {
            let event = self.next().await;
            if event.kind == kind {
                return event;
            }
            assert!(!never.contains(&event.kind), "{event:?}");
        }
    }
}

/// Asks for the snapshot.
pub(crate) async fn ask(client: &Client) -> Capacity {
    let answer = soon("answer", client.request(subjects().capacity_get(), Default::default()))
        .await
        .unwrap();
    decode(&answer.payload).unwrap()
}
