//! HTTP/2: few connections with many requests on each. A task per connection reads it for all of them.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::header::CONTENT_TYPE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::broken::Broken;
use crate::failure::{Failure, Kind};
use crate::http1::{Framing, Head};
use crate::limits::{HTTP2_CONNECTION_WINDOW, HTTP2_STREAM_WINDOW};
use crate::socket::Stream;
use crate::target::Request;

/// The connections of one thread to one server; requests take turns.
pub(super) struct Pool {
    places: Vec<Place>,
    turn: AtomicUsize,
    /// The tasks that read and write the connections. They end with the pool.
    tasks: Mutex<JoinSet<()>>,
}

/// The place of one connection.
struct Place {
    /// Who holds it opens the connection; the others wait for that.
    opening: Semaphore,
    open: Mutex<Option<SendRequest<Bytes>>>,
}

impl Place {
    fn open(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Places for this many connections, none of which is open.
    pub(super) fn new(connections: usize) -> Self {
        let place = |_| Place {
            opening: Semaphore::new(1),
            open: Mutex::new(None),
        };
        Self {
            places: (0..connections.max(1)).map(place).collect(),
            turn: AtomicUsize::new(0),
            tasks: Mutex::new(JoinSet::new()),
        }
    }

    /// The next connection in turn, which `open` opens where it is not, or no longer.
    ///
    /// # Errors
    /// The error of `open`, or that of the handshake.
    pub(super) async fn next(&self, open: impl AsyncFnOnce() -> io::Result<Stream>) -> io::Result<Http2> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.places.len();
        let place = self
            .places
            .get(turn)
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let permit = place.opening.acquire().await;
        let kept = place.open().clone();
        if let Some(kept) = kept
            && let Ok(ready) = kept.ready().await
        {
            return Ok(Http2::new(ready));
        }
        let stream = open().await?;
        let handshake = Builder::new()
            .initial_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(stream);
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // Each request on the connection learns of its end by itself.
            let _ = connection.await;
        });
        drop(tasks);
        *place.open() = Some(sender.clone());
        drop(permit);
        Ok(Http2::new(sender))
    }
}

/// One place among the requests of a shared connection.
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    body: Option<RecvStream>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2").finish_non_exhaustive()
    }
}

impl Http2 {
    fn new(sender: SendRequest<Bytes>) -> Self {
        Self { sender, body: None }
    }

    /// Sends a request and awaits the head of the answer.
    ///
    /// # Errors
    /// [`Broken`] if no answer began.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Head, Broken> {
        self.body = None;
        let mut sender = self.sender.clone().ready().await.map_err(unsent)?;
        let (answer, mut stream) = sender.send_request(request.http2.clone(), false).map_err(unsent)?;
        stream.send_data(request.body.clone(), true).map_err(broken)?;
        let (head, body) = answer.await.map_err(broken)?.into_parts();
        self.body = Some(body);
        let content_type = head
            .headers
            .get(CONTENT_TYPE)
            .map_or(&b""[..], |value| value.as_bytes());
        let essence = content_type.split(|&b| b == b';').next().unwrap_or_default();
        Ok(Head {
            status: head.status.as_u16(),
            content_type: String::from_utf8_lossy(essence.trim_ascii()).to_ascii_lowercase(),
            framing: Framing::Close,
            keep_alive: true,
        })
    }

    /// As [`super::Conn::body`].
    ///
    /// # Errors
    /// [`Broken`], also when `take` refuses the body.
    pub(super) async fn body(
        &mut self,
        waited: &mut bool,
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<bool, Broken> {
        let Some(body) = &mut self.body else { return Ok(false) };
        let data = poll_fn(|cx| {
            let polled = body.poll_data(cx);
            *waited |= polled.is_pending();
            polled
        });
        let Some(data) = data.await else {
            self.body = None;
            return Ok(false);
        };
        let data = data.map_err(broken)?;
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
        take(&data).map_err(Broken::Refused)?;
        Ok(true)
    }

    /// Whether another request may be sent: the last answer was read to its end, and the connection is open.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.body.is_none() && self.sender.clone().ready().await.is_ok()
    }
}

/// A request that the connection did not take. The server may have closed it while it was idle.
fn unsent(error: h2::Error) -> Broken {
    Broken::Unsent(
        error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()),
    )
}

fn broken(error: h2::Error) -> Broken {
    let reason = error.reason();
    match reason {
        // The server says that it has not begun this request.
        Some(Reason::REFUSED_STREAM) => Broken::Unsent(io::Error::other(error)),
        Some(reason) => Broken::Refused(Failure::new(Kind::Reset, format!("{reason:?}"), error.to_string())),
        None => Broken::Io(
            error
                .into_io()
                .unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()),
        ),
    }
}
