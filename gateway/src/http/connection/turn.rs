//! How far a connection is with its present request, as the socket and the library's service share it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::http::connection::head::HeadWatch;
use crate::http::connection::presence::Probe;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// It waits for a request's head, or reads it.
    #[default]
    Head,
    /// The request's body is read.
    Body,
    /// The client waits for its answer, or for the next part of it. Nobody else notices then if it leaves.
    Answer(Probe),
    /// The answer is there and is written.
    Write,
}

/// A connection's phase. One task alone uses it, so the lock is always free.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    head: HeadWatch,
}

impl Turn {
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(crate) fn set(&self, phase: Phase) {
        let mut state = self.lock();
        if phase == Phase::Head && state.phase != phase {
            state.head = HeadWatch::default();
        }
        state.phase = phase;
    }

    /// The library gets `bytes`. True if a head has begun and is not whole.
    pub(crate) fn reads_head(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Head {
            return false;
        }
        state.head.feed(bytes);
        state.head.is_unfinished()
    }

    /// Whether the head that was read gives two lengths of its body.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.lock().head.is_ambiguous()
    }

    // A panic under the lock cannot leave the data half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that sets the phase when it is over, or dropped.
pub(crate) struct Until<B> {
    body: B,
    turn: Arc<Turn>,
    then: Option<Phase>,
}

impl<B> Until<B> {
    pub(crate) fn new(body: B, turn: Arc<Turn>, then: Phase) -> Self {
        Self {
            body,
            turn,
            then: Some(then),
        }
    }

    fn over(&mut self) {
        if let Some(phase) = self.then.take() {
            self.turn.set(phase);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Until<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.over();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Until<B> {
    fn drop(&mut self) {
        self.over();
    }
}
