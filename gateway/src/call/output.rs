//! What a call brings.

use bytes::BytesMut;
use tokenbus_protocol::{Delta, Finish, Name};
use tokio::time::Instant;

/// What happens to a call, in order: any number of `Accepted` and `Delta`, then one `Finish`.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A worker has it. Comes again when the call moves to another worker.
    Accepted {
        /// Which.
        worker: Name,
        /// Place in its queue.
        queue_position: u32,
    },
    /// What was said of the answer is void, it begins anew. Only for calls in one piece.
    Anew,
    /// More output of one choice.
    Delta(Delta<'static>),
    /// Plain text that came after [`super::CallStream::splice`], ready to be sent.
    Written(Written),
    /// Complete; nothing follows. Token counts are of the whole call, all attempts.
    Finish(Finish),
}

/// Text that was written into a template as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The events that are to be sent; none when all of it was sent already.
    pub events: BytesMut,
    /// Completion tokens in them.
    pub tokens: u64,
    /// Completion tokens that were sent already.
    pub sent: u64,
    /// When the last of those left.
    pub sent_at: Option<Instant>,
}
