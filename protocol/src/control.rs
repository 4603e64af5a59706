//! Control messages to one worker, and its answers.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use crate::frame::Room;
use crate::name::Name;
use crate::status::WorkerState;
use crate::wire_enum::wire_union;

wire_union! {
    /// What a gateway, the coordinator or an operator tells one worker. Sent with a reply subject,
    /// each is answered by a [`ControlReply`]; cancels and parts are sent without one.
    Control, {
        /// Stop generating: the client left, or another worker has the stream.
        Cancel(Cancel) = "cancel",
        /// A further part of a large request body.
        Part(Part) = "part",
        /// Take no new requests, finish what runs.
        Drain(Drain) = "drain",
        /// Take requests again.
        Undrain(Undrain) = "undrain",
        /// Load a model.
        Load(ModelCommand) = "load",
        /// Unload a model.
        Unload(ModelCommand) = "unload",
        /// Are you there?
        Ping(Ping) = "ping",
        /// Which streams of mine do you have? Answered by a frame among the others.
        RollCall(RollCall) = "roll_call",
        /// This id is mine. From a worker to whoever else has its id; never answered.
        Claim(Claim) = "claim",
    }
}

/// Stop generating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The request.
    pub id: Uuid,
    /// Attempts up to and including this one; a later one under the same id goes on.
    pub attempt: u32,
}

/// A further part of a request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The request.
    pub id: Uuid,
    /// The attempt that the part belongs to.
    pub attempt: u32,
    /// From 1: part 0 came in the request.
    pub index: u32,
    /// The bytes.
    pub data: ByteBuf,
}

/// Take no new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drain {
    /// Milliseconds after which streams that still run are handed over; the worker's own grace
    /// period when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// Take requests again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Undrain {}

/// Load or unload a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCommand {
    /// The model's name.
    pub model: String,
}

/// Are you there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ping {}

/// Which streams of this gateway does the worker have? The answer is `Body::Held` in a frame for stream
/// 0, so that its place among the others says what was lost. A worker also sends it unasked after a
/// reconnect of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollCall {
    /// Who asks.
    pub gateway: Name,
}

/// This id is mine: who says so in vain ends. Of two that run under one id the one that was started later
/// keeps it, and at the same millisecond the one with the higher instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which life of the worker says so.
    pub instance: u64,
    /// Unix time of its start in milliseconds, by its own clock.
    pub started_at_ms: u64,
}

wire_union! {
    /// A worker's answer to a control message.
    ControlReply, {
        /// It is there.
        Pong(Pong) = "pong",
        /// Done, or begun.
        Done(Done) = "done",
        /// It will not, and why.
        Refused(Refused) = "refused",
    }
}

/// The worker is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Which worker.
    pub worker: Name,
    /// Which life of it: another number than in `Accepted` means that it was restarted.
    pub instance: u64,
    /// Its state.
    pub state: WorkerState,
    /// Its room.
    pub room: Room,
}

/// Done, or begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

/// It will not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for a human.
    pub message: String,
}

/// A hint on `{ns}.v1.free.{model}`: a worker that was full has room again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeHint {
    /// Which worker.
    pub worker: Name,
    /// Its room.
    pub room: Room,
}
