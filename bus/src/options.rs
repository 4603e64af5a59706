//! How to reach NATS.

use std::path::PathBuf;

use crate::address::{Address, OptionsError, redact};
use crate::replicas::Replicas;

/// How to reach NATS. `Default` is one server on loopback.
#[derive(Debug, Clone)]
pub struct BusOptions {
    /// Servers, `nats://[user:password@|token@]host[:port]`, `tls://…`, `ws://…` or `wss://…`. They are tried in this
    /// order, at the start and after a lost connection; the first that answers is used.
    pub urls: Vec<String>,
    /// A NATS credentials file: a JWT and a seed, or an nkey's seed alone. It is read for each connection.
    pub credentials: Option<PathBuf>,
    /// PEM file with certificate authorities that are trusted in addition to the system's.
    pub tls_ca: Option<PathBuf>,
    /// Whether servers want TLS before they say anything (`handshake_first`). `false` finds out for `tls://` servers
    /// that can be reached at the start.
    pub tls_first: bool,
    /// Name of this connection in the server's monitoring.
    pub name: String,
    /// Replicas of streams and buckets in JetStream.
    pub replicas: Replicas,
    /// The domain of the JetStream to use, where these servers are leaf nodes: that of the servers that they lead to.
    /// `None` is the servers' own JetStream.
    pub jetstream_domain: Option<String>,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            credentials: None,
            tls_ca: None,
            tls_first: false,
            name: "tokenbus".to_owned(),
            replicas: Replicas::default(),
            jetstream_domain: None,
        }
    }
}

impl BusOptions {
    /// The same options under another connection name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The servers for logs, without user and password.
    pub fn display_urls(&self) -> String {
        self.urls.iter().map(|url| redact(url)).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn addresses(&self) -> Result<Vec<Address>, OptionsError> {
        if self.urls.is_empty() {
            return Err(OptionsError::NoServer);
        }
        let mut addresses: Vec<Address> = Vec::with_capacity(self.urls.len());
        for url in &self.urls {
            let address = Address::parse(url)?;
            // The dialer tells servers by their addresses.
            if addresses.iter().all(|other| other.server != address.server) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let options = BusOptions {
            urls: vec!["nats://user:p@ss@h:4222".into(), "token@h2".into(), "tls://h3".into()],
            ..BusOptions::default()
        };
        assert_eq!(options.display_urls(), "nats://h:4222,h2,tls://h3");
    }

    #[test]
    fn nonsense_is_refused() {
        let none = BusOptions {
            urls: vec![],
            ..BusOptions::default()
        };
        assert!(matches!(none.addresses(), Err(OptionsError::NoServer)));
        let bad = BusOptions {
            urls: vec!["http://x".into()],
            ..BusOptions::default()
        };
        assert!(matches!(bad.addresses(), Err(OptionsError::Url { .. })));
    }
}
