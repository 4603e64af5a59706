//! Sends the rest of a streamed HTTP/1.1 answer as chunks, after the hand-over from the HTTP library.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Buf as _, BytesMut};
use hyper::body::Body as _;
use tokenbus_http_parts::{LAST_CHUNK, encode_chunk};
use tokio::io::AsyncWrite as _;

use crate::http::connection::presence::{Presence, Probe};
use crate::http::connection::socket::Socket;
use crate::http::limits::UNSENT;

thread_local! {
    /// The buffer for the chunks of one wake-up, shared by a thread's streams.
    static CHUNKS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends the rest of an answer.
pub(crate) struct Chunked {
    socket: Socket,
    presence: Presence,
    body: Body,
    /// Chunks that the socket has not taken yet.
    unsent: BytesMut,
    ended: bool,
}

impl Chunked {
    /// Will send `body` on `socket`, on which everything before it has left.
    pub(crate) fn new(socket: Socket, body: Body) -> Self {
        Self {
            socket,
            presence: Presence::default(),
            body,
            unsent: BytesMut::new(),
            ended: false,
        }
    }

    /// Sends the body to its end. Dropping this drops the body, which cancels its call.
    ///
    /// # Errors
    /// The client has gone, or the body broke off. Nothing may follow then, so that the client notices.
    pub(crate) async fn send(mut self) -> io::Result<Socket> {
        std::future::poll_fn(|cx| self.poll(cx)).await?;
        Ok(self.socket)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(gone) = self.presence.poll_gone(cx, self.socket.wire(), Probe::Zero) {
            return Poll::Ready(Err(gone));
        }
        while !self.ended && self.unsent.len() < UNSENT {
            if !self.gather(cx)? {
                break;
            }
        }
        while !self.unsent.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent))?;
            self.unsent.advance(count);
        }
        // Only slow clients need this buffer; the others do not keep it.
        self.unsent = BytesMut::new();
        // Also sends what the wire kept of chunks that the demultiplexer sent.
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Takes what the body has and sends as much as the system takes; false if the body has no more for now.
    fn gather(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        CHUNKS.with_borrow_mut(|chunks| {
            chunks.clear();
            while !self.ended && chunks.len() < UNSENT {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(frame)) => {
                        let frame = frame.map_err(io::Error::other)?;
                        // An answer has only data; trailers would be dropped.
                        if let Ok(data) = frame.into_data() {
                            encode_chunk(chunks, &data);
                        }
                    }
                    Poll::Ready(None) => {
                        chunks.extend_from_slice(LAST_CHUNK);
                        self.ended = true;
                    }
                }
            }
            self.write(cx, chunks)?;
            Ok(chunks.len() >= UNSENT)
        })
    }

    fn write(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, bytes) {
                Poll::Ready(count) => bytes = bytes.get(count?..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::http::connection::socket::tests::pair;

    #[tokio::test]
    async fn a_full_socket_loses_and_swaps_nothing() {
        let (socket, mut client) = pair().await;
        // Far more than the sockets hold, in pieces of all sizes, some of them empty.
        let pieces: Vec<Bytes> = (0..600_u32)
            .map(|n| vec![b'a' + (n % 26) as u8; (n * n % 50_021) as usize].into())
            .collect();
        let whole = pieces.concat();
        let body = Body::from_stream(stream::iter(pieces).map(Ok::<_, Infallible>));
        let reading = async {
            let (mut text, mut sent) = (Vec::new(), Vec::new());
            while !sent.ends_with(b"\r\n0\r\n\r\n") {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                text.resize(300_000, 0);
                let count = client.read(&mut text).await.unwrap();
                assert!(count > 0);
                sent.extend_from_slice(&text[..count]);
            }
            sent
        };
        let (socket, sent) = tokio::join!(Chunked::new(socket, body).send(), reading);
        assert!(socket.unwrap().wire().is_clean());
        let (mut rest, mut received) = (&sent[..], Vec::new());
        while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            let chunk = &rest[end + 2..];
            received.extend_from_slice(&chunk[..size]);
            assert_eq!(&chunk[size..size + 2], b"\r\n");
            rest = &chunk[size + 2..];
        }
        assert!(received == whole && rest.is_empty());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_ended() {
        let (socket, mut client) = pair().await;
        let body = [Ok("a"), Err(io::Error::other("broken"))];
        let sent = Chunked::new(socket, Body::from_stream(stream::iter(body))).send().await;
        assert!(sent.is_err());
        drop(sent);
        let mut received = String::new();
        let _ = client.read_to_string(&mut received).await;
        assert!(!received.contains("0\r\n\r\n"), "{received:?}");
    }
}
