//! One client's connection, from its first byte to its last: which version of HTTP it speaks, one exchange after the
//! other, and streamed answers, which leave the HTTP library once they have begun (see [`crate::fast_path::handover`]).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Once};
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::fast_path::bypass::ClientBypass;
use crate::fast_path::handover::{Begun, Handover, Streamed, says_close};
use crate::fast_path::wire::Wire;
use crate::http::connection::chunked::Chunked;
use crate::http::connection::http2;
use crate::http::connection::presence::{Presence, Probe};
use crate::http::connection::socket::Socket;
use crate::http::connection::turn::{Phase, Turn, Until};
use crate::http::error::HttpError;
use crate::http::limits::{HEADER_BYTES, IDLE};
use crate::http::request::client_address::ClientAddress;
use crate::http::request::{dialect, path};

/// The first bytes of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The settings of HTTP/1.
pub(crate) fn http1() -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        // Chunks are small: copying a chunk and its frame together is cheaper than a vectored write.
        .writev(false)
        // The presence of the client is watched here: it may end its side and wait for its answer.
        .half_close(true)
        .max_buf_size(HEADER_BYTES)
        .timer(TokioTimer::new())
        // This also bounds the silence between two requests. Heads have a shorter limit of their own.
        .header_read_timeout(IDLE);
    http1
}

/// Serves one client's connection.
pub(crate) struct Connection {
    pub(crate) router: Router,
    pub(crate) http1: http1::Builder,
    pub(crate) draining: CancellationToken,
    pub(crate) closing: CancellationToken,
}

impl Connection {
    /// Serves `tcp` until either side closes it.
    pub(crate) async fn serve(self, tcp: TcpStream) {
        if let Err(error) = self.exchanges(tcp).await {
            // Usually the client went away; the request's record says what became of it.
            tracing::debug!(error, "connection ended");
        }
    }

    async fn exchanges(&self, tcp: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // A client that has given up while it waited to be accepted has no address any more: what it asked for is not
        // even read.
        let client = Some(ClientAddress(tcp.peer_addr()?.ip()));
        let mut socket = Socket::new(tcp, self.closing.clone())?;
        match self.unless_closing(preface(&mut socket)).await.transpose()? {
            Some(Some(false)) => {}
            Some(Some(true)) => return Box::pin(http2::serve(socket, client, &self.router, &self.closing)).await,
            Some(None) | None => return Ok(()),
        }
        loop {
            // Boxed, so that the library's state is freed while an answer is streamed.
            let Some((back, rest)) = Box::pin(self.http1(socket, client)).await? else {
                return Ok(());
            };
            let turn = Arc::clone(back.turn());
            turn.set(Phase::Answer(Probe::Zero));
            socket = Chunked::new(back, rest).send().await?;
            turn.set(Phase::Head);
            if self.closing.is_cancelled() {
                return Ok(socket.shutdown().await?);
            }
            // The library and its buffers come back with the next request.
            match self.unless_closing(Box::pin(next(&mut socket))).await.transpose()? {
                Some(true) => {}
                Some(false) => return Ok(socket.shutdown().await?),
                None => return Ok(()),
            }
        }
    }

    /// The result of `future`, or `None` if the gateway closes first.
    async fn unless_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.closing.run_until_cancelled(future).await
    }

    /// Serves HTTP/1 until the connection ends or an answer is handed over. Returns the answer's rest then, and the
    /// socket, on which everything before the rest has left.
    async fn http1(&self, socket: Socket, client: Option<ClientAddress>) -> hyper::Result<Option<(Socket, Body)>> {
        let handover = Handover::default();
        let (wire, turn) = (Arc::clone(socket.wire()), Arc::clone(socket.turn()));
        let service = self.service(client, (&wire, &turn), &handover);
        let mut connection = self.http1.serve_connection(TokioIo::new(socket), service);
        let mut closing = pin!(self.closing.cancelled());
        let mut closes = false;
        let mut presence = Presence::default();
        let handed_over = std::future::poll_fn(|cx| {
            if !closes && closing.as_mut().poll(cx).is_ready() {
                // Idle connections close now, others after the request that they carry.
                Pin::new(&mut connection).graceful_shutdown();
                closes = true;
            }
            match Pin::new(&mut connection).poll(cx) {
                Poll::Pending if handover.is_due() && wire.is_clean() => return Poll::Ready(Ok(true)),
                Poll::Pending => {}
                Poll::Ready(ended) => return Poll::Ready(ended.map(|()| false)),
            }
            let Phase::Answer(probe) = turn.phase() else {
                return Poll::Pending;
            };
            // What a client that has left asked for ends with the connection.
            presence.poll_gone(cx, &wire, probe).map(|_| Ok(false))
        })
        .await?;
        let rest = handover.take().filter(|_| handed_over);
        Ok(rest.map(|rest| {
            let parts = connection.into_parts();
            let mut socket = parts.io.into_inner();
            socket.give_back(&parts.read_buf);
            (socket, rest)
        }))
    }

    /// Answers the requests of an HTTP/1 connection; the rest of a stream goes to `handover`.
    fn service(
        &self,
        address: Option<ClientAddress>,
        (wire, turn): (&Arc<Wire>, &Arc<Turn>),
        handover: &Handover,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = http::Response<Until<Begun>>,
        Error = Infallible,
        Future: Send,
    > + use<> {
        let (client, turn, rest) = (
            ClientBypass(Arc::<Wire>::clone(wire)),
            Arc::clone(turn),
            handover.clone(),
        );
        let router = TowerToHyperService::new(self.router.clone());
        let draining = self.draining.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let version = request.version();
            let mut stays = version == Version::HTTP_11;
            if stays {
                request.extensions_mut().insert(client.clone());
            }
            if let Some(address) = address {
                request.extensions_mut().insert(address);
            }
            stays &= !says_close(request.headers());
            path::rewrite(&mut request);
            let refusal = turn
                .is_ambiguous()
                .then(|| dialect::refuse(&request, &HttpError::TwoLengths));
            let probe = |probe| {
                if version == Version::HTTP_11 {
                    probe
                } else {
                    Probe::None
                }
            };
            turn.set(Phase::Body);
            let waits = Phase::Answer(probe(Probe::Interim));
            let request = request.map(|body| Until::new(body, Arc::clone(&turn), waits));
            let answer = match refusal {
                None => Ok(router.call(request)),
                Some(refusal) => Err(refusal),
            };
            let (draining, rest, client, turn) = (draining.clone(), rest.clone(), client.clone(), Arc::clone(&turn));
            let streams = Phase::Answer(probe(Probe::Zero));
            async move {
                let mut response = match answer {
                    Ok(answer) => answer.await?,
                    Err(refusal) => refusal,
                };
                let is_stream = response.extensions().get::<Streamed>().is_some();
                turn.set(if is_stream { streams } else { Phase::Write });
                if version < Version::HTTP_11 && is_stream {
                    warn_of_old_http();
                }
                if draining.is_cancelled() {
                    let headers = response.headers_mut();
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                stays &= !says_close(response.headers());
                let begun = begun(response, stays.then_some((rest, client)));
                Ok::<_, Infallible>(begun.map(|body| Until::new(body, turn, Phase::Head)))
            }
        })
    }
}

/// Warns, once, of a stream whose client cannot tell its end from a break.
fn warn_of_old_http() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "a stream is sent over HTTP/1.0, where an answer ends with its connection: if this gateway dies, half an \
             answer looks like a whole one. Behind nginx, set proxy_http_version 1.1"
        );
    });
}

/// The response for the library; the rest of a stream goes to `handover`, if there is one.
fn begun(response: Response, handover: Option<(Handover, ClientBypass)>) -> http::Response<Begun> {
    let handover = handover.filter(|_| response.extensions().get::<Streamed>().is_some());
    response.map(|body| match handover {
        None => Begun::All(body),
        Some((handover, wire)) => {
            // The wire is clean again only when the head has left.
            wire.0.hold();
            Begun::Part(Some(body), handover)
        }
    })
}

/// Reads the first bytes: true for HTTP/2, `None` if the client sends none.
async fn preface(socket: &mut Socket) -> io::Result<Option<bool>> {
    loop {
        let more = std::future::poll_fn(|cx| socket.poll_ahead(cx)).await?;
        let first = socket.unread();
        let compared = first.len().min(PREFACE.len());
        if first.get(..compared) != PREFACE.get(..compared) {
            return Ok(Some(false));
        }
        if compared == PREFACE.len() {
            return Ok(Some(true));
        }
        if !more {
            return Ok((!first.is_empty()).then_some(false));
        }
    }
}

/// Waits for the next request; false if none comes.
async fn next(socket: &mut Socket) -> io::Result<bool> {
    match socket.wire().take_ahead() {
        Some(ahead) => socket.take_in(&ahead),
        None => return Ok(false),
    }
    if !socket.unread().is_empty() {
        return Ok(true);
    }
    let ahead = std::future::poll_fn(|cx| socket.poll_ahead(cx));
    match tokio::time::timeout(IDLE, ahead).await {
        Ok(more) => more,
        Err(_) => Ok(false),
    }
}
