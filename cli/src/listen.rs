//! `--listen`: an address to bind, and the errors of binding it.

use std::io;
use std::str::FromStr;

use tokio::net::TcpListener;

/// `HOST:PORT`, where the port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen(String);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err("write it as HOST:PORT, like 127.0.0.1:8080 or 0.0.0.0:8080".to_owned())
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}; choose another address with --listen HOST:PORT")]
pub(crate) struct ListenError {
    address: Listen,
    reason: String,
}

impl Listen {
    /// Whether the port is 0.
    pub(crate) fn lets_the_system_choose(&self) -> bool {
        self.0.ends_with(":0")
    }

    /// Whether only this machine can reach it. A name without an address counts as such: nothing can listen on it.
    pub(crate) async fn is_loopback(&self) -> bool {
        self.loopback().await.unwrap_or(true)
    }

    /// Whether others cannot reach it by this address; they may know that of a name without an address here.
    pub(crate) async fn is_private(&self) -> bool {
        self.loopback().await.unwrap_or(false)
    }

    async fn loopback(&self) -> Option<bool> {
        let mut addresses = tokio::net::lookup_host(&self.0).await.ok()?;
        Some(addresses.all(|address| address.ip().to_canonical().is_loopback()))
    }

    /// Binds the address.
    ///
    /// # Errors
    /// [`ListenError`] if it is in use, not an address of this machine, or not allowed.
    pub(crate) async fn bind(&self) -> Result<TcpListener, ListenError> {
        TcpListener::bind(&self.0).await.map_err(|error| ListenError {
            address: self.clone(),
            reason: reason(&error),
        })
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program uses this port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not (ports below 1024 need more rights)".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in ["127.0.0.1:8080", "localhost:0", "[::1]:80", "0.0.0.0:65535"] {
            assert_eq!(right.parse::<Listen>().unwrap().to_string(), right);
        }
        for wrong in ["8080", ":8080", "localhost", "localhost:http", "x:70000", ""] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn loopback_is_told_from_what_others_can_reach() {
        let is_loopback = async |text: &str| text.parse::<Listen>().unwrap().is_loopback().await;
        for own in [
            "127.0.0.1:0",
            "127.8.9.1:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "localhost:1",
        ] {
            assert!(is_loopback(own).await, "{own}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[::ffff:0.0.0.0]:80"] {
            assert!(!is_loopback(open).await, "{open}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_names_the_flag() {
        let first = "127.0.0.1:0".parse::<Listen>().unwrap().bind().await.unwrap();
        let taken: Listen = first.local_addr().unwrap().to_string().parse().unwrap();
        let error = taken.bind().await.unwrap_err().to_string();
        assert!(
            error.contains("another program uses this port") && error.contains("--listen"),
            "{error}"
        );
    }
}
