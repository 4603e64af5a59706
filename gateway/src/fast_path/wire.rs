//! One client's socket, with two writers in one order: the HTTP library, and the demultiplexer, which sends chunks past
//! it.
//!
//! The demultiplexer may send only when all that the library was given has left. [`Wire::hold`] says that the library
//! has something, its flush that it has nothing. The wire keeps what the system does not take, and sends it first.

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use socket2::SockRef;
use tokenbus_http_parts::encode_chunk;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::fast_path::bypass::Bypass;
use crate::fast_path::splice::Sent;
use crate::http::limits::{AHEAD, KEPT_AHEAD, LINGER_BYTES, READ_SCRATCH};

thread_local! {
    /// The read buffer that all sockets of a thread share.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SCRATCH].into());
}

/// One client's socket.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TcpStream,
    out: Mutex<Out>,
    ahead: Mutex<Ahead>,
}

/// What was read while the client is answered; it goes before all other bytes.
#[derive(Debug, Default)]
struct Ahead {
    bytes: BytesMut,
    /// Bytes that were dropped behind those.
    dropped: usize,
}

#[derive(Debug, Default)]
struct Out {
    /// Nothing waits to be written, neither here nor in the library.
    clean: bool,
    /// Bytes sent past the library that the system has not taken.
    rest: BytesMut,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            out: Mutex::default(),
            ahead: Mutex::default(),
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether all bytes of both writers have left.
    pub(crate) fn is_clean(&self) -> bool {
        self.lock().clean
    }

    /// Sends `bytes` past the library, if the wire is clean.
    pub(crate) fn send(&self, bytes: &[u8]) -> Sent {
        let mut out = self.lock();
        if !out.clean {
            return Sent::NotNow;
        }
        match self.tcp.try_write(bytes) {
            Ok(count) if count == bytes.len() => Sent::All,
            Ok(count) => {
                out.rest.extend_from_slice(bytes.get(count..).unwrap_or_default());
                out.clean = false;
                Sent::Kept
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::NotNow,
            Err(_) => Sent::Broken,
        }
    }

    /// Writes some of `bytes`, after whatever was sent past the library.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = self.lock();
        out.clean = false;
        ready!(self.poll_rest(&mut out, cx))?;
        self.poll_some(cx, bytes)
    }

    /// Ready when nothing waits here. The library calls this when it has nothing left itself.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.lock();
        ready!(self.poll_rest(&mut out, cx))?;
        out.clean = true;
        Poll::Ready(Ok(()))
    }

    /// Reads on while the client is answered, because bytes that nobody reads would hide that it has left. Ready with
    /// false if it has ended its side, with true if bytes came.
    ///
    /// # Errors
    /// The client is gone, or sends without end.
    pub(crate) fn poll_ahead(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); AHEAD];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(self.poll_read(cx, &mut buffer))?;
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let read = buffer.filled();
        if ahead.dropped == 0 && ahead.bytes.len() + read.len() <= KEPT_AHEAD {
            ahead.bytes.extend_from_slice(read);
        } else {
            ahead.dropped += read.len();
        }
        if ahead.dropped > LINGER_BYTES {
            return Poll::Ready(Err(io::Error::other("the client sends without end")));
        }
        Poll::Ready(Ok(!read.is_empty()))
    }

    /// The bytes that [`Wire::poll_ahead`] has read; `None` if some behind them were dropped, so that no request can
    /// follow on this connection.
    pub(crate) fn take_ahead(&self) -> Option<BytesMut> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = std::mem::take(&mut ahead.bytes);
        (ahead.dropped == 0).then_some(bytes)
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            let mut done = false;
            // Copying what came is cheaper than zeroing the library's whole buffer.
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let room = scratch.len().min(buffer.remaining());
                let space = scratch.get_mut(..room).unwrap_or_default();
                self.tcp.try_io(Interest::READABLE, || {
                    let count = (&*SockRef::from(&self.tcp)).read(space)?;
                    buffer.put_slice(space.get(..count).unwrap_or_default());
                    done = true;
                    // There was no more: the next read need not ask the system to learn so.
                    if count > 0 && count < room {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Ok(())
                })
            });
            match read {
                Err(_) if done => return Poll::Ready(Ok(())),
                Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn poll_rest(&self, out: &mut Out, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !out.rest.is_empty() {
            let count = ready!(self.poll_some(cx, &out.rest))?;
            out.rest.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_some(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                wrote => return Poll::Ready(wrote),
            }
        }
    }

    // A panic under the lock cannot leave the data half-changed.
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bypass for Wire {
    fn hold(&self) {
        self.lock().clean = false;
    }

    /// As one chunk of an HTTP/1.1 body.
    fn send_events(&self, events: &[u8], scratch: &mut Vec<u8>) -> Sent {
        scratch.clear();
        encode_chunk(scratch, events);
        self.send(scratch)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use std::sync::Arc;

    use super::*;

    pub(crate) async fn pair() -> (Arc<Wire>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.writable().await.unwrap();
        (Arc::new(Wire::new(server)), client)
    }

    async fn write(wire: &Wire, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = std::future::poll_fn(|cx| wire.poll_write(cx, bytes)).await.unwrap();
            bytes = &bytes[count..];
        }
    }

    pub(crate) async fn flush(wire: &Wire) {
        std::future::poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_sent_before_what_the_library_holds() {
        let (wire, mut client) = pair().await;
        assert_eq!(wire.send(b"early"), Sent::NotNow, "the head has not left");
        write(&wire, b"head").await;
        assert_eq!(wire.send(b"early"), Sent::NotNow, "the library may have more of it");
        flush(&wire).await;
        assert_eq!(wire.send(b"-a"), Sent::All);
        wire.hold();
        assert_eq!(wire.send(b"early"), Sent::NotNow, "the library was given something");
        write(&wire, b"-b").await;
        flush(&wire).await;
        assert_eq!(wire.send(b"-c"), Sent::All);
        drop(wire);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "head-a-b-c");
    }

    #[tokio::test]
    async fn what_the_system_does_not_take_goes_before_what_comes_later() {
        let (wire, mut client) = pair().await;
        flush(&wire).await;
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        let last = loop {
            match wire.send(&block) {
                Sent::All => sent += block.len(),
                other => break other,
            }
        };
        if last == Sent::Kept {
            sent += block.len();
        }
        assert!(matches!(last, Sent::Kept | Sent::NotNow), "{last:?}");
        assert_eq!(wire.send(b"early"), Sent::NotNow);
        let reader = tokenbus_bus::task::spawn("reader", async move {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all
        });
        write(&wire, b"end").await;
        flush(&wire).await;
        drop(wire);
        let all = reader.await.unwrap();
        assert_eq!(all.len(), sent + 3);
        assert!(all.ends_with(b"xend") && all[..sent].iter().all(|byte| *byte == b'x'));
    }

    #[tokio::test]
    async fn bytes_and_the_end_that_came_with_them_are_both_read_and_so_is_what_comes_later() {
        async fn read(wire: &Wire) -> Vec<u8> {
            let mut space = [0; 64];
            let mut buffer = ReadBuf::new(&mut space);
            let read = std::future::poll_fn(|cx| wire.poll_read(cx, &mut buffer));
            tokio::time::timeout(Duration::from_secs(30), read)
                .await
                .unwrap()
                .unwrap();
            buffer.filled().to_vec()
        }
        let (wire, mut client) = pair().await;
        for word in ["one", "two"] {
            client.write_all(word.as_bytes()).await.unwrap();
            assert_eq!(read(&wire).await, word.as_bytes());
        }
        client.write_all(b"three").await.unwrap();
        client.shutdown().await.unwrap();
        // The end is among what the poller has told by now.
        let mut peeked = [0; 8];
        while wire.tcp().peek(&mut peeked).await.unwrap() < 5 {}
        wire.tcp().ready(Interest::READABLE).await.unwrap();
        assert_eq!(read(&wire).await, b"three");
        assert_eq!(read(&wire).await, b"", "the end");
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_noticed() {
        let (wire, client) = pair().await;
        flush(&wire).await;
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        // The reset makes the socket readable.
        wire.tcp().readable().await.unwrap();
        assert_eq!(wire.send(b"x"), Sent::Broken);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(wire.poll_write(&mut cx, b"x"), Poll::Ready(Err(_))));
    }
}
