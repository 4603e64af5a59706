//! How many connections may be open at once, and what those get that come on top.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::http::error::raw::TOO_MANY_CONNECTIONS;
use crate::http::limits::{FILES_KEPT, REFUSAL_WINDOW, REFUSED_AT_ONCE, REFUSED_FOR};
use crate::metrics::Metrics;

/// Connections that leave enough of `files` open files for NATS, for settings, and for telling those that are too many.
pub fn connections_within(files: u64) -> usize {
    let kept = (files / 8).clamp(*FILES_KEPT.start(), *FILES_KEPT.end());
    usize::try_from(files.saturating_sub(kept)).unwrap_or(usize::MAX).max(1)
}

/// The places for connections.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
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
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections().open.dec();
    }
}

impl Places {
    pub(crate) fn new(most: usize, metrics: Metrics) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        metrics.connections().limit.set(i64::try_from(most).unwrap_or(i64::MAX));
        Self {
            free: Arc::new(Semaphore::new(most)),
            refusing: Arc::new(Semaphore::new(REFUSED_AT_ONCE)),
            most,
            metrics,
            quiet_until: None,
        }
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn take(&mut self) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        self.metrics.connections().open.inc();
        Some(Place {
            _permit: permit,
            metrics: self.metrics.clone(),
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
                "as many connections are open as may be, and more are refused with 503; see --max-connections and the \
                 limit on open files"
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
}
