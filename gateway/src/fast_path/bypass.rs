//! A way past the HTTP library to one client, and the outlet that uses it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::fast_path::splice::{Outlet, Sent};
use crate::metrics::Pace;

/// What lets events pass the HTTP library: an HTTP/1.1 connection or an HTTP/2 stream.
pub trait Bypass: Debug + Send + Sync {
    /// Call before the library gets something to write. Nothing passes until that has left.
    fn hold(&self);

    /// Sends `events` as a part of the body; `scratch` is a buffer to frame them in.
    fn send_events(&self, events: &[u8], scratch: &mut Vec<u8>) -> Sent;
}

/// The way past the library for a request's answer, among the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct ClientBypass(pub(crate) Arc<dyn Bypass>);

/// Sends events and records their inter-token latency.
#[derive(Debug)]
pub(crate) struct PacedOutlet {
    pub(crate) bypass: Arc<dyn Bypass>,
    pub(crate) pace: Option<Pace>,
}

impl Outlet for PacedOutlet {
    fn send(&self, events: &[u8], tokens: u64, gap: Duration, scratch: &mut Vec<u8>) -> Sent {
        if events.is_empty() {
            return Sent::All;
        }
        let sent = self.bypass.send_events(events, scratch);
        if let (Sent::All | Sent::Kept, Some(pace), true) = (sent, &self.pace, tokens > 0) {
            pace.observe(gap / u32::try_from(tokens).unwrap_or(u32::MAX), tokens);
        }
        sent
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::fast_path::wire::tests::{flush, pair};

    #[tokio::test]
    async fn a_chunk_has_its_length_and_its_pace_is_noted() {
        let (wire, mut client) = pair().await;
        flush(&wire).await;
        let pace = Pace::alone();
        let chunks = PacedOutlet {
            bypass: wire,
            pace: Some(pace.clone()),
        };
        let event = b"data: 0123456789abcdef\n\n";
        assert_eq!(
            chunks.send(event, 2, Duration::from_millis(20), &mut Vec::new()),
            Sent::All
        );
        assert_eq!(pace.count(), 2);
        drop(chunks);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "18\r\ndata: 0123456789abcdef\n\n\r\n");
    }
}
