//! One attempt of one request as its gateway sees it: frames in sequence, exactly one end.
//!
//! The engine's sink, the worker's loop and its timers all may want to end a stream. Whoever comes
//! first does: the slot is given back once, and no frame follows the last one.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokenbus_protocol::{Accepted, Alive, Body, Delta, EngineError, ErrorCode, Finish, Frame, HeldStream};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::engine::{Closed, Sink};
use crate::limits;
use crate::outbox::split::pieces;
use crate::outbox::{Outbox, Press, PushError, delta_weight};
use crate::report::load::{Place, Share};
use crate::report::metrics::{Metrics, Outcome};
use crate::report::reading::{Reading, cached};
use crate::report::spans::{End, Traced};
use crate::sync::lock;

/// Which attempt of which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The request.
    pub(crate) id: Uuid,
    /// The attempt.
    pub(crate) attempt: u32,
}

/// Where streams tell the loop that they ended. At most one message for each stream that the loop
/// has admitted and not yet removed, so its bound is slots and queue.
pub(crate) type Ends = mpsc::UnboundedSender<Key>;

/// What a stream is made of.
pub(crate) struct StreamParts {
    /// Which attempt.
    pub(crate) key: Key,
    /// The gateway's number for the stream.
    pub(crate) number: u64,
    /// Where its frames go.
    pub(crate) outbox: Arc<Outbox>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Its model's part of the load.
    pub(crate) share: Arc<Share>,
    /// Where its end is told.
    pub(crate) ends: Ends,
    /// Largest frame in bytes that NATS takes.
    pub(crate) max_frame: usize,
    /// When the request came.
    pub(crate) arrived: Instant,
    /// What its trace is made of, where traces are on.
    pub(crate) traced: Option<Box<Traced>>,
    /// Whether its output is tokens, whose pace says something of the engine.
    pub(crate) paced: bool,
}

/// One attempt of one request.
pub(crate) struct Stream {
    parts: StreamParts,
    state: Mutex<State>,
}

struct State {
    open: bool,
    next_seq: u32,
    last_sent: Instant,
    last_output: Option<Instant>,
    tokens: u64,
    place: Option<Place>,
    /// The engine's reading of its prompt.
    reading: Option<Reading>,
    traced: Option<Box<Traced>>,
}

impl Stream {
    /// A stream of which nothing was sent.
    pub(crate) fn new(mut parts: StreamParts) -> Arc<Self> {
        let state = Mutex::new(State {
            open: true,
            next_seq: 0,
            last_sent: parts.arrived,
            last_output: None,
            tokens: 0,
            place: None,
            reading: None,
            traced: parts.traced.take(),
        });
        Arc::new(Self { parts, state })
    }

    /// Which attempt it is.
    pub(crate) fn key(&self) -> Key {
        self.parts.key
    }

    /// What it is called at its gateway, and how far it is.
    pub(crate) fn held(&self) -> HeldStream {
        HeldStream {
            stream: self.parts.number,
            attempt: self.parts.key.attempt,
            next_seq: lock(&self.state).next_seq,
        }
    }

    /// Its model's part of the load.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.parts.share
    }

    /// Keeps a slot, or a place in the queue, until the stream ends or has another. On a stream that has ended it
    /// is given back at once.
    pub(crate) fn hold(&self, place: Place) {
        let mut state = lock(&self.state);
        if state.open {
            state.place = Some(place);
        }
    }

    /// The engine gets it.
    pub(crate) fn starts(&self, now: Instant) {
        if let Some(traced) = &mut lock(&self.state).traced {
            traced.started = Some(now);
        }
    }

    /// The engine reads its prompt.
    pub(crate) fn reads(&self, reading: Reading) {
        let mut state = lock(&self.state);
        if state.open {
            state.reading = Some(reading);
        }
    }

    /// Sends the first frame, at once if its gateway is to do something when it comes; false when the outbox is
    /// full.
    pub(crate) fn accept(&self, accepted: Accepted, at_once: bool, now: Instant) -> bool {
        let press = if at_once { Press::Answer } else { Press::Patient };
        let mut state = lock(&self.state);
        state.open && self.push(&mut state, Body::Accepted(accepted), press, now).is_ok()
    }

    /// Says that the stream lives when nothing was sent for a while.
    pub(crate) fn keep_alive(&self, queue_position: u32, now: Instant) {
        let mut state = lock(&self.state);
        if state.open && now.saturating_duration_since(state.last_sent) >= limits::ALIVE_EVERY {
            // A full outbox needs no sign of life.
            let _ = self.push(&mut state, Body::Alive(Alive { queue_position }), Press::Stream, now);
        }
    }

    /// Ends the stream, with a last frame for the gateway if it waits for one. False when it had
    /// ended before.
    pub(crate) fn end(&self, last: Option<Body<'_>>, outcome: Outcome, now: Instant) -> bool {
        let mut state = lock(&self.state);
        if !state.open {
            return false;
        }
        self.close(&mut state, last, outcome, now);
        true
    }

    fn delta(&self, delta: Delta<'_>, now: Instant) -> Result<(), Closed> {
        let mut state = lock(&self.state);
        if !state.open {
            return Err(Closed);
        }
        let tokens = delta.tokens;
        let output = tokens > 0 || !delta.text.is_empty() || delta.extra.is_some();
        let split = match delta.extra {
            Some(_) if delta_weight(&delta) - delta.text.len() > self.parts.max_frame / 2 => pieces(&delta),
            _ => None,
        };
        let sent = if let Some(pieces) = split {
            let mut each = pieces.into_iter();
            each.try_for_each(|piece| self.push(&mut state, Body::Delta(piece), Press::Stream, now))
        } else if delta_weight(&delta) <= self.parts.max_frame {
            self.push(&mut state, Body::Delta(delta), Press::Stream, now)
        } else if delta_weight(&delta) - delta.text.len() <= self.parts.max_frame / 2 {
            self.push_split(&mut state, delta, now)
        } else {
            let error = too_large(delta_weight(&delta), self.parts.max_frame);
            self.close(&mut state, Some(Body::Error(error)), Outcome::Failed, now);
            return Err(Closed);
        };
        if let Err(error) = sent {
            let last = Some(Body::Error(self.not_sent(&error)));
            self.close(&mut state, last, Outcome::Failed, now);
            return Err(Closed);
        }
        if output && self.parts.paced {
            self.book(&mut state, tokens, now);
        }
        Ok(())
    }

    fn finish(&self, finish: Finish, now: Instant) {
        let mut state = lock(&self.state);
        if !state.open {
            return;
        }
        // Some engines only tell at the end how many tokens it were.
        let more = finish.completion_tokens.unwrap_or(0).saturating_sub(state.tokens);
        self.parts.metrics.generated(more);
        self.parts.share.generated(more);
        let (prompt, cached) = (finish.prompt_tokens, cached(&finish));
        self.parts.metrics.read(prompt.unwrap_or(0), cached.unwrap_or(0));
        let raw = |json: &Option<tokenbus_protocol::RawJson>| json.as_ref().map_or(0, |json| json.get().len());
        let bytes = raw(&finish.usage) + raw(&finish.chunk);
        if let Some(reading) = &mut state.reading {
            reading.finished(&finish, now);
        }
        if bytes > self.parts.max_frame {
            let error = too_large(bytes, self.parts.max_frame);
            self.close(&mut state, Some(Body::Error(error)), Outcome::Failed, now);
        } else {
            self.close(&mut state, Some(Body::Finish(finish)), Outcome::Finished, now);
        }
    }

    // The loop hears of the end and the slot is free before the last frame is there to be sent:
    // what the gateway sends next meets a worker that knows.
    fn close(&self, state: &mut State, last: Option<Body<'_>>, outcome: Outcome, now: Instant) {
        state.open = false;
        // The loop is gone only when the worker is.
        let _ = self.parts.ends.send(self.parts.key);
        state.place = None;
        state.reading = None;
        self.parts.metrics.ended(outcome);
        let traced = state.traced.take();
        let traced = traced.map(|traced| (traced, End::of(last.as_ref(), outcome)));
        if let Some(body) = last
            && let Err(error) = self.push(state, body, Press::Last, now)
        {
            tracing::error!(%error, id = %self.parts.key.id, "the end of a stream was not sent");
        }
        if let Some((traced, end)) = traced {
            traced.tell(&end, state.tokens, now);
        }
    }

    fn push(&self, state: &mut State, body: Body<'_>, press: Press, now: Instant) -> Result<(), PushError> {
        let frame = Frame {
            stream: self.parts.number,
            attempt: self.parts.key.attempt,
            seq: state.next_seq,
            body,
        };
        self.parts.outbox.push(&frame, press)?;
        state.next_seq = state.next_seq.wrapping_add(1);
        state.last_sent = now;
        Ok(())
    }

    /// Sends a long text in several frames; all that is not text goes with the last one.
    fn push_split(&self, state: &mut State, mut delta: Delta<'_>, now: Instant) -> Result<(), PushError> {
        let text = std::mem::take(&mut delta.text);
        let mut rest: &str = &text;
        while rest.len() > self.parts.max_frame / 2 {
            let (head, tail) = rest.split_at(rest.floor_char_boundary(self.parts.max_frame / 2));
            let piece = Delta {
                choice: delta.choice,
                text: Cow::Borrowed(head),
                ..Delta::default()
            };
            self.push(state, Body::Delta(piece), Press::Stream, now)?;
            rest = tail;
        }
        let last = Delta {
            text: Cow::Borrowed(rest),
            choice: delta.choice,
            tokens: delta.tokens,
            token_ids: delta.token_ids,
            finish_reason: delta.finish_reason,
            extra: delta.extra,
        };
        self.push(state, Body::Delta(last), Press::Stream, now)
    }

    fn book(&self, state: &mut State, tokens: u32, now: Instant) {
        let metrics = &self.parts.metrics;
        state.tokens += u64::from(tokens);
        metrics.generated(u64::from(tokens));
        self.parts.share.generated(u64::from(tokens));
        match state.last_output.replace(now) {
            None => {
                if let Some(reading) = &mut state.reading {
                    reading.first_output(now);
                }
                if let Some(traced) = &mut state.traced {
                    traced.first_output = Some(now);
                }
                metrics.first_output(now.saturating_duration_since(self.parts.arrived), now);
            }
            Some(last) => {
                // Deltas of several choices at one step are one step.
                let gap = now.saturating_duration_since(last);
                if gap > Duration::ZERO {
                    metrics.next_output(gap, tokens, now);
                }
            }
        }
    }

    fn not_sent(&self, error: &PushError) -> EngineError {
        match error {
            PushError::Full(bytes) => {
                self.parts.metrics.overflows.inc();
                tracing::warn!(id = %self.parts.key.id, bytes, "a stream was ended: its gateway does not take what it is sent");
                EngineError {
                    code: ErrorCode::WorkerOverloaded,
                    message: "The worker's queue to the gateway was full".to_owned(),
                    param: None,
                    engine_code: None,
                    retryable: true,
                    retry_after_ms: None,
                }
            }
            PushError::Encode(error) => {
                tracing::error!(%error, id = %self.parts.key.id, "output cannot be encoded");
                internal("The worker could not encode the engine's output", true)
            }
        }
    }
}

/// An error of the worker's own.
pub(crate) fn internal(message: &str, retryable: bool) -> EngineError {
    EngineError {
        code: ErrorCode::Internal,
        message: message.to_owned(),
        param: None,
        engine_code: None,
        retryable,
        retry_after_ms: None,
    }
}

fn too_large(bytes: usize, limit: usize) -> EngineError {
    tracing::error!(
        bytes,
        limit,
        "the engine sent a piece of output that the bus does not take"
    );
    let message = format!("The engine sent a piece of output of {bytes} bytes, the limit is {limit}");
    internal(&message, false)
}

/// The engine's end of a stream.
pub(crate) struct StreamSink(Arc<Stream>);

impl StreamSink {
    /// The one sink of `stream`.
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        Self(stream)
    }
}

impl Sink for StreamSink {
    fn delta(&mut self, delta: Delta<'_>) -> Result<(), Closed> {
        self.0.delta(delta, Instant::now())
    }

    fn congestion(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.parts.outbox.congestion()
    }

    fn finish(self: Box<Self>, finish: Finish) {
        self.0.finish(finish, Instant::now());
    }

    fn fail(self: Box<Self>, error: EngineError) {
        self.0.end(Some(Body::Error(error)), Outcome::Failed, Instant::now());
    }
}

impl Drop for StreamSink {
    fn drop(&mut self) {
        // After `finish`, `fail` or a cancel the stream has ended and this changes nothing.
        let error = internal("The engine ended the stream without a finish", true);
        self.0.end(Some(Body::Error(error)), Outcome::Failed, Instant::now());
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
