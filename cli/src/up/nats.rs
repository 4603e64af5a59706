//! A nats-server of the cluster's own: configured, started on loopback, watched, restarted.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokenbus_bus::backoff::jittered;
use tokenbus_process::{Deaths, Lines, Process};
use tokio::process::{ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::nats_log::{Line, read};
use crate::files::{FilesError, Folder};
use crate::limits;
use crate::ui::Screen;

/// The port that NATS clients expect.
const USUAL_PORT: u16 = 4222;

/// The file with the key, in the server's folder.
const KEY_FILE: &str = "nats.nk";

/// Why there is no nats-server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NatsError {
    /// Its folder.
    #[error("cannot write {path}: {source}", path = path.display())]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its folder is in use.
    #[error("another `tokenbus up` runs this cluster already (its folder {folder} is in use): stop it, or choose another --namespace or --listen", folder = .0.display())]
    InUse(PathBuf),
    /// The file with its key.
    #[error(transparent)]
    Key(#[from] FilesError),
    /// No key can be made.
    #[error("cannot make a key for NATS: {0}")]
    NoKey(#[from] nkeys::error::Error),
    /// The program cannot be run.
    #[error("cannot run {program}: {source}", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It ended at once or does not become ready.
    #[error("nats-server does not start: {0}")]
    NotReady(String),
}

/// A running nats-server and the task that keeps it running.
#[derive(Debug)]
pub(crate) struct NatsServer {
    port: u16,
    credentials: PathBuf,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl NatsServer {
    /// Starts `program` with its configuration and its JetStream store in `folder`, which one
    /// server at a time may use: on port 4222 if it is free, otherwise on one that is. Only who has the key in its
    /// folder, which is new, may use it: other users of this machine can reach loopback too.
    pub(crate) async fn start(program: PathBuf, folder: PathBuf, screen: Screen) -> Result<Self, NatsError> {
        let lock = take(&folder)?;
        let key = nkeys::KeyPair::new_user();
        let text = format!("# The key of this cluster's NATS. Keep it secret.\n{}\n", key.seed()?);
        Folder::open(&folder)?.write_private(KEY_FILE, &text)?;
        let credentials = folder.join(KEY_FILE);
        let mut launcher = Launcher {
            program,
            folder,
            public_key: key.public_key(),
            port: Some(USUAL_PORT),
        };
        let running = match launcher.launch().await? {
            Launched::Running(running) => running,
            Launched::PortTaken => {
                launcher.port = None;
                match launcher.launch().await? {
                    Launched::Running(running) => running,
                    Launched::PortTaken => return Err(NatsError::NotReady("it finds no free port".to_owned())),
                }
            }
        };
        let port = running.port;
        // Clients come back to where it was.
        launcher.port = Some(port);
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            launcher,
            screen,
            stop: stop.clone(),
            _lock: lock,
        };
        let supervisor = tokenbus_bus::task::spawn("nats-server", supervisor.run(running));
        Ok(Self {
            port,
            credentials,
            stop,
            supervisor,
        })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The file with the key that it lets in.
    pub(crate) fn credentials(&self) -> &Path {
        &self.credentials
    }

    /// Ends it in order and waits until it is gone.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A panic of the task was logged by it; its child dies with the task's state.
        drop(self.supervisor.await);
    }
}

/// Makes the folder and takes its lock, which lasts as long as the returned file.
fn take(folder: &Path) -> Result<File, NatsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NatsError::Folder { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NatsError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
    }
}

/// The settings of the server. Vanished clients must be noticed within seconds, or requests go to
/// workers that are gone; 8 MB is the largest message that the server takes without a warning.
fn configuration(port: Option<u16>, store: &Path, public_key: &str) -> String {
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let store = serde_json::Value::from(store.to_string_lossy());
    format!(
        "# Written by `tokenbus up` at each start.\n\
         host: \"127.0.0.1\"\n\
         port: {port}\n\
         max_payload: 8MB\n\
         ping_interval: \"2s\"\n\
         ping_max: 2\n\
         write_deadline: \"5s\"\n\
         logtime: false\n\
         authorization {{ users: [ {{ nkey: {public_key} }} ] }}\n\
         jetstream {{\n  store_dir: {store}\n  max_memory_store: 64MB\n  max_file_store: 256MB\n}}\n"
    )
}

/// All that is needed to start the server, again and again.
#[derive(Debug)]
struct Launcher {
    program: PathBuf,
    folder: PathBuf,
    /// Of the one user whom it lets in.
    public_key: String,
    port: Option<u16>,
}

enum Launched {
    Running(Box<Running>),
    PortTaken,
}

/// A server that takes connections.
struct Running {
    process: Process,
    log: Log,
    port: u16,
}

impl Launcher {
    async fn launch(&self) -> Result<Launched, NatsError> {
        let config = self.folder.join("nats.conf");
        let text = configuration(self.port, &self.folder.join("jetstream"), &self.public_key);
        std::fs::write(&config, text).map_err(|source| NatsError::Folder {
            path: config.clone(),
            source,
        })?;
        let mut command = Command::new(&self.program);
        command
            .arg("-c")
            .arg(&config)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::start(command).await.map_err(|source| NatsError::Spawn {
            program: self.program.clone(),
            source,
        })?;
        let Some(stderr) = process.take_stderr() else {
            return Err(NatsError::NotReady("its log cannot be read".to_owned()));
        };
        let mut log = Log::new(stderr);
        let ready = tokio::time::timeout(limits::NATS_START_TIMEOUT, until_ready(&mut log)).await;
        let reason = match ready {
            Ok(Readiness::Ready(port)) => return Ok(Launched::Running(Box::new(Running { process, log, port }))),
            Ok(Readiness::PortTaken) => {
                process.stop(limits::CHILD_STOP_TIMEOUT).await;
                return Ok(Launched::PortTaken);
            }
            Ok(Readiness::Ended) => log.last_words(),
            Err(_) => format!(
                "it is not ready after {} s; {}",
                limits::NATS_START_TIMEOUT.as_secs(),
                log.last_words()
            ),
        };
        process.stop(limits::CHILD_STOP_TIMEOUT).await;
        Err(NatsError::NotReady(reason))
    }
}

enum Readiness {
    Ready(u16),
    PortTaken,
    Ended,
}

async fn until_ready(log: &mut Log) -> Readiness {
    let mut port = None;
    while let Some(line) = log.next().await {
        match (line, port) {
            (Line::Listening(listening), _) => port = Some(listening),
            (Line::Ready, Some(port)) => return Readiness::Ready(port),
            (Line::PortTaken, _) => return Readiness::PortTaken,
            _ => {}
        }
    }
    Readiness::Ended
}

/// The server's log: each line is logged, the last one is kept.
struct Log {
    lines: Lines<ChildStderr>,
    last: Option<String>,
}

impl Log {
    fn new(stderr: ChildStderr) -> Self {
        Self {
            lines: Lines::new(stderr, limits::CHILD_LINE_BYTES),
            last: None,
        }
    }

    /// The next line, or `None` at the end. Cancel-safe.
    async fn next(&mut self) -> Option<Line> {
        let text = self.lines.next().await?;
        let line = read(&text);
        match &line {
            Line::Problem(problem) => tracing::warn!(nats = %problem, "nats-server"),
            _ => tracing::debug!(nats = %text, "nats-server"),
        }
        self.last = Some(text);
        Some(line)
    }

    /// The last line, for a message.
    fn last_words(&self) -> String {
        self.last.clone().unwrap_or_else(|| "it said nothing".to_owned())
    }
}

/// The loop that keeps the server running.
struct Supervisor {
    launcher: Launcher,
    screen: Screen,
    stop: CancellationToken,
    _lock: File,
}

impl Supervisor {
    async fn run(self, mut running: Box<Running>) {
        let mut deaths = Deaths::new(limits::CHILD_HEALTHY_AFTER);
        loop {
            let since = Instant::now();
            let Some(how) = self.watch(&mut running).await else {
                running.process.stop(limits::CHILD_STOP_TIMEOUT).await;
                return;
            };
            let life = since.elapsed();
            let Running { process, log, .. } = *running;
            // A server that only closed its log still runs.
            process.stop(limits::CHILD_STOP_TIMEOUT).await;
            let words = log.last_words();
            self.screen.line(format_args!(
                "nats-server ended ({how}; last it said: {words}); starting it again"
            ));
            match self.start_again(&mut deaths, life).await {
                Some(again) => running = again,
                None => return,
            }
        }
    }

    /// Follows the log until the server ends; `None` when it is to be stopped.
    async fn watch(&self, running: &mut Running) -> Option<String> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                line = running.log.next() => if line.is_none() {
                    break;
                },
            }
        }
        // The log is closed, so the server is ending.
        let ended = tokio::time::timeout(limits::CHILD_STOP_TIMEOUT, running.process.wait()).await;
        Some(describe(ended.ok()))
    }

    /// Starts the server until it runs; `None` when that is not wanted any more.
    async fn start_again(&self, deaths: &mut Deaths, mut life: Duration) -> Option<Box<Running>> {
        loop {
            let pause = jittered(
                deaths.count(life),
                limits::CHILD_RESTART_FIRST,
                limits::CHILD_RESTART_LONGEST,
            );
            life = Duration::ZERO;
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
            // A start that is dropped midway kills its child.
            let launched = tokio::select! {
                () = self.stop.cancelled() => return None,
                launched = self.launcher.launch() => launched,
            };
            match launched {
                Ok(Launched::Running(running)) => {
                    self.screen
                        .line(format_args!("nats-server runs again on port {}", running.port));
                    return Some(running);
                }
                Ok(Launched::PortTaken) => {
                    let port = self.launcher.port.unwrap_or_default();
                    self.screen.line(format_args!(
                        "nats-server: port {port} is taken by another program; trying again"
                    ));
                }
                Err(error) => self.screen.line(format_args!("{error}; trying again")),
            }
        }
    }
}

fn describe(ended: Option<io::Result<ExitStatus>>) -> String {
    match ended {
        Some(Ok(status)) => status.to_string(),
        Some(Err(error)) => error.to_string(),
        None => "it closed its log".to_owned(),
    }
}

#[cfg(test)]
#[path = "nats_tests.rs"]
mod tests;
