//! One HTTP/1.1 connection. Its user reads it: no task, no channel and no copy stand between socket and reader.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::failure::{Failure, Kind};
use super::http1::{Decoder, Framing, Head, HttpError};
use super::limits::{CONNECTING, READ_BYTES};
use super::socket::Stream;
use super::target::Target;

/// Opens connections to one server.
pub(crate) struct Connector {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    turn: AtomicUsize,
    opening: Semaphore,
    scratch: Arc<Scratch>,
}

/// The read buffer of all connections of a thread. Because they share it, it stays in the processor's cache.
struct Scratch(Mutex<Box<[u8]>>);

impl Scratch {
    /// One thread uses it, so the lock is never contended.
    fn lock(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector {
    /// A connector with its own limit of connections that open at the same time.
    pub(crate) fn new(target: Arc<Target>, tls: Option<TlsConnector>) -> Self {
        let scratch = vec![0; READ_BYTES].into_boxed_slice();
        Self {
            target,
            tls,
            turn: AtomicUsize::new(0),
            opening: Semaphore::new(CONNECTING),
            scratch: Arc::new(Scratch(Mutex::new(scratch))),
        }
    }

    /// Opens a connection, trying each of the server's addresses once.
    ///
    /// # Errors
    /// [`Kind::Connect`], with the operating system's error for the last address.
    pub(crate) async fn connect(&self) -> Result<Conn, Failure> {
        let permit = self.opening.acquire().await;
        let stream = self
            .open()
            .await
            .map_err(|e| Failure::new(Kind::Connect, io_code(&e), e.to_string()))?;
        drop(permit);
        Ok(Conn {
            stream,
            scratch: Arc::clone(&self.scratch),
            rest: Vec::new(),
            decoder: Decoder::new(Framing::Length(0)),
            keep_alive: true,
            unused_since: Instant::now(),
        })
    }

    async fn open(&self) -> io::Result<Stream> {
        let addresses = &self.target.addresses;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.iter().cycle().skip(turn).take(addresses.len()) {
            match TcpStream::connect(address).await {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return self.wrap(tcp).await;
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn wrap(&self, tcp: TcpStream) -> io::Result<Stream> {
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = rustls::pki_types::ServerName::try_from(self.target.host.clone())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Stream::Tls(Box::new(tls.connect(name, tcp).await?)))
    }
}

/// The client side of TLS with the system's trusted certificates.
///
/// # Errors
/// The error of rustls where there are none.
pub(crate) fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    use rustls_platform_verifier::ConfigVerifierExt;
    let mut config = rustls::ClientConfig::with_platform_verifier()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why an answer could not be read.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No byte of the request could be sent.
    Unsent(io::Error),
    /// The socket failed.
    Io(io::Error),
    /// The server closed the connection before the answer's end.
    Eof,
    /// The answer is not HTTP.
    Http(HttpError),
    /// The reader refuses the body's content.
    Refused(Failure),
}

impl Broken {
    /// The failure of the request; `begun` says whether an answer had begun.
    pub(crate) fn into_failure(self, begun: bool) -> Failure {
        let (io, code) = match self {
            Self::Refused(failure) => return failure,
            Self::Http(error) => return Failure::of(Kind::Http, error.to_string()),
            Self::Eof if !begun => return Failure::of(Kind::Closed, "the server closed the connection"),
            Self::Eof => (
                io::Error::from(io::ErrorKind::UnexpectedEof),
                "UnexpectedEof".to_owned(),
            ),
            Self::Unsent(error) | Self::Io(error) => {
                let code = io_code(&error);
                (error, code)
            }
        };
        let kind = match io.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe if begun => Kind::Reset,
            _ if begun => Kind::Truncated,
            _ => Kind::Closed,
        };
        Failure::new(kind, code, io.to_string())
    }
}

/// An open connection.
pub(crate) struct Conn {
    stream: Stream,
    scratch: Arc<Scratch>,
    /// Bytes that were read but not used yet: the beginning of a head, or what came together with a head.
    rest: Vec<u8>,
    decoder: Decoder,
    keep_alive: bool,
    /// Time of its last use.
    pub(crate) unused_since: Instant,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Conn {
    /// Sends a request and awaits the head of the answer.
    ///
    /// # Errors
    /// [`Broken`] if no answer began.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Head, Broken> {
        let sent = self.write(request).await;
        if let Err(broken @ Broken::Unsent(_)) = sent {
            return Err(broken);
        }
        // A server may refuse a request before it has read all of it.
        let head = match (self.head().await, sent) {
            (Err(_), Err(broken)) => return Err(broken),
            (head, _) => head?,
        };
        self.decoder = Decoder::new(head.framing);
        self.keep_alive = head.keep_alive;
        Ok(head)
    }

    async fn write(&mut self, request: &[u8]) -> Result<(), Broken> {
        let mut left = request;
        while !left.is_empty() {
            let stream = &mut self.stream;
            match poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, left)).await {
                Ok(0) => return Err(Broken::Eof),
                Ok(wrote) => left = left.get(wrote..).unwrap_or_default(),
                Err(error) if left.len() == request.len() => return Err(Broken::Unsent(error)),
                Err(error) => return Err(Broken::Io(error)),
            }
        }
        let stream = &mut self.stream;
        // TLS holds a record back until the flush.
        poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx))
            .await
            .map_err(Broken::Io)
    }

    async fn head(&mut self) -> Result<Head, Broken> {
        self.rest.clear();
        loop {
            poll_fn(|cx| self.poll_more(cx)).await?;
            while let Some((head, length)) = Head::parse(&self.rest).map_err(Broken::Http)? {
                self.rest.drain(..length);
                // An interim answer such as `100 Continue` is not the answer.
                if !matches!(head.status, 100..=199) {
                    return Ok(head);
                }
            }
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut scratch = self.scratch.lock();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(Broken::Io)?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(Broken::Eof));
        }
        self.rest.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Reads more of the answer's body and hands it to `take`; false at its end. Sets `waited` when it had to wait for
    /// bytes.
    ///
    /// # Errors
    /// [`Broken`], also when `take` refuses the body.
    pub(crate) async fn body(
        &mut self,
        waited: &mut bool,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<bool, Broken> {
        if self.decoder.is_done() {
            return Ok(false);
        }
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.keep_alive &= feed(&mut self.decoder, &rest, &mut take)?;
            return Ok(true);
        }
        poll_fn(|cx| {
            let polled = self.poll_body(cx, &mut take);
            *waited |= polled.is_pending();
            polled
        })
        .await
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Poll<Result<bool, Broken>> {
        let mut scratch = self.scratch.lock();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(Broken::Io)?;
        if buffer.filled().is_empty() {
            let whole = self.decoder.ends_with_connection();
            return Poll::Ready(if whole { Ok(false) } else { Err(Broken::Eof) });
        }
        self.keep_alive &= feed(&mut self.decoder, buffer.filled(), take)?;
        Poll::Ready(Ok(true))
    }

    /// Whether another request may be sent: the last answer was read to its end, and since then the server has neither
    /// closed the connection nor sent anything.
    pub(crate) async fn is_ready(&mut self) -> bool {
        if !self.keep_alive || !self.decoder.is_done() {
            return false;
        }
        poll_fn(|cx| {
            let mut byte = [0];
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(polled.is_pending())
        })
        .await
    }
}

/// Hands the data in `input` to `take`; false if bytes follow the body.
fn feed(
    decoder: &mut Decoder,
    mut input: &[u8],
    take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<bool, Broken> {
    loop {
        let (data, rest) = decoder.next(input).map_err(Broken::Http)?;
        if data.is_empty() {
            return Ok(rest.is_empty());
        }
        take(data).map_err(Broken::Refused)?;
        input = rest;
    }
}

fn io_code(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}
