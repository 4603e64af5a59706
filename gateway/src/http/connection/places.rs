//! How many connections may be open at once, and what those get that come on top.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::http::error::raw::TOO_MANY_CONNECTIONS;
use crate::http::limits::{FILES_KEPT, REFUSAL_WINDOW, REFUSED_AT_ONCE, REFUSED_FOR};
use crate::http::options::MostConnections;
use crate::metrics::Metrics;

/// Connections that leave enough of `files` open files for NATS, for settings, and for telling those that are too many.
pub fn connections_within(files: u64) -> usize {
    let kept = (files / 8).clamp(*FILES_KEPT.start(), *FILES_KEPT.end());
    usize::try_from(files.saturating_sub(kept)).unwrap_or(usize::MAX).max(1)
}

/// Open connections by network. Only networks that have some are in it, so it has no more entries than there are places.
type ByNetwork = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The places for connections.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    by_network: ByNetwork,
    per_address: usize,
    refusing: Arc<Semaphore>,
    most: usize,
    metrics: Metrics,
    quiet_until: Option<Instant>,
}

/// A taken place.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Metrics,
    network: Option<(IpAddr, ByNetwork)>,
}

/// The network that a connection from `address` counts for. Loopback and private addresses are those of an ingress, or of
/// people who share the machines' network: they count for none.
fn network(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let near = address.is_loopback() || address.is_private() || address.is_link_local() || shared;
            (!near).then_some(address.into())
        }
        IpAddr::V6(address) => {
            let near = address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local();
            let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            (!near).then_some(network.into())
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((network, by_network)) = &self.network {
            let mut open = by_network.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = open.get_mut(network) {
                *count -= 1;
                if *count == 0 {
                    open.remove(network);
                }
            }
        }
        self.metrics.connections().open.dec();
    }
}

impl Places {
    pub(crate) fn new(most: MostConnections, metrics: Metrics) -> Self {
        let per_address = most.per_address;
        let most = most.all.min(Semaphore::MAX_PERMITS);
        metrics.connections().limit.set(i64::try_from(most).unwrap_or(i64::MAX));
        Self {
            free: Arc::new(Semaphore::new(most)),
            by_network: ByNetwork::default(),
            per_address,
            refusing: Arc::new(Semaphore::new(REFUSED_AT_ONCE)),
            most,
            metrics,
            quiet_until: None,
        }
    }

    /// A place for one more connection from `address`, if there is one.
    pub(crate) fn take(&mut self, address: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let network = network(address);
        if let Some(network) = network {
            let mut open = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(network).or_default();
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
        }
        self.metrics.connections().open.inc();
        Some(Place {
            _permit: permit,
            metrics: self.metrics.clone(),
            network: network.map(|network| (network, Arc::clone(&self.by_network))),
        })
    }

    /// Counts a connection that gets no place, and returns what tells it so.
    pub(crate) fn refuse(&mut self, tcp: TcpStream) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.metrics.connections().refused.inc();
        let now = Instant::now();
        if self.quiet_until.is_none_or(|until| until <= now) {
            self.quiet_until = Some(now + REFUSAL_WINDOW);
            tracing::warn!(
                connections = self.most,
                per_address = self.per_address,
                "as many connections are open as may be, in all or from one address, and more are refused with 503; see \
                 --max-connections, --max-connections-per-address and the limit on open files"
            );
        }
        let permit = Arc::clone(&self.refusing).try_acquire_owned().ok()?;
        Some(async move {
            let _ = tokio::time::timeout(REFUSED_FOR, tell(tcp)).await;
            drop(permit);
        })
    }
}

/// Sends the refusal, and reads until the client has it: unread bytes would make the system reset the connection.
async fn tell(mut tcp: TcpStream) -> std::io::Result<()> {
    tcp.write_all(TOO_MANY_CONNECTIONS).await?;
    tcp.shutdown().await?;
    let mut waste = [0; 1024];
    loop {
        tcp.readable().await?;
        match tcp.try_read(&mut waste) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn some_open_files_are_kept_for_other_things() {
        assert_eq!(connections_within(1024), 1024 - 128);
        assert_eq!(connections_within(65_536), 65_536 - 1024);
        assert_eq!(connections_within(1 << 30), (1 << 30) - 1024);
        assert_eq!(connections_within(256), 256 - 96);
        assert_eq!(connections_within(0), 1);
    }

    #[test]
    fn one_public_address_takes_a_share_and_no_more() {
        let most = MostConnections { all: 8, per_address: 2 };
        let metrics = Metrics::default();
        let mut places = Places::new(most, metrics.clone());
        let mut take = |address: &str| places.take(address.parse().unwrap());
        let mut held = vec![take("8.8.8.8").unwrap(), take("::ffff:8.8.8.8").unwrap()];
        assert!(take("8.8.8.8").is_none(), "it has its share");
        held.extend(["2001:db8::1", "2001:db8::2"].map(|other| take(other).unwrap()));
        assert!(take("2001:db8::3").is_none(), "a network has one too");
        held.pop();
        held.push(take("2001:db8::3").unwrap());
        // Near ones are an ingress, and share what is left.
        for near in ["127.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"] {
            held.push(take(near).unwrap());
        }
        assert!(
            take("10.0.0.1").is_none() && take("1.1.1.1").is_none(),
            "all places are taken"
        );
        drop(held);
        assert!(places.by_network.lock().unwrap().is_empty());
        assert_eq!(metrics.connections().open.get(), 0);
    }

    #[test]
    fn near_addresses_count_for_no_network() {
        let of = |address: &str| network(address.parse().unwrap()).map(|network| network.to_string());
        for near in [
            "127.0.0.9",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert_eq!(of(near), None, "{near}");
        }
        assert_eq!(of("100.128.0.1").as_deref(), Some("100.128.0.1"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6").as_deref(), Some("2001:db8:1:2::"));
    }
}
