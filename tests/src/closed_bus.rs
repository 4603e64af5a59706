//! A NATS that `tokenbus nats-config` has configured: users, permissions, TLS, one server or several.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use tempfile::TempDir;
use tokio::process::Command;

use crate::binary::{CommandOutput, nats_server, run};
use crate::child::Child;
use crate::limits::{PATIENCE, READY};
use crate::process::Role;
use crate::wait::within;

/// Servers on loopback that run on generated configuration. Killed when dropped.
#[derive(Debug)]
pub struct ClosedBus {
    servers: Vec<Option<Child>>,
    ports: Vec<u16>,
    folder: TempDir,
}

/// A raw connection of one user, and what the server refused it.
#[derive(Debug)]
pub struct User {
    /// The connection.
    pub client: Client,
    refused: Arc<Mutex<Vec<String>>>,
}

impl ClosedBus {
    /// Configures and starts `count` servers for these workers, each with its models.
    ///
    /// # Panics
    /// When the configuration is not written, or a server does not start.
    pub async fn start(count: usize, workers: &[(&str, &[&str])]) -> Self {
        Self::start_with(count, workers, &[]).await
    }

    /// The same with these sites, whose leaf nodes are started by [`ClosedBus::leaf`].
    ///
    /// # Panics
    /// When the configuration is not written, or a server does not start.
    pub async fn start_with(count: usize, workers: &[(&str, &[&str])], sites: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tokenbus-closed-")
            .tempdir()
            .expect("a temporary folder");
        let mut ports: Vec<u16> = Vec::new();
        while ports.len() < count {
            let port = crate::port::lasting();
            let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
            let is_near = ports
                .iter()
                .any(|other| [0, 800, 1200, 2000, 3200, 4000].contains(&other.abs_diff(port)));
            if [2000, 3200, 4000].into_iter().all(|above| free(port + above)) && !is_near {
                ports.push(port);
            }
        }
        let mut bus = Self {
            servers: Vec::new(),
            ports,
            folder,
        };
        let nodes = bus.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let first: Vec<String> = nodes.flat_map(|node| ["--node".to_owned(), node]).collect();
        bus.configure(&first).await;
        for (worker, models) in workers {
            let mut args = vec!["--worker".to_owned(), (*worker).to_owned()];
            args.extend(
                models
                    .iter()
                    .flat_map(|model| ["--model".to_owned(), (*model).to_owned()]),
            );
            bus.configure(&args).await;
        }
        for site in sites {
            bus.configure(&["--site".to_owned(), (*site).to_owned()]).await;
        }
        for number in 0..count {
            bus.servers.push(None);
            bus.launch(number);
        }
        for server in bus.servers.iter().flatten() {
            let ready = |line: &str| line.ends_with("Server is ready").then_some(());
            server.logs().wait_for(READY, "its ready line", ready).await;
        }
        bus
    }

    /// Runs `tokenbus nats-config` on its folder.
    pub async fn configure(&self, args: &[String]) {
        let mut all = vec![
            "nats-config",
            self.folder.path().to_str().expect("a path of plain letters"),
        ];
        all.extend(args.iter().map(String::as_str));
        let said = run(PATIENCE, &all).await;
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    fn launch(&mut self, number: usize) {
        let mut command = Command::new(nats_server());
        let config = self.file(&format!("server-{}/nats.conf", number + 1));
        command.arg("-c").arg(config);
        self.servers[number] = Some(Child::spawn(&format!("nats-server {number}"), command));
    }

    /// Starts the leaf node of a site, which clients reach at `port`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn leaf(&self, site: &str, port: u16) -> Child {
        let mut command = Command::new(nats_server());
        let config = self.file(&format!("site-{site}/nats.conf"));
        command.arg("-c").arg(config).args(["-p", &port.to_string()]);
        let server = Child::spawn(&format!("leaf node {site}"), command);
        let joined = |line: &str| line.contains("JetStream using domains").then_some(());
        server.logs().wait_for(READY, "that it has joined", joined).await;
        server
    }

    /// A file of the configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The addresses of all servers.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self
            .ports
            .iter()
            .map(|port| format!("tls://127.0.0.1:{port}"))
            .collect();
        urls.join(",")
    }

    /// The flags for `user`, without the addresses.
    pub fn flags(&self, user: &str) -> Vec<String> {
        let path = |name: &str| self.file(name).to_string_lossy().into_owned();
        let creds = path(&format!("creds/{user}.nk"));
        vec!["--nats-ca".to_owned(), path("ca.pem"), "--nats-creds".to_owned(), creds]
    }

    /// `role` with the credentials of `user`.
    pub fn role(&self, role: Role, user: &str) -> Role {
        let flags = self.flags(user);
        role.args(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a subcommand to its end as `user`.
    pub async fn run(&self, user: &str, args: &[&str]) -> CommandOutput {
        let (flags, urls) = (self.flags(user), self.urls());
        let mut all = args.to_vec();
        all.extend(flags.iter().map(String::as_str));
        all.extend(["--nats", &urls]);
        run(PATIENCE, &all).await
    }

    /// The process of a server.
    pub fn server(&mut self, number: usize) -> &mut Option<Child> {
        &mut self.servers[number]
    }

    /// Lets the servers read their configuration again.
    pub fn reload(&self) {
        for server in self.servers.iter().flatten() {
            server.signal(nix::sys::signal::Signal::SIGHUP);
        }
    }

    /// A raw connection as `user`, with that user's inboxes.
    pub async fn user(&self, user: &str) -> User {
        let text = std::fs::read_to_string(self.file(&format!("creds/{user}.nk"))).expect("a credentials file");
        let seed = text.lines().find(|line| line.starts_with("SU")).expect("a seed");
        let known = std::fs::read_to_string(self.file("cluster.toml")).expect("the cluster's file");
        let key = known
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{user} = \"")));
        let key = key.expect("the user's key").trim_end_matches('"').to_owned();
        let refused: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&refused);
        let connecting = ConnectOptions::with_nkey(seed.to_owned())
            .add_root_certificates(self.file("ca.pem"))
            .require_tls(true)
            .custom_inbox_prefix(format!("_INBOX.{key}"))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    told.lock().unwrap().push(error.to_string());
                }
                async {}
            })
            .connect(self.urls().split(',').map(str::to_owned).collect::<Vec<_>>());
        let client = within("a connection", connecting).await.expect("the user may connect");
        User { client, refused }
    }
}

impl User {
    /// Whether the server refuses this subscription.
    pub async fn is_deaf_to(&self, subject: &str, queue: Option<&str>) -> bool {
        let before = self.refused.lock().unwrap().len();
        let mut subscriber = match queue {
            Some(queue) => self.client.queue_subscribe(subject.to_owned(), queue.to_owned()).await,
            None => self.client.subscribe(subject.to_owned()).await,
        }
        .expect("a subject");
        let refused = self.refused_since(before).await;
        let _ = subscriber.unsubscribe().await;
        refused
    }

    /// Whether the server refuses a message on this subject.
    pub async fn may_not_say(&self, subject: &str) -> bool {
        let before = self.refused.lock().unwrap().len();
        self.client
            .publish(subject.to_owned(), "x".into())
            .await
            .expect("a subject");
        self.refused_since(before).await
    }

    async fn refused_since(&self, before: usize) -> bool {
        // What was refused comes before the answer of a round trip, and is handed out within moments.
        let inbox = self.client.new_inbox();
        let mut echo = self.client.subscribe(inbox.clone()).await.expect("an inbox");
        self.client.publish(inbox, "".into()).await.expect("an inbox");
        let _ = within("a round trip", futures_util::StreamExt::next(&mut echo)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.refused.lock().unwrap().len() > before
    }
}
