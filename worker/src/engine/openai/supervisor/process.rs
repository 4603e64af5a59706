//! Starting a server process that cannot outlive us, and ending it with all its children.

use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::words::fill;
use super::{EngineCommand, SpawnError};

/// A thread that does nothing but start processes, and lives as long as they may.
///
/// Linux ties a death signal to the thread that started the child, not to the process. A thread of
/// the runtime may end earlier than the worker; this one ends with the supervisor.
pub(super) struct Spawner(mpsc::SyncSender<Order>);

type Order = (Command, oneshot::Sender<std::io::Result<Child>>);

impl Spawner {
    pub(super) fn new() -> std::io::Result<Self> {
        let (sender, orders) = mpsc::sync_channel::<Order>(1);
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("engine-spawner".to_owned())
            .spawn(move || {
                let _context = runtime.enter();
                for (mut command, reply) in orders {
                    // A child whose starter has gone is dropped here, which kills it.
                    let _ = reply.send(command.spawn());
                }
            })?;
        Ok(Self(sender))
    }

    async fn spawn(&self, command: Command) -> std::io::Result<Child> {
        let (reply, child) = oneshot::channel();
        let gone = || std::io::Error::other("the thread that starts processes has ended");
        self.0.send((command, reply)).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

/// A running server process and the group of its descendants.
pub(super) struct Process {
    pub(super) child: Child,
    group: Group,
}

/// Kills the whole group when it is dropped.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It fails only when nobody is left in the group.
            let _ = killpg(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

impl Process {
    /// Starts `command` for `host` and `port`.
    pub(super) async fn start(
        spawner: &Spawner,
        command: &EngineCommand,
        host: &str,
        port: u16,
    ) -> Result<Self, SpawnError> {
        let mut words = command.words.iter().map(|word| fill(word, host, port));
        let program = words.next().unwrap_or_default();
        let mut prepared = Command::new(&program);
        prepared
            .args(words)
            .env("HOST", host)
            .env("PORT", port.to_string())
            .envs(command.env.iter().map(|(name, value)| (name, fill(value, host, port))))
            // Held open and never written: a server may watch it to learn of our death.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        #[cfg(target_os = "linux")]
        die_with_us(&mut prepared);
        let child = spawner
            .spawn(prepared)
            .await
            .map_err(|error| SpawnError::Failed { program, error })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self {
            child,
            group: Group(pid),
        })
    }

    /// Asks the group to end, and kills it when its leader has not ended after `patience`. Nothing of
    /// it is left afterwards.
    pub(super) async fn stop(mut self, patience: Duration) {
        self.group.signal(Signal::SIGTERM);
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.child.id(), "the engine's process does not end; it is killed");
            self.group.signal(Signal::SIGKILL);
            if let Err(error) = self.child.wait().await {
                tracing::warn!(%error, "the engine's process cannot be waited for");
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have died between fork and prctl; then no signal will ever come.
        if nix::unistd::getppid() != us {
            return Err(std::io::Error::from_raw_os_error(nix::errno::Errno::ESRCH as i32));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls (prctl, getppid), both
    // async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(tie) };
}
