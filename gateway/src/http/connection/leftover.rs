//! Reads and discards the rest of an HTTP/2 request's body after the answer, within bounds.
//!
//! If a body is dropped while the client sends, the HTTP library cancels the whole stream, and the client sees that
//! before the answer or instead of it. An HTTP/1.1 connection is closed and lingers: see [`crate::http::connection::socket`].

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::http::limits::{LINGER, LINGER_BYTES, LINGER_IDLE};

/// A request's body that is read to its end even if it is dropped.
pub(crate) struct Leftover<B: Body<Data = Bytes> + Unpin + Send + 'static> {
    body: Option<B>,
    closing: CancellationToken,
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Leftover<B> {
    /// Reads no further once `closing` is cancelled.
    pub(crate) fn new(body: B, closing: CancellationToken) -> Self {
        Self {
            body: Some(body),
            closing,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Body for Leftover<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Drop for Leftover<B> {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let closing = self.closing.clone();
        // The task ends with its connection, with the body, or at its bounds; nobody waits for it.
        drop(tokenbus_bus::task::spawn("http2-leftover", async move {
            let read = tokio::time::timeout(LINGER, discard(body));
            closing.run_until_cancelled(read).await
        }));
    }
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut bytes = LINGER_BYTES;
    while bytes > 0 {
        match tokio::time::timeout(LINGER_IDLE, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes = bytes.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
            Ok(Some(Err(_)) | None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// A body, and what sends it; the sender notices when the body is dropped.
    fn channel(closing: &CancellationToken) -> (mpsc::Sender<Bytes>, impl Body<Data = Bytes> + use<>) {
        let (send, receive) = mpsc::channel::<Bytes>(1);
        let frames = stream::unfold(
            receive,
            |mut receive| async move { Some((receive.recv().await?, receive)) },
        );
        let frames = frames.map(|data| Ok::<_, Infallible>(Frame::data(data))).boxed();
        (send, Leftover::new(StreamBody::new(frames), closing.clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_read_on_until_its_end_or_its_bounds() {
        let closing = CancellationToken::new();
        let (send, body) = channel(&closing);
        drop(body);
        for _ in 0..9 {
            send.send("x".into()).await.unwrap();
        }
        let start = Instant::now();
        send.closed().await;
        assert!(
            start.elapsed() >= LINGER_IDLE && start.elapsed() < LINGER,
            "it was silent"
        );

        let (send, body) = channel(&closing);
        drop(body);
        let piece = Bytes::from(vec![0; 16 << 20]);
        let mut sent = 0;
        while send.send(piece.clone()).await.is_ok() {
            sent += piece.len();
        }
        assert!((LINGER_BYTES..LINGER_BYTES + 4 * piece.len()).contains(&sent), "{sent}");

        let (send, body) = channel(&closing);
        drop(body);
        let start = Instant::now();
        while send.send("x".into()).await.is_ok() {
            tokio::time::sleep(LINGER_IDLE / 2).await;
        }
        assert!(start.elapsed() >= LINGER && start.elapsed() < LINGER * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_closes_awaits_nothing() {
        let closing = CancellationToken::new();
        let (send, body) = channel(&closing);
        drop(body);
        closing.cancel();
        let start = Instant::now();
        send.closed().await;
        assert_eq!(start.elapsed(), std::time::Duration::ZERO);
    }

    #[tokio::test]
    async fn a_body_that_was_read_is_done() {
        let (send, mut body) = channel(&CancellationToken::new());
        send.send("x".into()).await.unwrap();
        drop(send);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.is_none() && body.is_end_stream());
        assert!(body.frame().now_or_never().unwrap().is_none());
    }
}
