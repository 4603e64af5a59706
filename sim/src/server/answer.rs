//! An answer on its way from the engine, which pushes, to the connection, which pulls.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame};
use tokenbus_engine::{Closed, Running, Sink};
use tokenbus_protocol::{Delta, EngineError, Finish};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::RunningRequest;
use super::documents::{self, Choice};
use super::events::Chunks;
use crate::limits::{BLOCK_BYTES, BUFFER_BYTES, UNREAD_BYTES};

/// How an answer ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// With the engine's finish.
    Finished(Finish),
    /// With an error.
    Failed(EngineError),
    /// The engine dropped it without an end; the connection breaks.
    Dropped,
}

/// Form in which an answer is written.
pub(super) enum Form {
    /// Events, one for each delta.
    Stream(Chunks),
    /// The choices, gathered for one document at the end.
    Whole(Vec<Choice>),
}

struct State {
    form: Form,
    bytes: BytesMut,
    end: Option<End>,
    waker: Option<Waker>,
    tokens: u64,
}

/// The answer's state, which both sides hold. One thread runs both, so the lock is never contended.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Output leaves in blocks rather than token by token.
    blocks: bool,
    read: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end, once there is one, with the choices of an answer that is not streamed.
    pub(super) fn end(&self) -> Option<(End, Vec<Choice>)> {
        let mut state = self.lock();
        let end = state.end.clone()?;
        match &mut state.form {
            Form::Stream(_) => Some((end, Vec::new())),
            Form::Whole(choices) => Some((end, std::mem::take(choices))),
        }
    }

    /// Tokens that the engine has generated.
    pub(super) fn tokens(&self) -> u64 {
        self.lock().tokens
    }

    /// Waits for the end of an answer that is not streamed.
    pub(super) async fn ended(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.end.is_some() {
                return Poll::Ready(());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A new answer: the engine's side and the connection's.
pub(super) fn answer(form: Form, blocks: bool) -> (Box<dyn Sink>, Arc<Shared>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            form,
            bytes: BytesMut::with_capacity(BUFFER_BYTES),
            end: None,
            waker: None,
            tokens: 0,
        }),
        blocks,
        read: Arc::new(Notify::new()),
    });
    let sink = Writer(Arc::clone(&shared));
    (Box::new(sink), shared)
}

/// The engine's side.
struct Writer(Arc<Shared>);

impl Writer {
    fn end(&self, end: End) {
        let mut state = self.0.lock();
        if state.end.is_some() {
            return;
        }
        let State { form, bytes, .. } = &mut *state;
        if let Form::Stream(chunks) = form {
            match &end {
                End::Finished(finish) => chunks.finish(finish, bytes),
                End::Failed(error) => Chunks::fail(&documents::envelope(error), bytes),
                End::Dropped => {}
            }
        }
        state.end = Some(end);
        wake(state);
    }
}

impl Sink for Writer {
    fn delta(&mut self, delta: Delta<'_>) -> Result<(), Closed> {
        let mut state = self.0.lock();
        state.tokens += u64::from(delta.tokens);
        let State { form, bytes, .. } = &mut *state;
        match form {
            Form::Whole(choices) => return gather(choices, &delta),
            Form::Stream(chunks) => chunks.delta(&delta, bytes),
        }
        if state.bytes.len() > UNREAD_BYTES {
            return Err(Closed);
        }
        if !self.0.blocks || state.bytes.len() >= BLOCK_BYTES {
            wake(state);
        }
        Ok(())
    }

    fn congestion(&self) -> Option<BoxFuture<'static, ()>> {
        let full = self.0.lock().bytes.len() >= 2 * BLOCK_BYTES;
        let read = Arc::clone(&self.0.read);
        full.then(|| async move { read.notified().await }.boxed())
    }

    fn finish(self: Box<Self>, finish: Finish) {
        self.end(End::Finished(finish));
    }

    fn fail(self: Box<Self>, error: EngineError) {
        self.end(End::Failed(error));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}

fn gather(choices: &mut Vec<Choice>, delta: &Delta<'_>) -> Result<(), Closed> {
    let index = usize::try_from(delta.choice).map_err(|_| Closed)?;
    if choices.len() <= index {
        choices.resize(index + 1, Choice::default());
    }
    let choice = choices.get_mut(index).ok_or(Closed)?;
    choice.text.push_str(&delta.text);
    if choice.finish_reason.is_none() {
        choice.finish_reason.clone_from(&delta.finish_reason);
    }
    Ok(())
}

/// Wakes the connection once the lock is free.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The generation of a running request, its slot and its count. Dropping it stops the generation and frees the slot.
pub(super) struct Held {
    _running: Running,
    _slot: Option<OwnedSemaphorePermit>,
    _counted: RunningRequest,
}

impl Held {
    /// Joins the three.
    pub(super) fn new(running: Running, slot: Option<OwnedSemaphorePermit>, counted: RunningRequest) -> Self {
        Self {
            _running: running,
            _slot: slot,
            _counted: counted,
        }
    }
}

/// The body of a streamed answer.
pub(super) struct Stream {
    /// The answer.
    pub(super) shared: Arc<Shared>,
    /// Dropped at the end of the stream, or with it.
    pub(super) held: Option<Held>,
}

/// Error of a stream that the engine dropped: the server breaks the connection.
#[derive(Debug, thiserror::Error)]
#[error("scripted: the connection breaks")]
pub(super) struct Broken;

impl Body for Stream {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let mut state = this.shared.lock();
        let due = state.end.is_some() || !this.shared.blocks || state.bytes.len() >= BLOCK_BYTES;
        if due && !state.bytes.is_empty() {
            let bytes = state.bytes.split().freeze();
            drop(state);
            this.shared.read.notify_one();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(end) = &state.end else {
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let broken = matches!(end, End::Dropped) && this.held.is_some();
        drop(state);
        this.held = None;
        Poll::Ready(broken.then_some(Err(Broken)))
    }
}

/// Body of an answer that is not streamed.
pub(super) type Fixed = http_body_util::Full<Bytes>;

/// Body of any answer.
pub(super) type AnyBody = http_body_util::Either<Stream, FixedBody>;

/// [`Fixed`] with the stream's error type.
pub(super) type FixedBody = http_body_util::combinators::MapErr<Fixed, fn(Infallible) -> Broken>;
