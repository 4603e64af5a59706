//! A client's socket with bounds that the HTTP library lacks: on the first bytes of a connection, on a client that does
//! not read, and on a close that the client does not answer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::fast_path::wire::Wire;
use crate::http::connection::turn::Turn;
use crate::http::error::raw::REQUEST_TIMEOUT;
use crate::http::limits::{
    AHEAD, HEADER_TIME, LINGER, LINGER_BYTES, LINGER_IDLE, OPENING, OPENING_BYTES, UNACKNOWLEDGED, WRITE_STALL,
};

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    wire: Arc<Wire>,
    /// Bytes read ahead; the HTTP library gets them first.
    unread: BytesMut,
    opening: Option<Bounded>,
    turn: Arc<Turn>,
    /// Runs while a head has begun and is not whole.
    head_timer: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
    closing: Option<Box<Lingering>>,
    shutdown: CancellationToken,
}

/// The opening phase: ends after a time or after a number of bytes.
#[derive(Debug)]
struct Bounded {
    timer: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Bounded {
    fn new(time: Duration, bytes: usize) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(time)),
            bytes,
        }
    }
}

/// Reads on after our side has closed. Ends after a time, a number of bytes, a silence, or when the gateway closes.
struct Lingering {
    until: Instant,
    silence: Pin<Box<Sleep>>,
    bytes: usize,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Lingering {
    fn new(shutdown: CancellationToken) -> Self {
        Self {
            until: Instant::now() + LINGER,
            silence: Box::pin(tokio::time::sleep(LINGER_IDLE)),
            bytes: LINGER_BYTES,
            shutdown: Box::pin(shutdown.cancelled_owned()),
        }
    }

    /// `count` bytes came.
    fn note(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        let silent = (Instant::now() + LINGER_IDLE).min(self.until);
        self.silence.as_mut().reset(silent);
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes == 0 || self.shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.silence.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Lingering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lingering")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl Socket {
    /// Takes over `tcp`. Once `shutdown` is cancelled, closing does not linger: clients keep idle connections open for
    /// long, and nothing is lost on them.
    ///
    /// # Errors
    /// If the system refuses the socket's options, because the client has gone already.
    pub(crate) fn new(tcp: TcpStream, shutdown: CancellationToken) -> io::Result<Self> {
        // A token must leave at once, not when the one before it was acknowledged.
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(UNACKNOWLEDGED)
                .with_interval(UNACKNOWLEDGED / 3),
        )?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        Ok(Self {
            wire: Arc::new(Wire::new(tcp)),
            unread: BytesMut::new(),
            opening: Some(Bounded::new(OPENING, OPENING_BYTES)),
            turn: Arc::default(),
            head_timer: None,
            stalled: None,
            closing: None,
            shutdown,
        })
    }

    /// The wire, to send past the HTTP library.
    pub(crate) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// How far the connection is with its request.
    pub(crate) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// The bytes read ahead.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Puts back bytes that the library read of the next request; they go before the bytes read ahead.
    pub(crate) fn give_back(&mut self, bytes: &[u8]) {
        let behind = std::mem::replace(&mut self.unread, BytesMut::from(bytes));
        self.unread.extend_from_slice(&behind);
    }

    /// Takes in bytes that were read during the last answer.
    pub(crate) fn take_in(&mut self, ahead: &[u8]) {
        self.unread.extend_from_slice(ahead);
    }

    /// Reads the beginning of the next request, as far as it is there; false if the client has closed its side.
    pub(crate) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); AHEAD];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(self.poll_wire(cx, &mut buffer))?;
        self.unread.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!buffer.filled().is_empty()))
    }

    fn poll_wire(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.wire.poll_read(cx, buffer);
        if read.is_pending() {
            let opening = self.opening.as_mut().map(|opening| &mut opening.timer);
            for timer in opening.into_iter().chain(&mut self.head_timer) {
                if timer.as_mut().poll(cx).is_ready() {
                    // Best effort: a client this slow may not be there at all.
                    let _ = self.wire.send(REQUEST_TIMEOUT);
                    return Poll::Ready(Err(timed_out("the client does not finish its request's head")));
                }
            }
            return Poll::Pending;
        }
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if let Some(opening) = &mut self.opening {
            opening.bytes = opening.bytes.saturating_sub(bytes.len());
        }
        self.opening.take_if(|opening| opening.bytes == 0);
        read
    }

    /// The library gets `bytes`: starts or ends the time limit of a head.
    fn note_head(&mut self, bytes: &[u8]) {
        if !self.turn.reads_head(bytes) {
            self.head_timer = None;
        } else if self.head_timer.is_none() {
            self.head_timer = Some(Box::pin(tokio::time::sleep(HEADER_TIME)));
        }
    }

    /// Reads and discards until the client closes or a bound is reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shutdown = &self.shutdown;
        let closing = self
            .closing
            .get_or_insert_with(|| Box::new(Lingering::new(shutdown.clone())));
        let mut waste = [0; 8 * 1024];
        while closing.poll_over(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut waste);
            match self.wire.poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => closing.note(buffer.filled().len()),
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the client does not read")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            match self.wire.take_ahead() {
                Some(ahead) => self.unread = ahead,
                // What would follow has a gap.
                None => return Poll::Ready(Ok(())),
            }
        }
        let before = buffer.filled().len();
        if self.unread.is_empty() {
            ready!(self.poll_wire(cx, buffer))?;
        } else {
            let count = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(count));
            if self.unread.is_empty() {
                self.unread = BytesMut::new();
            }
        }
        self.note_head(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = self.wire.poll_write(cx, bytes);
        if wrote.is_ready() {
            self.opening = None;
        }
        self.written(cx, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.wire.poll_flush(cx);
        self.written(cx, flushed)
    }

    /// Closes our side and lingers. If a socket is closed with unread bytes, the system sends a reset, which can overtake
    /// the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            let flushed = self.wire.poll_flush(cx);
            ready!(self.written(cx, flushed))?;
            SockRef::from(self.wire.tcp()).shutdown(std::net::Shutdown::Write)?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A client's socket at the server, and the client.
    pub(crate) async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Socket::new(server, CancellationToken::new()).unwrap(), client)
    }

    // A paused clock jumps to the next timer as soon as every task waits, so the bounds pass at once.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_let_go() {
        let (mut socket, mut client) = pair().await;
        client.write_all(b"PRI").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 3);
        let start = Instant::now();
        let error = socket.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() <= OPENING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_begun_may_be_silent() {
        let (mut socket, mut client) = pair().await;
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(socket.read(&mut buffer).await.unwrap(), OPENING_BYTES);
        let silent = tokio::time::timeout(OPENING * 10, socket.read(&mut buffer));
        assert!(silent.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_has_little_time_however_it_drips() {
        let (mut socket, mut client) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        let start = Instant::now();
        let drips = async {
            while client.write_all(b"x: y\r\n").await.is_ok() && start.elapsed() < HEADER_TIME * 3 {
                tokio::time::sleep(HEADER_TIME / 4).await;
            }
        };
        let reads = async {
            let mut buffer = [0; 64];
            loop {
                if let Err(error) = socket.read(&mut buffer).await {
                    return error;
                }
            }
        };
        tokio::select! {
            () = drips => panic!("it may drip on"),
            error = reads => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        }
        assert!(start.elapsed() >= HEADER_TIME && start.elapsed() < HEADER_TIME * 2);
        // One that is whole leaves time for what follows.
        let (mut socket, mut client) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 27);
        assert!(
            tokio::time::timeout(HEADER_TIME * 3, socket.read(&mut buffer))
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_let_go() {
        let (mut socket, client) = pair().await;
        let chunk = vec![0; 1024 * 1024];
        let error = loop {
            if let Err(error) = socket.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_is_still_sending_gets_its_answer() {
        let (mut socket, mut client) = pair().await;
        let server = async {
            let mut buffer = [0; 16];
            socket.read_exact(&mut buffer).await.unwrap();
            socket.write_all(b"no, thanks").await.unwrap();
            socket.shutdown().await.unwrap();
            drop(socket);
        };
        let client = async {
            // More than the sockets hold, so that the server must have read on.
            client.write_all(&vec![b'x'; 16 * 1024 * 1024]).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(tokio::join!(server, client).1, "no, thanks");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_on_and_on_is_read_from_for_a_bounded_time() {
        let (mut socket, mut client) = pair().await;
        let start = Instant::now();
        let sender = async {
            loop {
                if client.write_all(b"x").await.is_err() {
                    return;
                }
                tokio::time::sleep(LINGER_IDLE / 2).await;
            }
        };
        tokio::select! {
            () = sender => panic!("the socket was closed while it was read from"),
            ended = socket.shutdown() => ended.unwrap(),
        }
        assert!(start.elapsed() >= LINGER && start.elapsed() < LINGER * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_closes_ends_lingering() {
        let (mut socket, client) = pair().await;
        let shutdown = socket.shutdown.clone();
        let start = Instant::now();
        let (ended, ()) = tokio::join!(socket.shutdown(), async move {
            tokio::time::sleep(LINGER_IDLE / 2).await;
            shutdown.cancel();
        });
        ended.unwrap();
        assert!(start.elapsed() < LINGER_IDLE);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_ends() {
        let (mut socket, client) = pair().await;
        let start = Instant::now();
        socket.shutdown().await.unwrap();
        assert!(start.elapsed() >= LINGER_IDLE && start.elapsed() < LINGER_IDLE * 2);
        socket.shutdown.cancel();
        let (mut idle, other) = pair().await;
        idle.shutdown.cancel();
        let start = Instant::now();
        idle.shutdown().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop((client, other));
    }
}
