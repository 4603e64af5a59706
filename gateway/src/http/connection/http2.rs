//! An HTTP/2 connection: accepts its streams, and sends each one's answer.
//!
//! The frames are the `h2` library's. The layer above it is our own, because events must be able to pass the body's task
//! (see [`crate::fast_path::stream_wire`]).

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use crate::fast_path::bypass::ClientBypass;
use crate::fast_path::stream_wire::StreamWire;
use crate::http::connection::leftover::Leftover;
use crate::http::connection::socket::Socket;
use crate::http::limits::{HTTP2_HEADERS, HTTP2_PING, HTTP2_RESETS, HTTP2_SEND_BUFFER, HTTP2_STREAMS, HTTP2_WINDOW};
use crate::http::request::client_address::ClientAddress;
use crate::http::request::path;

/// Headers of HTTP/1.1 connections, which HTTP/2 forbids (RFC 9113, section 8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What is told to clients, and what bounds them.
pub fn settings() -> Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .initial_connection_window_size(HTTP2_WINDOW)
        .initial_window_size(HTTP2_WINDOW)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_pending_accept_reset_streams(HTTP2_RESETS)
        .max_local_error_reset_streams(Some(HTTP2_RESETS))
        .max_header_list_size(HTTP2_HEADERS)
        .max_send_buffer_size(HTTP2_SEND_BUFFER);
    settings
}

/// Serves `router` on `socket` until either side closes it. When `closing` is cancelled, no new stream begins, and the
/// running ones end.
///
/// # Errors
/// When the client broke the connection or the protocol.
pub(crate) async fn serve(
    socket: Socket,
    client: Option<ClientAddress>,
    router: &Router,
    closing: &CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = settings().handshake::<_, Bytes>(socket).await?;
    let router = TowerToHyperService::new(router.clone());
    let mut vanished = pin!(vanished(connection.ping_pong()));
    let mut closes = pin!(closing.cancelled());
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => {
                let Some(stream) = accepted else { return Ok(()) };
                let (request, respond) = stream?;
                let answer = answer((client, request), respond, router.clone(), closing.clone());
                // The task ends with its connection; nobody waits for it.
                drop(tokenbus_bus::task::spawn("http2-stream", answer));
            }
            () = closes.as_mut(), if !is_closing => {
                is_closing = true;
                // HTTP/2 has no `connection: close`; the client gets a GOAWAY and loses nothing by it.
                connection.graceful_shutdown();
            }
            () = vanished.as_mut() => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

/// Returns when the client does not answer a ping.
async fn vanished(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(HTTP2_PING).await;
        // An error is the connection's, which says so itself.
        if pings.send_ping(Ping::opaque()).is_err() {
            return std::future::pending().await;
        }
        let pong = poll_fn(|cx| pings.poll_pong(cx));
        match tokio::time::timeout(HTTP2_PING, pong).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Answers the request of one stream. A client that resets the stream cancels what it asked for.
async fn answer(
    (client, request): (Option<ClientAddress>, Request<RecvStream>),
    mut respond: SendResponse<Bytes>,
    router: TowerToHyperService<Router>,
    closing: CancellationToken,
) {
    let length = content_length(request.headers());
    let mut request = request.map(|stream| Leftover::new(RequestBody { stream, length }, closing));
    let wire = Arc::new(StreamWire::default());
    request
        .extensions_mut()
        .insert(ClientBypass(Arc::<StreamWire>::clone(&wire)));
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    path::rewrite(&mut request);
    let answered = tokio::select! {
        answered = router.call(request) => answered,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let Ok(response) = answered;
    let (mut head, body) = response.into_parts();
    for name in &OF_CONNECTIONS {
        head.headers.remove(name);
    }
    if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        head.headers.entry(DATE).or_insert(now);
    }
    let is_empty = body.is_end_stream();
    // An error means that the client has left; the request's record says what became of it.
    let Ok(stream) = respond.send_response(http::Response::from_parts(head, ()), is_empty) else {
        return;
    };
    if !is_empty {
        wire.begin(stream);
        if let Err(error) = send(body, &wire).await {
            tracing::debug!(%error, "an HTTP/2 stream ended");
        }
    }
}

/// Sends `body` to its end, or until the client has left.
async fn send(mut body: Body, wire: &StreamWire) -> Result<(), h2::Error> {
    loop {
        let next = poll_fn(|cx| {
            if wire.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(h2::Error::from(Reason::CANCEL)));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        });
        let frame = match next.await? {
            None => return wire.end(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer's body broke");
                wire.reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        };
        match frame.into_data() {
            Ok(mut data) => {
                poll_fn(|cx| match wire.poll_gone(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(Reason::CANCEL.into())),
                    Poll::Pending => wire.poll_send(cx, &mut data),
                })
                .await?;
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return wire.end(Some(trailers));
                }
            }
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A request's body.
struct RequestBody {
    stream: RecvStream,
    length: Option<u64>,
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.stream.poll_data(cx)).transpose()? {
            // Whoever asks for the next piece has room for it.
            self.stream.flow_control().release_capacity(data.len())?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
