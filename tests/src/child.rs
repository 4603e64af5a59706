//! A real process that cannot outlive its test.

use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::limits::STOP;
use crate::logs::Logs;
use crate::wait::within_time;

/// A running process with its log. It is killed when dropped, and by the kernel when the test dies.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: Pid,
    process: tokio::process::Child,
    logs: Logs,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`; its standard error is its log.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        die_with_us(&mut command);
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {command:?}: {error}"));
        let id = process.id().expect("a process that was just started has an id");
        let pid = Pid::from_raw(i32::try_from(id).expect("process ids fit"));
        let pipe: OwnedFd = process
            .stderr
            .take()
            .expect("stderr is piped")
            .into_owned_fd()
            .expect("a pipe has an fd");
        // The thread makes blocking reads, but tokio has set the pipe to non-blocking.
        let flags = nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_GETFL).expect("flags of a pipe");
        let flags = nix::fcntl::OFlag::from_bits_retain(flags) - nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("flags of a pipe");
        let logs = Logs::follow(name, std::fs::File::from(pipe));
        Self {
            name: name.to_owned(),
            pid,
            process,
            logs,
            status: None,
        }
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its log.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Sends `signal`.
    ///
    /// # Panics
    /// When the process has ended already: the test believes that it runs.
    pub fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "{} has ended already", self.name);
        kill(self.pid, signal).unwrap_or_else(|error| panic!("cannot send {signal} to {}: {error}", self.name));
    }

    /// Kills it with SIGKILL and waits for its end.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exited(STOP).await;
    }

    /// Freezes it: its connections stay open, but nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen process continue.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// After `limit`.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let status = within_time(limit, &what, self.process.wait())
            .await
            .expect("a child can be waited for");
        self.status = Some(status);
        status
    }

    /// Whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("a child can be waited for").is_none()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() && self.is_running() {
            // This waits without reaping: tokio does that. Ports and files are free afterwards.
            if kill(self.pid, Signal::SIGKILL).is_ok() {
                let _ = waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            }
        }
        if std::thread::panicking() {
            self.logs.settle();
            eprintln!("---- log of {} (pid {}):\n{}", self.name, self.pid, self.logs.tail());
        }
    }
}

/// Asks the kernel to kill the child when this process dies, however it dies.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn die_with_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died between fork and prctl; then no signal would ever come.
        if nix::unistd::getppid() != us {
            return Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls, both async-signal-safe,
    // and allocates nothing.
    unsafe { command.pre_exec(tie) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn die_with_us(_: &mut Command) {}
