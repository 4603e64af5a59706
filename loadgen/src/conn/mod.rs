//! Connections to the server: one for each request at a time (HTTP/1.1), or shared by many requests (HTTP/2).

mod broken;
mod http1;
mod http2;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

pub(crate) use self::broken::Broken;
use self::broken::io_code;
use self::http1::{Http1, Scratch};
use self::http2::{Http2, Pool};
use super::failure::{Failure, Kind};
use super::http1::Head;
use super::limits::CONNECTING;
use super::socket::Stream;
use super::target::{Request, Target};

/// Opens connections to one server.
pub(crate) struct Connector {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    turn: AtomicUsize,
    opening: Semaphore,
    scratch: Arc<Scratch>,
    /// The shared connections; none with HTTP/1.1.
    pool: Option<Pool>,
}

impl Connector {
    /// A connector with its own limit of connections that open at the same time. With `shared`, all requests go on so
    /// many HTTP/2 connections.
    pub(crate) fn new(target: Arc<Target>, tls: Option<TlsConnector>, shared: Option<usize>) -> Self {
        Self {
            target,
            tls,
            turn: AtomicUsize::new(0),
            opening: Semaphore::new(CONNECTING),
            scratch: Arc::new(Scratch::new()),
            pool: shared.map(Pool::new),
        }
    }

    /// Opens a connection, trying each of the server's addresses once; with HTTP/2, a place on a shared one.
    ///
    /// # Errors
    /// [`Kind::Connect`], with the operating system's error for the last address.
    pub(crate) async fn connect(&self) -> Result<Conn, Failure> {
        let refused = |e: io::Error| Failure::new(Kind::Connect, io_code(&e), e.to_string());
        let wire = match &self.pool {
            Some(pool) => Wire::Http2(pool.next(async || self.open().await).await.map_err(refused)?),
            None => {
                let permit = self.opening.acquire().await;
                let stream = self.open().await.map_err(refused)?;
                drop(permit);
                Wire::Http1(Http1::new(stream, Arc::clone(&self.scratch)))
            }
        };
        Ok(Conn {
            wire,
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

/// The client side of TLS with the system's trusted certificates, for HTTP/2 or HTTP/1.1.
///
/// # Errors
/// The error of rustls where there are none.
pub(crate) fn tls_connector(http2: bool) -> Result<TlsConnector, rustls::Error> {
    use rustls_platform_verifier::ConfigVerifierExt;
    let mut config = rustls::ClientConfig::with_platform_verifier()?;
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection, or a place on a shared one.
#[derive(Debug)]
pub(crate) struct Conn {
    wire: Wire,
    /// Time of its last use.
    pub(crate) unused_since: Instant,
}

#[derive(Debug)]
enum Wire {
    Http1(Http1),
    Http2(Http2),
}

impl Conn {
    /// Sends a request and awaits the head of the answer.
    ///
    /// # Errors
    /// [`Broken`] if no answer began.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Head, Broken> {
        match &mut self.wire {
            Wire::Http1(conn) => conn.ask(&request.http1).await,
            Wire::Http2(conn) => conn.ask(request).await,
        }
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
        match &mut self.wire {
            Wire::Http1(conn) => conn.body(waited, take).await,
            Wire::Http2(conn) => conn.body(waited, &mut take).await,
        }
    }

    /// Whether another request may be sent: the last answer was read to its end, and since then the server has neither
    /// closed the connection nor sent anything that was not asked for.
    pub(crate) async fn is_ready(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1(conn) => conn.is_ready().await,
            Wire::Http2(conn) => conn.is_ready().await,
        }
    }
}
