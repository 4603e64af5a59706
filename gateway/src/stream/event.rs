//! The state machine's inputs (events) and outputs (actions).

use std::time::Duration;

use tokenbus_protocol::{Body, Frame, Name, Resume};

use crate::call::{CallError, Output};

/// Something that happened to a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A worker sent a frame.
    Frame {
        /// Which worker, by the subject it came on.
        worker: Name,
        /// The frame.
        frame: Frame<'static>,
    },
    /// NATS found no subscriber for this attempt's publish.
    NoResponders {
        /// The attempt.
        attempt: u32,
    },
    /// This worker is gone.
    WorkerGone {
        /// Which.
        worker: Name,
    },
    /// This worker runs under this instance: streams on its other instances are lost.
    WorkerInstance {
        /// Which.
        worker: Name,
        /// Its instance.
        instance: u64,
    },
    /// The worker's answer to a roll call, after all its frames for the stream.
    Held {
        /// Which worker.
        worker: Name,
        /// Its instance.
        instance: u64,
        /// The attempt, and the number of its next frame; `None` if the worker does not hold the stream.
        place: Option<(u32, u32)>,
    },
    /// The connection to the bus was lost.
    LinkLost,
    /// The connection to the bus is back: frames may be missing.
    LinkRestored,
    /// A free slot is there for a waiting stream.
    Go,
    /// A waiting stream is to look for itself: no worker could serve it.
    Look,
    /// The stream lost its place in the waiting room to a tenant that holds fewer.
    Displaced {
        /// The wait before the client's next try.
        retry_after: Duration,
    },
    /// The inbox went over its bound.
    Overflow,
    /// The gateway stops, and its grace is over.
    ShutDown,
}

impl Event {
    /// Whether it is a worker's `Accepted`.
    pub fn is_accepted(&self) -> bool {
        matches!(
            self,
            Self::Frame {
                frame: Frame {
                    body: Body::Accepted(_),
                    ..
                },
                ..
            }
        )
    }

    /// Roughly, the bytes of text in it.
    pub fn weight(&self) -> usize {
        let Self::Frame { frame, .. } = self else { return 0 };
        match &frame.body {
            Body::Delta(delta) => delta.text.len() + delta.extra.as_ref().map_or(0, |extra| extra.weight()),
            Body::Finish(finish) => {
                let parts = [&finish.usage, &finish.chunk];
                parts.into_iter().flatten().map(|part| part.get().len()).sum()
            }
            Body::Error(error) => {
                let parts = [&error.param, &error.engine_code];
                error.message.len() + parts.into_iter().flatten().map(String::len).sum::<usize>()
            }
            _ => 0,
        }
    }
}

/// Something that the driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Give this output to the client.
    Output(Output),
    /// Choose a worker, and then call [`super::state::StreamState::publish`], [`super::state::StreamState::wait`] or
    /// [`super::state::StreamState::fail`].
    Place,
    /// A worker took the request: send it the remaining parts of the body.
    Taken {
        /// The attempt.
        attempt: u32,
        /// The worker.
        worker: Name,
    },
    /// Cancel this attempt and all before it at this worker.
    Cancel {
        /// The worker.
        worker: Name,
        /// The attempt.
        attempt: u32,
    },
    /// The stream has failed; nothing follows.
    Fail(CallError),
}

/// The attempt that a publish announces.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    /// Its number.
    pub attempt: u32,
    /// The lowest attempt that still counts.
    pub floor: u32,
    /// The point to continue from.
    pub resume: Option<Resume>,
}
