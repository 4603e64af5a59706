//! What happens to a stream and what its driver has to do: the words of its state machine.

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
    /// NATS found nobody subscribed to what this attempt published.
    NoResponders {
        /// The attempt.
        attempt: u32,
    },
    /// This worker is known to be gone.
    WorkerGone {
        /// Which.
        worker: Name,
    },
    /// This worker lives under this instance number: streams of another life of it are lost.
    WorkerInstance {
        /// Which.
        worker: Name,
        /// Which life of it.
        instance: u64,
    },
    /// This worker says what it has of the stream, behind all that it has sent of it.
    Held {
        /// Which worker.
        worker: Name,
        /// Which life of it.
        instance: u64,
        /// The attempt, and the number of its next frame; `None` when it has nothing.
        place: Option<(u32, u32)>,
    },
    /// The connection to the bus was lost.
    LinkLost,
    /// The connection to the bus was lost and is back: frames may be missing.
    LinkRestored,
    /// There may be room for a stream that waits.
    Go,
    /// It had to give up its place in the waiting room, to a tenant that holds less of it.
    Displaced {
        /// When to try again.
        retry_after: Duration,
    },
    /// More was waiting to be read than the bound allows.
    Overflow,
    /// The gateway stops, and its grace period is over.
    ShutDown,
}

impl Event {
    /// Whether a worker says that it took the request.
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

    /// Bytes of text that it holds, roughly.
    pub fn weight(&self) -> usize {
        match self {
            Self::Frame {
                frame: Frame {
                    body: Body::Delta(delta),
                    ..
                },
                ..
            } => delta.text.len() + delta.extra.as_ref().map_or(0, |extra| extra.weight()),
            _ => 0,
        }
    }
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Hand this to the client.
    Output(Output),
    /// Choose a worker, and then call [`super::state::StreamState::publish`], [`super::state::StreamState::wait`] or
    /// [`super::state::StreamState::fail`].
    Place,
    /// A worker took the request: send it the parts of the body that are still here.
    Taken {
        /// The attempt.
        attempt: u32,
        /// The worker.
        worker: Name,
    },
    /// Tell this worker to stop the attempt and all before it.
    Cancel {
        /// The worker.
        worker: Name,
        /// The attempt.
        attempt: u32,
    },
    /// The stream has failed; nothing follows.
    Fail(CallError),
}

/// What a publish needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its number.
    pub attempt: u32,
    /// The lowest attempt that still counts.
    pub floor: u32,
    /// Where to continue.
    pub resume: Option<Resume>,
}
