//! Accepting connections, and ending them in good order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::{ACCEPT_PAUSE, HEADER_READ, HTTP2_PING, HTTP2_SEND_BUFFER, HTTP2_STREAMS, LAST_WORDS};
use super::socket::Socket;
use super::wire::ClientWire;

/// How serving ends, in this order.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Cancelled first: everything is still served, but HTTP/1 connections are asked to close with
    /// their next response, so that the next request is sent to another gateway.
    pub draining: CancellationToken,
    /// Then nothing more is accepted, and idle connections are closed.
    pub closing: CancellationToken,
    /// Time that running requests have from then on.
    pub grace: Duration,
}

/// Serves `router` on `listener` until `ending` says to close; then accepts nothing more, lets
/// running requests end within the grace period and returns. There is no cap on the number of
/// connections but the system's.
///
/// The core is expected to end what still runs after the grace period with an error of its own;
/// connections that outlive even that are cut, which every client sees as a broken stream.
pub async fn serve(listener: TcpListener, router: Router, ending: Ending) {
    let mut connections = JoinSet::new();
    let builder = Arc::new(builder());
    let mut pause = Pause::default();
    let grace = ending.grace;
    loop {
        tokio::select! {
            () = ending.closing.cancelled() => break,
            Some(ended) = connections.join_next() => check(ended),
            accepted = pause.accept(&listener) => match accepted {
                Ok((tcp, _)) => {
                    connections.spawn(connection(tcp, router.clone(), builder.clone(), ending.clone()));
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

/// Names the tasks that the HTTP library starts, one for each HTTP/2 stream.
#[derive(Debug, Clone, Copy)]
struct NamedTasks;

impl<F> hyper::rt::Executor<F> for NamedTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // The stream's task ends with its connection, which waits for nothing of it.
        drop(tokenbus_bus::task::spawn("http2-stream", future));
    }
}

fn builder() -> auto::Builder<NamedTasks> {
    let mut builder = auto::Builder::new(NamedTasks);
    builder
        .http1()
        // A chunk is small and its frame smaller: copying them together costs less than a vector.
        .writev(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

async fn connection(tcp: TcpStream, router: Router, builder: Arc<auto::Builder<NamedTasks>>, ending: Ending) {
    let Ending { draining, closing, .. } = ending;
    let socket = match Socket::new(tcp, closing.clone()) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%error, "connection was gone at once");
            return;
        }
    };
    let router = TowerToHyperService::new(router);
    let wire = ClientWire(Arc::clone(socket.wire()));
    let service = service_fn(move |mut request: Request<Incoming>| {
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(wire.clone());
        }
        // HTTP/2 has no such header; its connections are told at the closing, and lose nothing by it.
        let may_say_close = request.version() < Version::HTTP_2;
        let answering = router.call(request);
        let draining = draining.clone();
        async move {
            let mut response = answering.await?;
            if may_say_close && draining.is_cancelled() {
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            // Idle connections close now, others after the request that they carry.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that goes away; what it cost is in the request's own record.
        tracing::debug!(error, "connection ended");
    }
}

/// Pauses between failed accepts, doubling: without a file descriptor to spare the next accept
/// fails as well, at once.
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
            // The fault of that one connection; the next may be fine.
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
