//! The outlet of an HTTP/1.1 answer: events leave as chunks of its body.

use std::sync::Arc;
use std::time::Duration;

use tokenbus_http_parts::encode_chunk;

use crate::fast_path::splice::{Outlet, Sent};
use crate::fast_path::wire::Wire;
use crate::metrics::Histogram;

/// Sends events as chunks of an HTTP/1.1 body and records their inter-token latency.
#[derive(Debug)]
pub(crate) struct ChunkOutlet {
    pub(crate) wire: Arc<Wire>,
    pub(crate) pace: Option<Histogram>,
}

impl Outlet for ChunkOutlet {
    fn send(&self, events: &[u8], tokens: u64, gap: Duration, scratch: &mut Vec<u8>) -> Sent {
        if events.is_empty() {
            return Sent::All;
        }
        scratch.clear();
        encode_chunk(scratch, events);
        let sent = self.wire.send(scratch);
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
        let pace = Histogram::new(&[0.02, 1.0]);
        let chunks = ChunkOutlet {
            wire,
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
