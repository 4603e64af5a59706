//! The output of a call.

use bytes::BytesMut;
use tokenbus_protocol::{Delta, Finish, Name};
use tokio::time::Instant;

use crate::placement::{Why, WorkerKind};

/// The output of a call, in order: any number of `Accepted` and `Delta`, then one `Finish`.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A worker accepted the call. Comes again when the call moves to another worker.
    Accepted {
        /// The worker.
        worker: Name,
        /// Place in its queue.
        queue_position: u32,
        /// Why it was chosen; `None` if NATS chose it.
        why: Option<Why>,
        /// Of which kind it is.
        kind: WorkerKind,
    },
    /// All output so far is void, and the answer starts over. Only for calls that are answered in one piece.
    Anew,
    /// More output of one choice.
    Delta(Delta<'static>),
    /// Plain text, written into the template of [`super::CallStream::splice`] and ready to send.
    Written(Written),
    /// The end. Token counts cover all attempts of the call.
    Finish(Finish),
}

/// Text that was written into a template as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The events to send; empty when all of them were sent already.
    pub events: BytesMut,
    /// Completion tokens in them.
    pub tokens: u64,
    /// Completion tokens sent already.
    pub sent: u64,
    /// When the last of those was sent.
    pub sent_at: Option<Instant>,
}
