//! Taking a streamed answer out of the HTTP library once it has begun.
//!
//! The library keeps about 25 KB for each HTTP/1.1 connection, and decides nothing in the middle of an answer. It sends
//! the head and the first events. When the body has nothing more for now, the body goes into the [`Handover`]. The
//! connection takes it from there as soon as everything before it has left.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Frame, SizeHint};

/// Marks a response, among its extensions: the body is a stream of events and may be handed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed;

/// Holds the rest of a body until the connection takes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handover(Arc<Mutex<Option<Body>>>);

impl Handover {
    /// Takes the rest of a body, if there is one.
    pub(crate) fn take(&self) -> Option<Body> {
        self.lock().take()
    }

    /// Whether it holds the rest of a body.
    pub(crate) fn is_due(&self) -> bool {
        self.lock().is_some()
    }

    // A panic under the lock cannot leave the data half-changed.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Body>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body that the library gets.
pub(crate) enum Begun {
    /// The library sends all of it.
    All(Body),
    /// The rest is handed over; `None` once it was.
    Part(Option<Body>, Handover),
}

impl hyper::body::Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let (rest, handover) = match self.get_mut() {
            Self::All(body) => return Pin::new(body).poll_frame(cx),
            Self::Part(rest, handover) => (rest, handover),
        };
        // Whoever took the rest of the body wakes the task.
        let Some(body) = rest else { return Poll::Pending };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_pending() {
            *handover.lock() = rest.take();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::All(body) => body.is_end_stream(),
            Self::Part(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::All(body) => body.size_hint(),
            Self::Part(..) => SizeHint::default(),
        }
    }
}

/// Whether these headers, of a request or a response, close the connection.
pub(crate) fn says_close(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"close")))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_goes_the_usual_way_and_the_rest_is_handed_over() {
        let handover = Handover::default();
        let (send, rest) = tokio::sync::mpsc::channel::<Bytes>(4);
        send.send("a".into()).await.unwrap();
        let rest = stream::unfold(rest, |mut rest| async move { Some((rest.recv().await?, rest)) });
        let body = Body::from_stream(rest.map(Ok::<_, Infallible>));
        let mut begun = Begun::Part(Some(body), handover.clone());
        let first = begun.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "a");
        assert!(!handover.is_due());
        assert!(futures_util::FutureExt::now_or_never(begun.frame()).is_none());
        assert!(handover.is_due());
        send.send("b".into()).await.unwrap();
        drop(send);
        assert!(
            futures_util::FutureExt::now_or_never(begun.frame()).is_none(),
            "the connection has it now"
        );
        let rest = handover.take().unwrap().collect().await.unwrap();
        assert_eq!(rest.to_bytes(), "b");
        assert!(handover.take().is_none());
    }

    #[test]
    fn a_close_is_found_among_other_options() {
        let says = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONNECTION, HeaderValue::from_static(value));
            }
            says_close(&headers)
        };
        assert!(says(&["close"]) && says(&["TE, Close"]) && says(&["x", "keep-alive ,close"]));
        assert!(!says(&[]) && !says(&["keep-alive"]) && !says(&["closed"]));
    }
}
