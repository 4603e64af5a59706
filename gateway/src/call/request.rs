//! One client request.

use bytes::Bytes;
use tokenbus_api::limits::MAX_ANSWER;
use tokenbus_protocol::{Features, RequestKind, TraceContext};
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits::STREAM_BUFFER;

/// One client request, checked and ready to be placed.
#[derive(Debug, Clone)]
pub struct Call {
    /// UUID v7; the visible completion id is made of it.
    pub id: Uuid,
    /// API family.
    pub kind: RequestKind,
    /// The model that the client asked for.
    pub model: String,
    /// What the engine must be able to do, beside the kind itself.
    pub needs: Features,
    /// The request's JSON as the client sent it, or as its API was translated.
    pub body: Bytes,
    /// When the client is told that it took too long.
    pub deadline: Instant,
    /// Higher is served earlier.
    pub priority: i32,
    /// For whom.
    pub tenant: Option<String>,
    /// The client's `x-request-id`, or the one made for it.
    pub client_id: String,
    /// W3C trace context.
    pub trace: Option<TraceContext>,
    /// `None` when the request may be continued elsewhere after output has been delivered;
    /// otherwise why it may not (grammar-constrained output, say).
    pub not_resumable: Option<&'static str>,
    /// Nothing of the answer reaches the client before all of it is there: it may begin anew.
    pub in_one_piece: bool,
}

impl Call {
    /// What the engine must be able to do, the kind itself included.
    pub fn all_needs(&self) -> Features {
        self.needs.with(self.kind.feature())
    }

    /// Bytes of output that may wait for whoever reads it. What is answered in one piece comes in one
    /// burst, and is collected in any case.
    pub fn reader_bound(&self) -> usize {
        if self.kind.is_generated() {
            STREAM_BUFFER
        } else {
            MAX_ANSWER
        }
    }
}
