//! One client request.

use bytes::Bytes;
use tokenbus_api::MAX_ANSWER;
use tokenbus_protocol::{Features, RequestKind, TraceContext};
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits::STREAM_BUFFER;

/// One client request, checked and ready to be placed.
#[derive(Debug, Clone)]
pub struct Call {
    /// UUID v7; the completion id that the client sees is derived from it.
    pub id: Uuid,
    /// API family.
    pub kind: RequestKind,
    /// The model that the client asked for.
    pub model: String,
    /// The features that the engine needs, besides the kind itself.
    pub needs: Features,
    /// The request's JSON, as the client sent it or as its API was translated.
    pub body: Bytes,
    /// When the call times out.
    pub deadline: Instant,
    /// Higher goes first.
    pub priority: i32,
    /// The tenant; `None` for clients that name nobody.
    pub tenant: Option<String>,
    /// The client's `x-request-id`, or a generated one.
    pub client_id: String,
    /// W3C trace context.
    pub trace: Option<TraceContext>,
    /// Why another worker may not continue the answer once the client has part of it (grammar-constrained output, say);
    /// `None` when it may.
    pub not_resumable: Option<&'static str>,
    /// The client gets the answer only when it is complete, so the answer may start over.
    pub in_one_piece: bool,
}

impl Call {
    /// The features that the engine needs, including the kind itself.
    pub fn all_needs(&self) -> Features {
        self.needs.with(self.kind.feature())
    }

    /// How many bytes of output may wait for the reader. An answer in one piece arrives in one burst and is collected
    /// anyway.
    pub fn reader_bound(&self) -> usize {
        if self.kind.is_generated() {
            STREAM_BUFFER
        } else {
            MAX_ANSWER
        }
    }
}
