//! A tap on hyper's connections: bodies of streamed answers bypass hyper.
//!
//! Through the library a token wakes two tasks, is handed over in a channel and leaves a small buffer of its
//! own behind. Through the tap it wakes the task that wants it, which reads it from the socket.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use http::{Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tower_service::Service;

use super::line::Line;
use crate::sync::lock;

/// Makes connections that can be tapped.
#[derive(Debug, Clone)]
pub(crate) struct Connector(pub(crate) HttpConnector);

impl Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move { Ok(TokioIo::new(Socket::new(connecting.await?.into_inner()))) })
    }
}

/// A connection, as the library has it.
#[derive(Debug)]
pub(crate) struct Socket {
    tap: Tap,
    out: OwnedWriteHalf,
}

impl Socket {
    fn new(tcp: TcpStream) -> Self {
        let (incoming, out) = tcp.into_split();
        Self {
            tap: Tap(Arc::new(Mutex::new(Line::new(incoming)))),
            out,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.tap.line().close();
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.tap.clone())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.tap.line().poll_http(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.tap.line().sends(bytes);
        Pin::new(&mut self.out).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tap.line().sends(bytes.first().map_or(&[], |first| first));
        Pin::new(&mut self.out).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.out.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.out).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.out).poll_shutdown(cx)
    }
}

/// The tap of one connection.
#[derive(Debug, Clone)]
struct Tap(Arc<Mutex<Line<OwnedReadHalf>>>);

impl Tap {
    fn line(&self) -> MutexGuard<'_, Line<OwnedReadHalf>> {
        lock(&self.0)
    }
}

/// The body of a streamed answer. Dropping it before its end closes the connection.
#[derive(Debug)]
pub(crate) struct TappedBody {
    tap: Tap,
    number: u64,
    /// Empty for the library; it is what keeps the connection for this answer.
    library: Incoming,
}

impl TappedBody {
    /// The body of `answer`, or the library's where it is not tapped.
    pub(crate) fn of(answer: Response<Incoming>) -> Response<Result<Self, Incoming>> {
        let (mut head, library) = answer.into_parts();
        let tapped = head.extensions.remove::<Tap>().and_then(|tap| {
            let number = tap.line().tapped()?;
            Some((number, tap))
        });
        let body = match tapped {
            Some((number, tap)) => Ok(Self { tap, number, library }),
            None => Err(library),
        };
        Response::from_parts(head, body)
    }

    /// Waits for bytes and gives them to `take`. `None` at the end.
    pub(crate) async fn feed(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) -> Option<io::Result<()>> {
        match poll_fn(|cx| self.tap.line().poll_body(self.number, cx, take)).await {
            Ok(true) => Some(Ok(())),
            Ok(false) => {
                // The library gets to see the end, and with it the connection its next request.
                let end = self.library.frame().await?;
                Some(end.map(|_nothing| ()).map_err(io::Error::other))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#[path = "tap_tests.rs"]
mod tests;
