//! Tells a client that has left from one that has only ended its side and still reads (a half-close).
//!
//! TCP says the same of both: the client sends no more. They differ in what they do with a byte of ours. The system of
//! a client that has left answers it with a reset; one that still reads takes it. So a client that has ended its side
//! is sent bytes that mean nothing, at once and then now and then.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::Interest;
use tokio::time::Sleep;

use crate::fast_path::splice::Sent;
use crate::fast_path::wire::Wire;
use crate::http::limits::{PROBE_PAUSE, PROBE_ZEROS};

/// What a client that has ended its side may be sent without changing its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nothing (HTTP/1.0): it counts as gone.
    None,
    /// A preliminary answer, while nothing of the answer has left.
    Interim,
    /// A leading zero of the next chunk's size, between the chunks of an answer.
    Zero,
}

impl Probe {
    fn bytes(self, sent: u32) -> Option<&'static [u8]> {
        match self {
            Self::Interim => Some(b"HTTP/1.1 100 Continue\r\n\r\n"),
            // Readers bound the digits of a size. The comments of a silent stream tell later on.
            Self::Zero if sent < PROBE_ZEROS => Some(b"0"),
            Self::Zero => Some(b""),
            Self::None => None,
        }
    }
}

/// Watches one client that is being answered.
#[derive(Default)]
pub(crate) struct Presence(Option<HalfClosed>);

/// A client that has ended its side.
struct HalfClosed {
    reset: Pin<Box<dyn Future<Output = ()> + Send>>,
    pause: Pin<Box<Sleep>>,
    length: Duration,
    probes: u32,
}

impl HalfClosed {
    fn new(wire: &Arc<Wire>) -> Self {
        let wire = Arc::clone(wire);
        Self {
            reset: Box::pin(async move {
                // An error tells as much as a reset.
                let _ = wire.tcp().ready(Interest::ERROR).await;
            }),
            pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
            length: *PROBE_PAUSE.start(),
            probes: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, wire: &Wire, probe: Probe) -> Poll<io::Error> {
        if self.reset.as_mut().poll(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionReset.into());
        }
        while self.pause.as_mut().poll(cx).is_ready() {
            let Some(bytes) = probe.bytes(self.probes) else {
                return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
            };
            // Bytes of the answer that have not left tell as well.
            if !bytes.is_empty() && wire.send(bytes) == Sent::Broken {
                return Poll::Ready(io::ErrorKind::BrokenPipe.into());
            }
            self.probes += 1;
            self.pause.as_mut().reset(tokio::time::Instant::now() + self.length);
            self.length = (self.length * 2).min(*PROBE_PAUSE.end());
        }
        Poll::Pending
    }
}

impl Presence {
    /// Ready when the client has left. What it sends meanwhile is kept for its next request, within a bound.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, wire: &Arc<Wire>, probe: Probe) -> Poll<io::Error> {
        loop {
            if let Some(half) = &mut self.0 {
                return half.poll(cx, wire, probe);
            }
            match wire.poll_ahead(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.0 = Some(HalfClosed::new(wire)),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::fast_path::wire::tests::{flush, pair};

    async fn gone(wire: &Arc<Wire>, probe: Probe) -> io::Error {
        let mut presence = Presence::default();
        let gone = std::future::poll_fn(|cx| presence.poll_gone(cx, wire, probe));
        tokio::time::timeout(Duration::from_secs(1), gone).await.unwrap()
    }

    async fn stays(wire: &Arc<Wire>, probe: Probe) -> bool {
        let mut presence = Presence::default();
        let gone = std::future::poll_fn(|cx| presence.poll_gone(cx, wire, probe));
        tokio::time::timeout(Duration::from_millis(300), gone).await.is_err()
    }

    async fn clean_pair() -> (Arc<Wire>, TcpStream) {
        let (wire, client) = pair().await;
        flush(&wire).await;
        (wire, client)
    }

    #[tokio::test]
    async fn a_client_that_closes_is_gone_whatever_it_has_sent_before() {
        for surplus in [0, 2, 70_000, 3_000_000] {
            for probe in [Probe::None, Probe::Interim, Probe::Zero] {
                let (wire, mut client) = clean_pair().await;
                let leaves = async {
                    client.write_all(&vec![b'\n'; surplus]).await.unwrap();
                    drop(client);
                };
                tokio::join!(leaves, gone(&wire, probe));
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_only_ends_its_side_stays_and_its_answer_is_unharmed() {
        for (probe, meant) in [(Probe::Interim, "HTTP/1.1 100 Continue\r\n\r\n"), (Probe::Zero, "0")] {
            let (wire, mut client) = clean_pair().await;
            client.shutdown().await.unwrap();
            assert!(stays(&wire, probe).await, "{probe:?}");
            assert_eq!(wire.send(b"5\r\nhello\r\n"), Sent::All);
            drop(wire);
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, format!("{meant}5\r\nhello\r\n"));
        }
        let (wire, mut client) = clean_pair().await;
        client.shutdown().await.unwrap();
        gone(&wire, Probe::None).await;
    }

    #[tokio::test]
    async fn a_client_that_leaves_after_it_has_ended_its_side_is_noticed() {
        let (wire, mut client) = clean_pair().await;
        client.shutdown().await.unwrap();
        let leaves = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(client);
        };
        let mut presence = Presence::default();
        let gone = std::future::poll_fn(|cx| presence.poll_gone(cx, &wire, Probe::Interim));
        let (_, gone) = tokio::join!(leaves, tokio::time::timeout(PROBE_PAUSE.start().mul_f32(2.0), gone));
        gone.unwrap();
    }
}
