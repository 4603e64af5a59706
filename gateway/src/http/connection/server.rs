//! Accepts connections, and ends them in order at a shutdown.

use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::connection::exchanges::{Connection, http1};
use crate::http::connection::places::Places;
pub use crate::http::connection::places::connections_within;
use crate::http::limits::{ACCEPT_PAUSE, LAST_WORDS};
use crate::http::options::MostConnections;
use crate::metrics::Metrics;

/// How serving ends: first `draining`, then `closing`, then the grace.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Cancelled first. Everything is still served, but HTTP/1 connections close with their next response, so that the
    /// next request goes to another gateway.
    pub draining: CancellationToken,
    /// Cancelled second. No connection is accepted any more, and idle ones are closed.
    pub closing: CancellationToken,
    /// Time that running requests have after `closing`.
    pub grace: Duration,
}

impl Ending {
    /// Of a server that goes on.
    pub fn new(grace: Duration) -> Self {
        Self {
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            grace,
        }
    }
}

/// Serves `router` on `listener` until `ending` closes it, lets running requests end within the grace, and returns.
/// No more connections are open at once than `most` allows.
///
/// After the grace the core ends running requests with an error. Connections that outlive even that are cut, which the
/// client sees as a broken stream.
pub async fn serve(listener: TcpListener, router: Router, (most, metrics): (MostConnections, Metrics), ending: Ending) {
    let mut places = Places::new(most, metrics);
    let mut connections = JoinSet::new();
    let http1 = http1();
    let mut pause = Pause::default();
    let grace = ending.grace;
    loop {
        tokio::select! {
            () = ending.closing.cancelled() => break,
            Some(ended) = connections.join_next() => check(ended),
            accepted = pause.accept(&listener) => match accepted {
                Ok((tcp, from)) => {
                    let Some(place) = places.take(from.ip()) else {
                        if let Some(told) = places.refuse(tcp) {
                            connections.spawn(told);
                        }
                        continue;
                    };
                    let connection = Connection {
                        router: router.clone(),
                        http1: http1.clone(),
                        draining: ending.draining.clone(),
                        closing: ending.closing.clone(),
                    };
                    connections.spawn(async move {
                        connection.serve(tcp).await;
                        drop(place);
                    });
                }
                Err(error) => tracing::warn!(%error, pause = ?pause.length, "cannot accept a connection"),
            },
        }
    }
    drop(listener);
    tracing::info!(
        connections = connections.len(),
        ?grace,
        "no longer accepting connections"
    );
    let all = async {
        while let Some(ended) = connections.join_next().await {
            check(ended);
        }
    };
    if tokio::time::timeout(grace + LAST_WORDS, all).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "grace period is over, cutting connections"
        );
    }
    connections.shutdown().await;
}

fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// Pauses between failed accepts, doubling: without a free file descriptor the next accept fails at once too.
#[derive(Debug, Default)]
struct Pause {
    length: Duration,
    until: Option<Instant>,
}

impl Pause {
    async fn accept(&mut self, listener: &TcpListener) -> io::Result<(TcpStream, std::net::SocketAddr)> {
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
        }
        let accepted = listener.accept().await;
        self.note(accepted.as_ref().err().map(io::Error::kind), Instant::now());
        accepted
    }

    fn note(&mut self, failure: Option<io::ErrorKind>, now: Instant) {
        match failure {
            None => *self = Self::default(),
            // Only this connection failed; the next may be fine.
            Some(
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused,
            ) => self.until = None,
            Some(_) => {
                self.length = (self.length * 2).clamp(*ACCEPT_PAUSE.start(), *ACCEPT_PAUSE.end());
                self.until = Some(now + self.length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failed_accepts_pause_longer_and_longer_up_to_a_bound() {
        let now = Instant::now();
        let mut pause = Pause::default();
        let mut lengths = Vec::new();
        for _ in 0..10 {
            pause.note(Some(io::ErrorKind::Other), now);
            assert_eq!(pause.until, Some(now + pause.length));
            lengths.push(pause.length);
        }
        assert_eq!(lengths.first(), Some(ACCEPT_PAUSE.start()));
        assert_eq!(lengths.last(), Some(ACCEPT_PAUSE.end()));
        assert!(lengths.is_sorted());
        pause.note(Some(io::ErrorKind::ConnectionAborted), now);
        assert_eq!(pause.until, None);
        pause.note(None, now);
        assert_eq!(pause.length, Duration::ZERO);
    }
}
