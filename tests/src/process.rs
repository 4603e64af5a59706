//! The roles of tokenbus as real processes.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::binary;
use crate::child::Child;
use crate::http::Client;
use crate::limits::{READY, STOP};
use crate::upstream::Upstream;

/// The command line of one role, without the address of NATS.
#[derive(Debug, Clone)]
pub struct Role {
    name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Role {
    /// Any subcommand.
    pub fn new(subcommand: &str) -> Self {
        Self {
            name: subcommand.to_owned(),
            args: vec![subcommand.to_owned()],
            env: Vec::new(),
        }
    }

    /// A gateway on a port of loopback where it can be restarted.
    pub fn gateway() -> Self {
        Self::new("gateway").args(&["--listen", &format!("127.0.0.1:{}", crate::port::lasting())])
    }

    /// A coordinator on a free port of loopback.
    pub fn coordinator() -> Self {
        Self::new("coordinator").args(&["--listen", "127.0.0.1:0"])
    }

    /// A worker with the simulated engine and `slots` slots. The engine needs no time unless [`Role::pace`] says
    /// so.
    pub fn sim(model: &str, slots: u32) -> Self {
        Self::new("worker")
            .args(&["--engine", "sim"])
            .model(model)
            .slots(slots)
            .pace("0ms", "0ms")
    }

    /// A worker that proxies `upstream` and serves its models.
    pub fn proxy(upstream: &Upstream, slots: u32) -> Self {
        Self::new("worker")
            .args(&["--engine", "openai", "--url", &upstream.url()])
            .slots(slots)
    }

    /// Serves `model`. A proxy serves it under this name.
    #[must_use]
    pub fn model(self, model: &str) -> Self {
        self.args(&["--model", model])
    }

    fn slots(self, slots: u32) -> Self {
        self.args(&["--slots", &slots.to_string()])
    }

    /// Sets the simulated engine's time to first token and between tokens.
    #[must_use]
    pub fn pace(self, ttft: &str, itl: &str) -> Self {
        self.without("--sim-ttft")
            .without("--sim-itl")
            .args(&["--sim-ttft", ttft, "--sim-itl", itl])
    }

    fn without(mut self, flag: &str) -> Self {
        if let Some(at) = self.args.iter().position(|arg| arg == flag) {
            self.args.drain(at..at + 2);
        }
        self
    }

    /// Further arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its name in messages.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Starts it with the NATS at `nats` and waits for its ready line.
    ///
    /// # Panics
    /// When it ends or stays silent; shows its log.
    pub async fn start(self, nats: &str) -> Process {
        let process = self.launch(nats);
        let told = process.logs().wait_for(READY, "its ready line", ready).await;
        Process { told, ..process }
    }

    /// Starts it without waiting for its ready line.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn launch(self, nats: &str) -> Process {
        let mut command = binary::command();
        command
            .args(&self.args)
            .args(["--nats", nats, "--log-format", "json"])
            .envs(self.env.iter().cloned());
        Process {
            child: Child::spawn(&self.name, command),
            told: Value::Null,
        }
    }
}

/// The fields of a role's ready line; `None` for any other line.
fn ready(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let message = fields["message"].as_str()?;
    let role = message.strip_suffix(" ready")?;
    ["gateway", "worker", "coordinator"]
        .contains(&role)
        .then(|| fields.clone())
}

/// The address in a ready line, if it has one.
fn address(ready: &Value) -> Option<SocketAddr> {
    let mut texts = ready.as_object()?.values().filter_map(Value::as_str);
    texts.find_map(|text| text.trim_start_matches("http://").parse().ok())
}

/// A running role; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    told: Value,
}

impl Process {
    /// Where it listens.
    ///
    /// # Panics
    /// When its ready line has no address.
    pub fn address(&self) -> SocketAddr {
        address(&self.told).unwrap_or_else(|| panic!("{} did not say where it listens: {}", self.name(), self.told))
    }

    /// Its id on the bus, from its ready line.
    ///
    /// # Panics
    /// When its ready line has no id.
    pub fn id(&self) -> String {
        let told = ["worker", "gateway", "coordinator", "id"]
            .iter()
            .find_map(|key| self.told[key].as_str());
        told.unwrap_or_else(|| panic!("{} did not say its id: {}", self.name(), self.told))
            .to_owned()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Waits for the ready line of a process from [`Role::launch`].
    pub async fn ready(&mut self) {
        self.told = self.logs().wait_for(READY, "its ready line", ready).await;
    }

    /// Ends it with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When it does not end within [`STOP`].
    pub async fn stop(&mut self) -> ExitStatus {
        self.stop_within(STOP).await
    }

    /// Like [`Process::stop`], within `limit`.
    pub async fn stop_within(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.exited(limit).await
    }
}

impl Deref for Process {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_lines_are_told_from_others() {
        let gateway = r#"{"level":"INFO","message":"gateway ready","address":"http://127.0.0.1:8080"}"#;
        let expected = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(ready(gateway).as_ref().and_then(address), Some(expected));
        let worker = r#"{"level":"INFO","fields":{"message":"worker ready","worker":"w1","slots":4}}"#;
        assert_eq!(ready(worker).unwrap()["worker"], "w1");
        assert_eq!(ready(worker).as_ref().and_then(address), None);
        for other in [
            r#"{"level":"INFO","fields":{"message":"not yet"}}"#,
            r#"{"level":"INFO","fields":{"message":"engine ready"}}"#,
            "worker ready",
        ] {
            assert_eq!(ready(other), None, "{other}");
        }
    }
}
