//! The body of a streamed answer: a stream that the connection's task drives.
//!
//! Each wake-up takes everything that is ready and hands it to the connection as one piece, for one write. While the
//! client's socket is full, the connection does not ask for more, and the core's bound on undelivered output applies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::StatusCode;
use tokenbus_api::Encoder;
use tokio::time::{Instant, Sleep};

use crate::call::{CallError, CallStream, Output, Written};
use crate::fast_path::bypass::{Bypass, PacedOutlet};
use crate::fast_path::splice::{Outlet, Splice};
use crate::http::answer::faults::{ended_early, overdue, unasked};
use crate::http::answer::record::Record;
use crate::http::error::HttpError;
use crate::http::limits::MAX_WRITE;

/// Bytes of the first events of most answers, so that their buffer does not grow.
const BEGINNING: usize = 1024;

/// A streamed answer after its status.
pub(crate) struct EventStream<S: CallStream> {
    /// The call's outputs; dropping it cancels the call.
    pub(crate) call: S,
    pub(crate) encoder: Box<dyn Encoder>,
    pub(crate) record: Record,
    /// The output that came before the status; `None` if the status did not wait for it.
    pub(crate) first: Option<Output>,
    /// The way past the HTTP library, if text may be sent past this stream.
    pub(crate) bypass: Option<Arc<dyn Bypass>>,
    /// Silence after which a comment is sent.
    pub(crate) keep_alive: Duration,
    /// When the stream ends if the core says nothing more.
    pub(crate) backstop: Instant,
    /// Time from an output to the backstop.
    pub(crate) silence: Duration,
}

impl<S: CallStream> EventStream<S> {
    /// The body.
    pub(crate) fn into_body(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let now = Instant::now();
        let mut writer = Box::new(Writer {
            timer: Box::pin(tokio::time::sleep_until((now + self.keep_alive).min(self.backstop))),
            buffer: BytesMut::with_capacity(BEGINNING),
            written: now,
            // Something must leave at once: without it the client does not even get the status line.
            greet: self.first.is_none(),
            ended: false,
            heard: true,
            flows: false,
            stream: self,
        });
        writer.stream.encoder.begin(&mut writer.buffer);
        // Boxed, so that each step passes on a pointer.
        unfold(writer, Writer::step)
    }
}

struct Writer<S: CallStream> {
    stream: EventStream<S>,
    timer: Pin<Box<Sleep>>,
    buffer: BytesMut,
    written: Instant,
    greet: bool,
    ended: bool,
    /// A delta came since the call got its splice: the template may have changed.
    heard: bool,
    /// There was output since the backstop was set.
    flows: bool,
}

impl<S: CallStream> Writer<S> {
    /// Waits for something to write and takes all that is ready.
    async fn step(mut self: Box<Self>) -> Option<(Result<Bytes, Infallible>, Box<Self>)> {
        if self.ended {
            return None;
        }
        if let Some(output) = self.stream.first.take() {
            self.absorb(Some(Ok(output)));
            self.absorb_ready();
        } else if std::mem::take(&mut self.greet) {
            self.buffer.extend_from_slice(self.stream.encoder.keep_alive());
        }
        while self.buffer.is_empty() {
            if std::mem::take(&mut self.heard) {
                self.splice();
            }
            self.wait().await;
            self.absorb_ready();
        }
        if let Some(bypass) = &self.stream.bypass {
            bypass.hold();
        }
        self.written = Instant::now();
        self.stream.record.flush(self.written);
        let bytes = std::mem::take(&mut self.buffer).freeze();
        Some((Ok(bytes), self))
    }

    /// Lends the call a template and an outlet for plain text.
    fn splice(&mut self) {
        let outlet = self.stream.bypass.as_ref().map(|bypass| {
            let (bypass, pace) = (Arc::clone(bypass), self.stream.record.pace());
            Arc::new(PacedOutlet { bypass, pace }) as Arc<dyn Outlet>
        });
        let template = self.stream.encoder.template();
        let splice = template.map(|template| Splice { template, outlet });
        self.stream.call.splice(splice);
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            happened = self.stream.call.next() => self.absorb(happened),
            () = self.timer.as_mut() => self.tick(Instant::now()),
        }
    }

    /// The timer fired. Writes do not reset it, which would be work per token; so it may be early.
    fn tick(&mut self, now: Instant) {
        // Books what was sent past this task.
        self.absorb_ready();
        // Moved here, not at each output. So it is up to one interval of the timer late, but never early.
        if std::mem::take(&mut self.flows) {
            self.stream.backstop = now + self.stream.silence;
        }
        if now >= self.stream.backstop {
            self.fail(&overdue());
            return;
        }
        let mut due = self.written + self.stream.keep_alive;
        if now >= due && self.buffer.is_empty() {
            self.buffer.extend_from_slice(self.stream.encoder.keep_alive());
            due = now + self.stream.keep_alive;
        }
        self.timer.as_mut().reset(due.min(self.stream.backstop));
    }

    fn absorb_ready(&mut self) {
        while !self.ended && self.buffer.len() < MAX_WRITE {
            match self.stream.call.try_next() {
                Some(happened) => self.absorb(Some(happened)),
                None => break,
            }
        }
    }

    fn absorb(&mut self, happened: Option<Result<Output, CallError>>) {
        match happened {
            Some(Ok(Output::Written(written))) => self.hand_on(written),
            Some(Ok(output)) => self.write(&output),
            Some(Err(error)) => self.fail(&error.into()),
            None => self.fail(&ended_early()),
        }
    }

    /// Takes events that the lane has written.
    fn hand_on(&mut self, written: Written) {
        self.flows = true;
        self.stream.record.saw_text(&written);
        self.written = self.written.max(written.sent_at.unwrap_or(self.written));
        if self.buffer.is_empty() {
            self.buffer = written.events;
        } else {
            self.buffer.extend_from_slice(&written.events);
        }
    }

    fn write(&mut self, output: &Output) {
        match output {
            Output::Accepted { worker, why, kind, .. } => self.stream.record.placed(worker, *why, kind),
            Output::Written(_) | Output::Anew => self.fail(&unasked()),
            Output::Delta(delta) => {
                self.heard = true;
                self.flows = true;
                self.stream.record.saw(delta);
                if let Err(error) = self.stream.encoder.delta(delta, &mut self.buffer) {
                    self.fail(&error.into());
                }
            }
            Output::Finish(finish) => {
                let now = Instant::now();
                self.stream.record.flush(now);
                self.stream.encoder.times(self.stream.record.times(now));
                match self.stream.encoder.finish(finish, &mut self.buffer) {
                    Ok(()) => {
                        self.stream.record.finished(finish);
                        self.stream.record.succeeded();
                        self.ended = true;
                    }
                    Err(error) => self.fail(&error.into()),
                }
            }
        }
    }

    /// Sends the error event and ends the stream; the form of the event is in `api/`.
    fn fail(&mut self, error: &HttpError) {
        let verdict = self.stream.record.failed(error, Some(StatusCode::OK.as_u16()));
        let failure = verdict.failure().of(self.stream.record.id());
        self.stream.encoder.fail(&failure, &mut self.buffer);
        self.ended = true;
    }
}

impl<S: CallStream> Drop for Writer<S> {
    /// Books what was sent past this stream to a client that now leaves.
    fn drop(&mut self) {
        while let Some(Ok(output)) = self.stream.call.try_next() {
            if let Output::Written(written) = output {
                self.stream.record.saw_text(&Written { tokens: 0, ..written });
            }
        }
    }
}
