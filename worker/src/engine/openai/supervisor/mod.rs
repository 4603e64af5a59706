//! A server process of our own: started, kept running, and gone when we are.

mod log;
mod words;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use tokenbus_bus::backoff;
use tokenbus_bus::task::{self, AbortOnDrop};
use tokenbus_process::{Deaths, Process};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};

pub use words::{WordsError, split};

use super::limits;
use log::Log;
use words::fill;

/// Loopback: a supervised server is nobody else's business.
const HOST: &str = "127.0.0.1";

/// How to start a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineCommand {
    /// Program and arguments. `{host}` and `{port}` in them are filled in, and also stand in the
    /// environment as `HOST` and `PORT`.
    pub words: Vec<String>,
    /// Additional environment variables, with the same places filled in.
    pub env: Vec<(String, String)>,
    /// Folder for the server's output; made where it is missing.
    pub log_dir: PathBuf,
    /// Name of the log file in it; a second file with `.1` appended holds what is older.
    pub log_name: String,
}

impl EngineCommand {
    /// Splits a command line as a shell would, without one.
    ///
    /// # Errors
    /// [`WordsError`] when a quote is not closed or there is no word.
    pub fn parse(line: &str, log_dir: impl Into<PathBuf>) -> Result<Self, WordsError> {
        Ok(Self::new(split(line)?, log_dir))
    }

    /// A command of words that need no splitting.
    pub fn new(words: Vec<String>, log_dir: impl Into<PathBuf>) -> Self {
        Self {
            words,
            env: Vec::new(),
            log_dir: log_dir.into(),
            log_name: "engine.log".to_owned(),
        }
    }

    /// Starts the server for `host` and `port`.
    async fn start(&self, host: &str, port: u16) -> Result<Process, SpawnError> {
        let mut words = self.words.iter().map(|word| fill(word, host, port));
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command
            .args(words)
            .env("HOST", host)
            .env("PORT", port.to_string())
            .envs(self.env.iter().map(|(name, value)| (name, fill(value, host, port))))
            // Held open and never written: a server may watch it to learn of our death.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Process::start(command)
            .await
            .map_err(|error| SpawnError::Failed { program, error })
    }
}

/// The process cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The command has no words.
    #[error("the engine's command is empty")]
    Empty,
    /// No free port on loopback.
    #[error("there is no free port on loopback for the engine: {0}")]
    NoPort(std::io::Error),
    /// The log cannot be written.
    #[error("the engine's log {path} cannot be written: {error}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The program cannot be run.
    #[error("the engine's program {program:?} cannot be started: {error}")]
    Failed {
        /// The program.
        program: String,
        /// Why.
        error: std::io::Error,
    },
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A free port on loopback, another one at each start.
    FreePort,
    /// As the operator says.
    Fixed { host: String, port: u16 },
}

impl Address {
    /// Of a URL's `host:port`.
    pub(super) fn fixed(authority: &str) -> Self {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(80)),
            _ => (authority, 80),
        };
        Self::Fixed {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
        }
    }

    fn choose(&self) -> Result<(&str, u16), SpawnError> {
        match self {
            Self::Fixed { host, port } => Ok((host, *port)),
            Self::FreePort => {
                let listener = std::net::TcpListener::bind((HOST, 0)).map_err(SpawnError::NoPort)?;
                Ok((HOST, listener.local_addr().map_err(SpawnError::NoPort)?.port()))
            }
        }
    }
}

/// Base URL of a server on loopback.
pub(super) fn loopback_url(port: u16) -> String {
    format!("http://{HOST}:{port}/v1")
}

/// How the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProcessState {
    /// It runs and was told this port.
    Running { port: u16 },
    /// It does not; it will be started again after a pause.
    Gone { reason: String },
}

enum Order {
    Restart,
    Stop(oneshot::Sender<()>),
}

/// A supervised process. Dropping it kills the process.
pub(super) struct Supervisor {
    handle: SupervisorHandle,
    log: Log,
    port: Arc<AtomicU16>,
    _task: AbortOnDrop<()>,
}

/// What the monitor needs of it.
#[derive(Clone)]
pub(super) struct SupervisorHandle {
    orders: mpsc::Sender<Order>,
    states: watch::Receiver<ProcessState>,
}

impl SupervisorHandle {
    /// The process's state, now and at each change.
    pub(super) fn states(&self) -> watch::Receiver<ProcessState> {
        self.states.clone()
    }

    /// The process lives but does not work: it is to be started again.
    pub(super) fn restart(&self) {
        // A full queue holds such an order already.
        let _ = self.orders.try_send(Order::Restart);
    }
}

impl Supervisor {
    /// Starts the process for the first time; a program that does not exist is told at once.
    pub(super) async fn start(command: EngineCommand, address: Address) -> Result<Self, SpawnError> {
        if command.words.is_empty() {
            return Err(SpawnError::Empty);
        }
        let log = Log::new(command.log_dir.join(&command.log_name));
        log.open().await.map_err(|error| SpawnError::Log {
            path: log.path().to_owned(),
            error,
        })?;
        let (host, port) = address.choose()?;
        let process = command.start(host, port).await?;
        let (orders, receiver) = mpsc::channel(4);
        let (state, states) = watch::channel(ProcessState::Running { port });
        let port = Arc::new(AtomicU16::new(port));
        tracing::info!(program = ?command.words.first(), pid = process.id(), log = %log.path().display(), "engine process started");
        let keeper = Keeper {
            command,
            address,
            log: log.clone(),
            state,
            port: port.clone(),
            orders: receiver,
        };
        let task = AbortOnDrop::new(task::spawn("engine-supervisor", keeper.run(process)));
        Ok(Self {
            handle: SupervisorHandle { orders, states },
            log,
            port,
            _task: task,
        })
    }

    pub(super) fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// The port that the process was told last.
    pub(super) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(super) fn log_path(&self) -> &Path {
        self.log.path()
    }

    pub(super) fn log_tail(&self) -> Vec<String> {
        self.log.tail()
    }

    /// Ends the process; it is gone when this returns.
    pub(super) async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.handle.orders.send(Order::Stop(reply)).await.is_ok() {
            // An error is an end as well: the supervisor has gone, and the process with it.
            let _ = done.await;
        }
    }
}

/// How one life of the process ended.
enum Ended {
    Exited(String),
    Hung,
    Stopped(Option<oneshot::Sender<()>>),
}

/// The task that keeps the process running.
struct Keeper {
    command: EngineCommand,
    address: Address,
    log: Log,
    state: watch::Sender<ProcessState>,
    port: Arc<AtomicU16>,
    orders: mpsc::Receiver<Order>,
}

impl Keeper {
    async fn run(mut self, first: Process) {
        let mut process = Some(first);
        let mut deaths = Deaths::new(limits::RESTART_RESET);
        loop {
            let born = Instant::now();
            let ended = match process.take() {
                Some(process) => self.live(process).await,
                None => match self.start().await {
                    Ok(process) => self.live(process).await,
                    Err(error) => Ended::Exited(error.to_string()),
                },
            };
            let reason = match ended {
                Ended::Exited(reason) => reason,
                Ended::Hung => "the server process did not work and was ended".to_owned(),
                Ended::Stopped(reply) => return finished(reply),
            };
            let deaths = deaths.count(born.elapsed());
            let pause = backoff::jittered(deaths, limits::RESTART_FIRST, limits::RESTART_LONGEST);
            tracing::error!(
                reason,
                deaths,
                restart_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                log = %self.log.path().display(),
                last_lines = %self.log.tail().join("\n"),
                "engine process gone"
            );
            self.state.send_replace(ProcessState::Gone { reason });
            if let Some(reply) = self.pause(pause).await {
                return finished(reply);
            }
        }
    }

    async fn start(&self) -> Result<Process, SpawnError> {
        let (host, port) = self.address.choose()?;
        let process = self.command.start(host, port).await?;
        self.port.store(port, Ordering::Relaxed);
        self.state.send_replace(ProcessState::Running { port });
        tracing::info!(pid = process.id(), "engine process started again");
        Ok(process)
    }

    /// One life, from start to end. The process and its descendants are gone when this returns.
    async fn live(&mut self, mut process: Process) -> Ended {
        self.log.begin();
        let (out, err) = (process.take_stdout(), process.take_stderr());
        // Held to the end of this life: its closing tells a watching server that we are gone.
        let stdin = process.take_stdin();
        let log = self.log.clone();
        let carry = async move {
            if let (Some(out), Some(err)) = (out, err) {
                log.carry(out, err).await;
            }
        };
        tokio::pin!(carry);
        let mut carried = false;
        let ended = loop {
            tokio::select! {
                () = &mut carry, if !carried => carried = true,
                status = process.wait() => {
                    break Ended::Exited(match status {
                        Ok(status) => format!("the server process ended ({status})"),
                        Err(error) => format!("the server process cannot be waited for: {error}"),
                    });
                }
                order = self.orders.recv() => {
                    break match order {
                        Some(Order::Restart) => Ended::Hung,
                        Some(Order::Stop(reply)) => Ended::Stopped(Some(reply)),
                        None => Ended::Stopped(None),
                    };
                }
            }
        };
        drop(stdin);
        let exited = matches!(ended, Ended::Exited(_));
        let end = async move {
            if exited {
                // Descendants that outlived their leader; dropping the group kills them.
                drop(process);
            } else {
                process.stop(limits::STOP_TIMEOUT).await;
            }
        };
        tokio::pin!(end);
        // Its last words are read while it ends: a full pipe would hold it up.
        loop {
            tokio::select! {
                () = &mut end => break,
                () = &mut carry, if !carried => carried = true,
            }
        }
        if !carried {
            let _ = tokio::time::timeout(limits::LAST_WORDS, carry).await;
        }
        ended
    }

    /// Waits before the next start. Some: stop instead.
    async fn pause(&mut self, pause: std::time::Duration) -> Option<Option<oneshot::Sender<()>>> {
        let sleep = tokio::time::sleep(pause);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return None,
                order = self.orders.recv() => match order {
                    Some(Order::Restart) => {}
                    Some(Order::Stop(reply)) => return Some(Some(reply)),
                    None => return Some(None),
                },
            }
        }
    }
}

fn finished(reply: Option<oneshot::Sender<()>>) {
    if let Some(reply) = reply {
        // Whoever asked may have stopped waiting.
        let _ = reply.send(());
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
