//! What a configuration is made from: kept in `cluster.toml`, and changed by the flags of each run. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokenbus_protocol::Name;

use super::users;

/// The port that NATS clients expect.
const PORT: u16 = 4222;

/// Highest port of a node: its other two are above it.
const HIGHEST_PORT: u16 = u16::MAX - MONITOR;

const ROUTE: u16 = 2000;
const LEAF: u16 = 3200;
const MONITOR: u16 = 4000;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) namespace: Name,
    pub(super) usage_stream: String,
    /// Bytes that JetStream may store in files on each server.
    pub(super) store_size: u64,
    /// Where each server has its folder, if not where it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server_folder: Option<PathBuf>,
    /// What servers tell each other to be let in.
    pub(super) route_password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    pub(super) nodes: Vec<Node>,
    /// The models of each worker; `*` for all.
    pub(super) workers: BTreeMap<Name, Vec<String>>,
    /// Sites that reach the cluster through leaf nodes of their own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) sites: BTreeSet<Name>,
    /// The public key of each user.
    pub(super) users: BTreeMap<String, String>,
}

/// The operator's own certificate for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// A server as clients dial it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Node {
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// What the flags of one run say.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) nodes: Vec<Node>,
    pub(super) workers: Vec<Name>,
    pub(super) models: Vec<String>,
    pub(super) removed: Vec<Name>,
    pub(super) sites: Vec<Name>,
    pub(super) removed_sites: Vec<Name>,
    pub(super) usage_stream: Option<Name>,
    pub(super) store_size: Option<u64>,
    pub(super) server_folder: Option<PathBuf>,
    pub(super) tls: Option<(PathBuf, PathBuf)>,
    pub(super) namespace: Option<Name>,
}

impl Cluster {
    /// The configuration before the first run.
    pub(super) fn new(namespace: Name) -> Self {
        Self {
            namespace,
            usage_stream: "billing".to_owned(),
            store_size: 4 << 30,
            server_folder: None,
            route_password: String::new(),
            tls: None,
            nodes: Vec::new(),
            workers: BTreeMap::new(),
            sites: BTreeSet::new(),
            users: BTreeMap::new(),
        }
    }

    /// Reads what [`Cluster::to_text`] wrote.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    /// The text of `cluster.toml`.
    pub(super) fn to_text(&self) -> String {
        let text = toml::to_string(self).unwrap_or_default();
        format!("# Kept by `tokenbus nats-config`.\n{text}")
    }

    /// This configuration with the changes of one run.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn with(mut self, changes: Changes) -> Result<Self, String> {
        if let Some(namespace) = changes.namespace {
            self.namespace = namespace;
        }
        if let Some(stream) = changes.usage_stream {
            self.usage_stream = stream.to_string();
        }
        self.store_size = changes.store_size.unwrap_or(self.store_size);
        self.server_folder = changes.server_folder.or(self.server_folder);
        if let Some((certificate, key)) = changes.tls {
            self.tls = Some(Tls { certificate, key });
        }
        if !changes.nodes.is_empty() {
            self.nodes = changes.nodes;
        }
        if self.nodes.is_empty() {
            self.nodes = vec![Node::from_str("127.0.0.1")?];
        }
        if self.nodes.len().is_multiple_of(2) {
            return Err(format!(
                "{} servers: JetStream needs an odd number, 1, 3 or 5, to go on without one of them",
                self.nodes.len()
            ));
        }
        if changes.models.iter().any(String::is_empty) {
            return Err("a model has no name".to_owned());
        }
        for worker in &changes.removed {
            if self.workers.remove(worker).is_none() {
                return Err(format!("there is no worker {worker}"));
            }
        }
        for site in &changes.removed_sites {
            if !self.sites.remove(site) {
                return Err(format!("there is no site {site}"));
            }
        }
        self.sites.extend(changes.sites);
        for worker in changes.workers {
            self.workers.insert(worker, changes.models.clone());
        }
        if self.route_password.is_empty() {
            self.route_password = crate::secret::random().map_err(|error| error.to_string())?;
        }
        Ok(self)
    }

    /// Whether the configuration still has this user.
    pub(super) fn is_user(&self, name: &str) -> bool {
        users::ROLES.iter().any(|(role, _)| *role == name)
            || self.workers.keys().any(|worker| users::of_worker(worker) == name)
            || self.sites.iter().any(|site| users::of_site(site) == name)
    }

    /// The domain of its JetStream, by which leaf nodes tell it from their own.
    pub(super) fn domain(&self) -> &str {
        self.namespace.as_str()
    }
}

impl Node {
    /// Its address for clients.
    pub(super) fn url(&self) -> String {
        format!("tls://{self}")
    }

    /// Where servers reach each other.
    pub(super) fn route(&self) -> Self {
        self.at(ROUTE)
    }

    /// Where leaf nodes join.
    pub(super) fn leaf(&self) -> Self {
        self.at(LEAF)
    }

    /// The port of monitoring, on loopback.
    pub(super) fn monitor(&self) -> u16 {
        self.at(MONITOR).port
    }

    fn at(&self, above: u16) -> Self {
        Self {
            host: self.host.clone(),
            port: self.port.saturating_add(above),
        }
    }

    /// The address that it listens on: loopback only if it is known by that.
    pub(super) fn listens(&self) -> &'static str {
        match self.host.as_str() {
            "localhost" | "127.0.0.1" => "127.0.0.1",
            "::1" => "::1",
            host if host.contains(':') => "::",
            _ => "0.0.0.0",
        }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no server: write it like nats-1.example.org or 10.0.0.5:4222");
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
            None if text.matches(':').count() > 1 => (text, None),
            None => text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(PORT), str::parse).map_err(|_| wrong())?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(is_plain) || port == 0 {
            return Err(wrong());
        }
        if port > HIGHEST_PORT {
            return Err(format!("{text}: the port must be at most {HIGHEST_PORT}"));
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

impl TryFrom<String> for Node {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Node> for String {
    fn from(node: Node) -> Self {
        node.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn later_runs_change_only_what_they_name() {
        let first = Cluster::new(name("tb"))
            .with(Changes {
                nodes: vec![
                    "a".parse().unwrap(),
                    "b:4000".parse().unwrap(),
                    "[::1]".parse().unwrap(),
                ],
                workers: vec![name("w1"), name("w2")],
                models: vec!["m/1".into()],
                ..Changes::default()
            })
            .unwrap();
        let kept = Cluster::parse(&first.to_text()).unwrap();
        assert_eq!(kept, first);
        let second = kept
            .with(Changes {
                workers: vec![name("w3")],
                models: vec!["*".into()],
                removed: vec![name("w1")],
                ..Changes::default()
            })
            .unwrap();
        assert_eq!(
            (&second.nodes, &second.route_password),
            (&first.nodes, &first.route_password)
        );
        assert_eq!(
            second.workers.keys().map(Name::as_str).collect::<Vec<_>>(),
            ["w2", "w3"]
        );
        assert_eq!(second.workers[&name("w2")], ["m/1"]);
        assert!(second.is_user("worker-w3") && !second.is_user("worker-w1"));
        let gone = Changes {
            removed: vec![name("w1")],
            ..Changes::default()
        };
        assert!(second.with(gone).unwrap_err().contains("w1"));
    }

    #[test]
    fn a_node_has_a_host_and_three_ports() {
        let node: Node = "nats-1.example.org".parse().unwrap();
        assert_eq!(
            (node.url().as_str(), node.route().port, node.monitor()),
            ("tls://nats-1.example.org:4222", 6222, 8222)
        );
        assert_eq!(
            (node.listens(), "127.0.0.1:5000".parse::<Node>().unwrap().listens()),
            ("0.0.0.0", "127.0.0.1")
        );
        assert_eq!("2001:db8::1".parse::<Node>().unwrap().to_string(), "[2001:db8::1]:4222");
        for wrong in ["", ":1", "a:0", "a:x", "a b", "a\"", "[::1", "a:65535"] {
            assert!(wrong.parse::<Node>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_even_number_of_servers_is_refused() {
        let changes = Changes {
            nodes: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            ..Changes::default()
        };
        assert!(Cluster::new(name("tb")).with(changes).unwrap_err().contains("odd"));
    }
}
