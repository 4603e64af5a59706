//! One client request.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use tokenbus_api::MAX_ANSWER;
use tokenbus_placement::Prompt;
use tokenbus_protocol::{Features, Labels, RequestKind};
use tokenbus_telemetry::Trace;
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits::{STREAM_BUFFER, STREAM_TIME};
use crate::story::Way;

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
    /// Labels that every worker must have that gets it.
    pub labels: Labels,
    /// The request's JSON, as the client sent it or as its API was translated.
    pub body: Bytes,
    /// The cuts of its prompt.
    pub prompt: Prompt,
    /// A hash of the client's session, if it named one.
    pub session: Option<u64>,
    /// When the call times out: an answer in one piece as a whole, a stream if it has no output by then.
    pub deadline: Instant,
    /// Time that a stream may be without output, from its first output on.
    pub silence: Duration,
    /// Higher goes first.
    pub priority: i32,
    /// The tenant; `None` for clients that name nobody.
    pub tenant: Option<String>,
    /// Where the client's connection comes from, if that is known.
    pub address: Option<IpAddr>,
    /// The client's `x-request-id`, or a generated one.
    pub client_id: String,
    /// Its trace.
    pub trace: Trace,
    /// Why another worker may not continue the answer once the client has part of it (grammar-constrained output, say);
    /// `None` when it may.
    pub not_resumable: Option<&'static str>,
    /// The client gets the answer only when it is complete, so the answer may start over.
    pub in_one_piece: bool,
    /// What happens to it, for the request's story.
    pub way: Way,
}

impl Call {
    /// Sends the call to `model`.
    pub fn set_model(&mut self, model: String) {
        self.prompt.set_model(&model);
        self.model = model;
    }

    /// The features that the engine needs, including the kind itself.
    pub fn all_needs(&self) -> Features {
        self.needs.with(self.kind.feature())
    }

    /// Who takes turns with the others in the waiting room: the tenant, or the address of a client that names nobody. Of
    /// an IPv6 address, the network counts: the rest is the client's to choose.
    pub fn party(&self) -> Option<String> {
        let network = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        };
        self.tenant.clone().or_else(|| self.address.map(network))
    }

    /// The time that a worker may take for it, from `now` on. A stream that flows is not cut: only the gateway knows when
    /// its client got the last output.
    pub fn budget(&self, now: Instant) -> Duration {
        if self.in_one_piece {
            self.deadline.saturating_duration_since(now)
        } else {
            STREAM_TIME
        }
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
