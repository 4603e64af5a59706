//! A request that this worker has accepted, from its first message to its end.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokenbus_placement::Prompt;
use tokenbus_protocol::{Name, RequestKind, Resume};
use tokenbus_telemetry::Trace;

use crate::core::parts::Collector;
use crate::engine::Running;
use crate::outbox::stream::Stream;

/// One request that this worker has accepted.
pub(crate) struct AcceptedRequest {
    /// Its stream.
    pub(crate) stream: Arc<Stream>,
    /// Whose it is.
    pub(crate) gateway: Name,
    /// When its client stops waiting.
    pub(crate) deadline: Instant,
    /// Whether it has a slot, rather than waiting for one.
    pub(crate) has_slot: bool,
    /// When a missing part is given up.
    pub(crate) parts_due: Option<Instant>,
    /// Bytes of its body, when it comes in parts.
    pub(crate) announced: u64,
    /// How far it has come.
    pub(crate) stage: Stage,
    /// Its API family.
    pub(crate) kind: RequestKind,
    /// Its model.
    pub(crate) model: String,
    /// What its client has already.
    pub(crate) resume: Option<Resume>,
    /// The cuts of its prompt, if its gateway told them.
    pub(crate) prompt: Prompt,
    /// Its trace.
    pub(crate) trace: Trace,
}

/// How far a request has come.
pub(crate) enum Stage {
    /// Parts of the body are missing.
    Collecting(Collector),
    /// The body is here; the engine has not begun.
    Complete(Bytes),
    /// The engine is at work; dropping this stops it.
    Running(#[allow(dead_code)] Option<Running>),
}
