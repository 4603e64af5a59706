//! Who reads what comes in on a connection: the HTTP library, or the reader of a streamed answer.
//!
//! The library gets the head of every answer. If it is the head of a stream of events, the body goes to the
//! reader, and when it is complete the library is told that the body was empty.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokenbus_http_parts::{ChunkedDecoder, LAST_CHUNK};
use tokio::io::{AsyncRead, ReadBuf};

use crate::limits::{LINE_FIELDS, LINE_HEAD, LINE_READ};

/// The type of an answer that is a stream of events.
const EVENTS: &[u8] = b"text/event-stream";

/// What comes next.
#[derive(Debug)]
enum Phase {
    /// Bytes for the library.
    Through,
    /// The head of an answer. It goes to the library when it is complete.
    Head,
    /// The body of a stream, for the reader.
    Body(ChunkedDecoder),
}

/// The incoming half of a connection.
#[derive(Debug)]
pub(crate) struct Line<R> {
    /// Gone with the connection.
    socket: Option<R>,
    phase: Phase,
    /// Bodies that were tapped so far: the next answer's is not to be taken for the last one's.
    bodies: u64,
    /// Read already, for the library.
    http: BytesMut,
    /// Read already, for the reader.
    body: BytesMut,
    /// The library, while the reader reads.
    parked: Option<Waker>,
}

impl<R: AsyncRead + Unpin> Line<R> {
    /// The incoming half of a new connection.
    pub(crate) fn new(socket: R) -> Self {
        Self {
            socket: Some(socket),
            phase: Phase::Through,
            bodies: 0,
            http: BytesMut::new(),
            body: BytesMut::new(),
            parked: None,
        }
    }

    /// Gives the socket up: the library has closed the connection.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }

    /// The number of the body that is a reader's now.
    pub(crate) fn tapped(&self) -> Option<u64> {
        matches!(self.phase, Phase::Body(_)).then_some(self.bodies)
    }

    /// Notes what is being sent: after the beginning of a request comes the head of an answer.
    pub(crate) fn sends(&mut self, bytes: &[u8]) {
        if matches!(self.phase, Phase::Through) && self.http.is_empty() && bytes.starts_with(b"POST ") {
            self.phase = Phase::Head;
        }
    }

    /// Reads for the library.
    pub(crate) fn poll_http(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.http.is_empty() && !matches!(self.phase, Phase::Head) {
                let count = self.http.len().min(buffer.remaining());
                buffer.put_slice(&self.http.split_to(count));
                if self.http.is_empty() {
                    self.http = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match self.phase {
                Phase::Through => return poll_socket(&mut self.socket, cx, buffer),
                Phase::Head => ready!(self.poll_head(cx))?,
                Phase::Body(_) => {
                    self.parked = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [const { MaybeUninit::uninit() }; LINE_READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(poll_socket(&mut self.socket, cx, &mut read))?;
        self.http.extend_from_slice(read.filled());
        self.phase = match head(&self.http) {
            Head::Stream(length) => {
                self.body = self.http.split_off(length);
                self.bodies += 1;
                Phase::Body(ChunkedDecoder::default())
            }
            Head::Begun if !read.filled().is_empty() && self.http.len() < LINE_HEAD => Phase::Head,
            // The library says what is wrong with it, if anything is.
            Head::Begun | Head::Other => Phase::Through,
        };
        Poll::Ready(Ok(()))
    }

    /// Reads some of the body with this number for its reader, who takes it by `take`. False when there is no more.
    ///
    /// # Errors
    /// Of the socket; `UnexpectedEof` and `InvalidData` when the body is cut off or malformed. The connection
    /// cannot be used any more then.
    pub(crate) fn poll_body(
        &mut self,
        number: u64,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<bool>> {
        loop {
            if self.tapped() != Some(number) {
                return Poll::Ready(Ok(false));
            }
            let taken = if self.body.is_empty() {
                let mut space = [const { MaybeUninit::uninit() }; LINE_READ];
                let mut read = ReadBuf::uninit(&mut space);
                match ready!(poll_socket(&mut self.socket, cx, &mut read)) {
                    Ok(()) if read.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(()) => self.undo(read.filled(), take),
                    Err(error) => Err(error),
                }
            } else {
                let bytes = std::mem::take(&mut self.body);
                self.undo(&bytes, take)
            };
            match taken {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(true)),
                Err(error) => {
                    self.hand_back(&[]);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Whether there was data in `bytes`.
    fn undo(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let Phase::Body(chunked) = &mut self.phase else {
            return Ok(false);
        };
        let mut any = false;
        while let Some(data) = chunked
            .data(&mut bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        {
            any = true;
            take(data);
        }
        if chunked.has_ended() {
            // The library is told that the body was empty.
            self.http.extend_from_slice(LAST_CHUNK);
            self.hand_back(bytes);
        }
        Ok(any)
    }

    /// From here on it is the library that reads.
    fn hand_back(&mut self, bytes: &[u8]) {
        self.http.extend_from_slice(bytes);
        self.phase = Phase::Through;
        if let Some(library) = self.parked.take() {
            library.wake();
        }
    }
}

fn poll_socket<R: AsyncRead + Unpin>(
    socket: &mut Option<R>,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    match socket {
        Some(socket) => Pin::new(socket).poll_read(cx, buffer),
        None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
    }
}

/// What a connection's next bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// The beginning of a head.
    Begun,
    /// The head of an answer that the library shall read, or no head at all.
    Other,
    /// The head of a stream of events in the chunked coding, of so many bytes.
    Stream(usize),
}

fn head(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; LINE_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Head::Begun,
        Err(_) => return Head::Other,
    };
    let all = |name: &'static str| {
        let of_name = answer
            .headers
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        of_name.map(|field| field.value.trim_ascii())
    };
    let mut codings = all("transfer-encoding");
    let chunked = codings
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none();
    let events = all("content-type").any(|kind| {
        kind.get(..EVENTS.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
    });
    let plain = all("content-length").chain(all("content-encoding")).next().is_none();
    if answer.version == Some(1) && answer.code == Some(200) && chunked && events && plain {
        Head::Stream(length)
    } else {
        Head::Other
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
