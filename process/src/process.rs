//! A running child with its descendants.

use std::io;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::starter;

/// A child and its process group. Dropping it kills the whole group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Group,
}

/// Killed as a whole when it is dropped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // This fails only when the group is empty.
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
    /// Starts `command`.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn start(command: Command) -> io::Result<Self> {
        let child = starter::start(command).await?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self {
            child,
            group: Group(pid),
        })
    }

    /// The child's process id, until it has been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Takes the pipe to its standard input, if it has one.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes the pipe from its standard output, if it has one.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes the pipe from its standard error, if it has one.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits until the child has ended; its descendants may still run. Cancel-safe.
    ///
    /// # Errors
    /// When the system cannot wait for it.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends SIGTERM to the group, and SIGKILL if the child has not ended after `grace`. Then kills what is left
    /// of the group.
    pub async fn stop(mut self, grace: Duration) {
        self.group.signal(Signal::SIGTERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(
                pid = self.child.id(),
                "the child does not end after SIGTERM and is killed"
            );
            self.group.signal(Signal::SIGKILL);
            if let Err(error) = self.child.wait().await {
                tracing::warn!(%error, "cannot wait for the child");
            }
        }
    }
}

/// Runs `command` without input and returns its output. Dropping the future kills its group.
///
/// # Errors
/// When the program cannot be run, or its output cannot be read.
pub async fn output(mut command: Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Process { child, group } = Process::start(command).await?;
    let output = child.wait_with_output().await;
    drop(group);
    output
}
