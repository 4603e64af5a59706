//! One HTTP/1.1 connection. Its user reads it: no task, no channel and no copy stand between socket and reader.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::broken::Broken;
use crate::failure::Failure;
use crate::http1::{Decoder, Framing, Head};
use crate::limits::READ_BYTES;
use crate::socket::Stream;

/// The read buffer of all connections of a thread. Because they share it, it stays in the processor's cache.
pub(super) struct Scratch(Mutex<Box<[u8]>>);

impl Scratch {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(Mutex::new(vec![0; READ_BYTES].into_boxed_slice()))
    }

    /// One thread uses it, so the lock is never contended.
    fn lock(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection.
pub(super) struct Http1 {
    stream: Stream,
    scratch: Arc<Scratch>,
    /// Bytes that were read but not used yet: the beginning of a head, or what came together with a head.
    rest: Vec<u8>,
    decoder: Decoder,
    keep_alive: bool,
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Http1 {
    /// For an open socket.
    pub(super) fn new(stream: Stream, scratch: Arc<Scratch>) -> Self {
        Self {
            stream,
            scratch,
            rest: Vec::new(),
            decoder: Decoder::new(Framing::Length(0)),
            keep_alive: true,
        }
    }

    /// Sends a request and awaits the head of the answer.
    ///
    /// # Errors
    /// [`Broken`] if no answer began.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Head, Broken> {
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
    pub(super) async fn body(
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
    pub(super) async fn is_ready(&mut self) -> bool {
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
