//! One HTTP/1.1 connection, driven by whoever uses it: no task and no channel between socket and reader.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::failure::{Failure, Kind};
use super::limits::CONNECTING;
use super::stream::Stream;
use super::target::Target;

/// Opens connections to one server.
pub(crate) struct Connector {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    turn: AtomicUsize,
    opening: Semaphore,
}

impl Connector {
    /// A connector with its own limit of connections being opened.
    pub(crate) fn new(target: Arc<Target>, tls: Option<TlsConnector>) -> Self {
        Self {
            target,
            tls,
            turn: AtomicUsize::new(0),
            opening: Semaphore::new(CONNECTING),
        }
    }

    /// The server.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Opens a connection, trying each of the server's addresses once.
    ///
    /// # Errors
    /// [`Kind::Connect`], with the operating system's word for the last address.
    pub(crate) async fn connect(&self) -> Result<Conn, Failure> {
        let permit = self.opening.acquire().await;
        let stream = self
            .open()
            .await
            .map_err(|e| Failure::new(Kind::Connect, io_code(&e), e.to_string()));
        drop(permit);
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream?)).await;
        let (sender, driver) = handshake.map_err(|e| Failure::of(Kind::Connect, e.to_string()))?;
        Ok(Conn {
            sender,
            driver: Driver(Some(driver)),
            unused_since: Instant::now(),
        })
    }

    async fn open(&self) -> std::io::Result<Stream> {
        let addresses = &self.target.addresses;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
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

    async fn wrap(&self, tcp: TcpStream) -> std::io::Result<Stream> {
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = rustls::pki_types::ServerName::try_from(self.target.host.clone())
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
        Ok(Stream::Tls(Box::new(tls.connect(name, tcp).await?)))
    }
}

/// The client side of TLS with the system's trusted certificates.
///
/// # Errors
/// What rustls says where there are none.
pub(crate) fn tls_connector() -> Result<TlsConnector, rustls::Error> {
    use rustls_platform_verifier::ConfigVerifierExt;
    let mut config = rustls::ClientConfig::with_platform_verifier()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Conn {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    /// When it was last used.
    pub(crate) unused_since: Instant,
}

impl Conn {
    /// Sends a request and awaits the head of the answer.
    ///
    /// # Errors
    /// What hyper says.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let answer = self.sender.send_request(request);
        let mut answer = std::pin::pin!(answer);
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| driver.poll_with(cx, |cx| answer.as_mut().poll(cx))).await
    }

    /// The next frame of the answer's body; `waited` is set where it was not there already.
    pub(crate) async fn frame(
        &mut self,
        body: &mut Incoming,
        waited: &mut bool,
    ) -> Option<hyper::Result<Frame<Bytes>>> {
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| {
            let polled = driver.poll_with(cx, |cx| Pin::new(&mut *body).poll_frame(cx));
            *waited |= polled.is_pending();
            polled
        })
        .await
    }

    /// Whether another request may be sent; false where the server closed the connection meanwhile.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let driver = &mut self.driver;
        let sender = &mut self.sender;
        std::future::poll_fn(|cx| driver.poll_with(cx, |cx| sender.poll_ready(cx)))
            .await
            .is_ok()
            && self.driver.is_open_still().await
    }
}

/// The protocol's state, which must be polled for anything to move. Gone as soon as it has ended: only
/// its drop tells whoever waits for it that nothing will come.
#[derive(Debug)]
struct Driver(Option<Connection<TokioIo<Stream>, Full<Bytes>>>);

impl Driver {
    /// Polls `wanted`, then the connection, then `wanted` again: in one wake-up, without a second task.
    fn poll_with<T>(&mut self, cx: &mut Context<'_>, mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if let Poll::Ready(value) = wanted(cx) {
            return Poll::Ready(value);
        }
        self.poll(cx);
        wanted(cx)
    }

    /// What ended the connection is told to the request that was on it.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.0 = None;
        }
    }

    async fn is_open_still(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            self.poll(cx);
            Poll::Ready(self.0.is_some())
        })
        .await
    }
}

/// What became of a request that hyper gave up on, `begun` telling whether an answer had begun.
pub(crate) fn transport_failure(error: &hyper::Error, begun: bool) -> Failure {
    let io = io_source(error);
    let code = io.map(io_code).unwrap_or_default();
    let kind = match io.map(std::io::Error::kind) {
        _ if error.is_parse() => Kind::Http,
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) if begun => Kind::Reset,
        _ if begun => Kind::Truncated,
        _ => Kind::Closed,
    };
    let example = io.map_or_else(|| error.to_string(), |io| format!("{error}: {io}"));
    Failure::new(kind, code, example)
}

fn io_source(error: &hyper::Error) -> Option<&std::io::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        source = error.source();
    }
    None
}

fn io_code(error: &std::io::Error) -> String {
    format!("{:?}", error.kind())
}
