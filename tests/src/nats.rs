//! A real nats-server for one test.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::binary::nats_server;
use crate::child::Child;
use crate::limits::{READY, STOP};

/// Options of a [`NatsServer`]. The default is `deploy/nats.conf`, but without JetStream and with NATS's default
/// `max_payload`.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Whether JetStream is on. Its store is deleted with the server.
    pub jetstream: bool,
    /// Most bytes that JetStream stores in files; 0 for no bound.
    pub max_file_store: u64,
    /// Largest message in bytes.
    pub max_payload: usize,
    /// Further lines of its configuration.
    pub extra: String,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            jetstream: false,
            max_file_store: 0,
            max_payload: 1024 * 1024,
            extra: String::new(),
        }
    }
}

/// Folder of JetStream's files within the server's own.
const STORE: &str = "store";

/// A nats-server on its own port, which it keeps over restarts. Killed when dropped.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Child>,
    port: u16,
    config: PathBuf,
    folder: TempDir,
}

impl NatsServer {
    /// Starts a server with the default options and waits until it accepts connections.
    pub async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    /// Starts a server with JetStream.
    pub async fn start_with_jetstream() -> Self {
        Self::start_with(NatsOptions {
            jetstream: true,
            ..NatsOptions::default()
        })
        .await
    }

    /// Starts a server and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not start; shows its log.
    pub async fn start_with(options: NatsOptions) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tokenbus-nats-")
            .tempdir()
            .expect("a temporary folder");
        let config = folder.path().join("nats.conf");
        let mut text = format!(
            "max_payload: {}\nping_interval: \"2s\"\nping_max: 2\nwrite_deadline: \"5s\"\n{}\n",
            options.max_payload, options.extra
        );
        if options.jetstream {
            let bound = match options.max_file_store {
                0 => String::new(),
                bytes => format!("max_file_store: {bytes}"),
            };
            let store = folder.path().join(STORE);
            text.push_str(&format!("jetstream {{\nstore_dir: {store:?}\n{bound}\n}}\n"));
        }
        std::fs::write(&config, text).expect("the temporary folder can be written");
        let mut server = Self {
            process: None,
            port: crate::port::lasting(),
            config,
            folder,
        };
        server.launch().await;
        server
    }

    /// Starts a cluster of three servers with JetStream and waits until it can be used. The servers keep their
    /// routes over restarts, and tell clients only of the server that they dialled.
    ///
    /// # Panics
    /// When one does not start, or JetStream is not available in time.
    pub async fn cluster() -> Vec<Self> {
        let ports = [(); 3].map(|()| crate::port::lasting());
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
        let node = |(number, port): (usize, u16)| {
            Self::start_with(NatsOptions {
                jetstream: true,
                extra: format!(
                    "server_name: n{number}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}], \
                     no_advertise: true }}"
                ),
                ..NatsOptions::default()
            })
        };
        let servers = futures_util::future::join_all(ports.into_iter().enumerate().map(node)).await;
        for server in &servers {
            let context = async_nats::jetstream::new(server.client().await);
            crate::wait::eventually("a leader of JetStream", async || context.query_account().await).await;
        }
        servers
    }

    /// Its name in a [`NatsServer::cluster`].
    pub async fn name(&self) -> String {
        self.client().await.server_info().server_name
    }

    /// Deletes JetStream's files while the server is stopped.
    pub fn wipe(&self) {
        assert!(self.process.is_none(), "the nats-server runs");
        std::fs::remove_dir_all(self.folder.path().join(STORE)).expect("there is a store");
    }

    async fn launch(&mut self) {
        let mut command = Command::new(nats_server());
        command
            .arg("-c")
            .arg(&self.config)
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .current_dir(self.folder.path());
        let process = Child::spawn("nats-server", command);
        let ready = |line: &str| line.ends_with("Server is ready").then_some(());
        process.logs().wait_for(READY, "its ready line", ready).await;
        self.process = Some(process);
    }

    /// Changes its further lines from `old` to `new`, while it runs.
    pub fn reconfigure(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(&self.config).expect("its configuration");
        assert!(text.contains(old), "{text}");
        std::fs::write(&self.config, text.replace(old, new)).expect("its configuration can be written");
        self.process().signal(Signal::SIGHUP);
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process.
    ///
    /// # Panics
    /// While the server is stopped.
    pub fn process(&self) -> &Child {
        self.process.as_ref().expect("the nats-server is stopped")
    }

    /// Ends it with SIGTERM and waits for its end.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("the nats-server is stopped already");
        process.signal(Signal::SIGTERM);
        process.exited(STOP).await;
    }

    /// Kills it with SIGKILL and waits for its end.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("the nats-server is stopped already");
        process.kill().await;
    }

    /// Starts it again on the same port, with the same store, after [`NatsServer::stop`] or
    /// [`NatsServer::kill`].
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the nats-server runs");
        self.launch().await;
    }

    /// Kills it and starts it again on the same port.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// A client for the test.
    pub async fn client(&self) -> async_nats::Client {
        let connected = async_nats::connect(self.url());
        crate::wait::within("a connection to the nats-server", connected)
            .await
            .expect("the nats-server takes connections")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::wait::within;

    #[tokio::test]
    async fn a_server_carries_messages_and_comes_back_on_its_port() {
        let mut server = NatsServer::start_with_jetstream().await;
        let url = server.url();
        for _ in 0..2 {
            let client = server.client().await;
            let mut messages = client.subscribe("a").await.unwrap();
            client.publish("a", "hello".into()).await.unwrap();
            let message = within("the message", messages.next()).await.unwrap();
            assert_eq!(message.payload, "hello");
            assert!(client.server_info().jetstream);
            server.restart().await;
            assert_eq!(server.url(), url);
        }
        server.stop().await;
    }
}
