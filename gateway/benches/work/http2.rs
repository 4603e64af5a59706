//! An HTTP/2 connection in memory, whose client takes everything.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection;
use tokenbus_gateway::testing::{Bypass as _, Outlet, Sent, StreamWire, http2_settings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window that there is.
const WINDOW: u32 = (1 << 31) - 1;
const DEFAULT_WINDOW: u32 = 65_535;
/// `GET http://h/`, in HPACK.
const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'h'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// All that a client sends: it opens so many streams, and has room for whatever comes on them.
fn client(streams: u32) -> Vec<u8> {
    let window = [&4_u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
    let mut all = [PREFACE, &frame(4, 0, 0, &window)].concat();
    all.extend(frame(8, 0, 0, &(WINDOW - DEFAULT_WINDOW).to_be_bytes()));
    for stream in 0..streams {
        all.extend(frame(1, 5, 2 * stream + 1, REQUEST));
    }
    all
}

/// The server's socket.
struct Socket(io::Cursor<Vec<u8>>);

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.position() == self.0.get_ref().len() as u64 {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, all: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(all).iter().map(|bytes| bytes.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The way to one stream's client.
#[derive(Debug)]
struct ToStream(Arc<StreamWire>);

impl Outlet for ToStream {
    fn send(&self, events: &[u8], _tokens: u64, _gap: Duration, scratch: &mut Vec<u8>) -> Sent {
        let sent = self.0.send_events(events, scratch);
        assert_eq!(sent, Sent::All);
        sent
    }
}

/// A connection with streams in the middle of their answers.
pub struct Http2(Connection<Socket, Bytes>);

impl Http2 {
    /// With so many streams, and the way to each.
    pub fn new(streams: u32) -> (Self, Vec<Arc<dyn Outlet>>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut handshake = pin!(http2_settings().handshake(Socket(io::Cursor::new(client(streams)))));
        let Poll::Ready(Ok(mut connection)) = handshake.as_mut().poll(&mut cx) else {
            unreachable!("the client has sent its preface")
        };
        let mut outlets: Vec<Arc<dyn Outlet>> = Vec::new();
        while let Poll::Ready(Some(stream)) = connection.poll_accept(&mut cx) {
            let (_, mut respond) = stream.unwrap();
            let wire = Arc::new(StreamWire::default());
            wire.begin(respond.send_response(http::Response::new(()), false).unwrap());
            assert!(wire.poll_send(&mut cx, &mut Bytes::new()).is_ready());
            outlets.push(Arc::new(ToStream(wire)));
        }
        assert_eq!(outlets.len(), streams as usize);
        (Self(connection), outlets)
    }

    /// Writes what its streams have sent, as the connection's task does.
    pub fn write(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.0.poll_accept(&mut cx).is_pending());
    }
}
