//! Control messages to one worker, and its answers.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use crate::frame::Room;
use crate::name::Name;
use crate::news::TellPrefixes;
use crate::status::WorkerState;
use crate::wire::wire_union;

wire_union! {
    /// A command to one worker from a gateway, the coordinator, an operator or another worker. With a reply subject
    /// it is answered by a [`ControlReply`]; `Cancel` and `Part` are sent without one.
    Control, {
        /// Stop generating: the client has gone, or another worker has the stream.
        Cancel(Cancel) = "cancel",
        /// A further part of a large request body.
        Part(Part) = "part",
        /// Take no new requests and finish those that run.
        Drain(Drain) = "drain",
        /// Take requests again.
        Undrain(Undrain) = "undrain",
        /// Load a model.
        Load(ModelCommand) = "load",
        /// Unload a model.
        Unload(ModelCommand) = "unload",
        /// Are you there?
        Ping(Ping) = "ping",
        /// Which of my streams do you hold? Answered by a frame, in sequence with the others.
        RollCall(RollCall) = "roll_call",
        /// Nobody reads this stream of yours. Sent instead of `Cancel` where its id must not be told.
        Disown(Disown) = "disown",
        /// This id is mine. Sent by a worker to any other worker with its id; never answered.
        Claim(Claim) = "claim",
        /// Tell all gateways what your engine holds in its prefix cache.
        TellPrefixes(TellPrefixes) = "tell_prefixes",
        /// Requests wait here: offer this gateway a slot when its turn comes.
        Waits(Waits) = "waits",
        /// This gateway has no request for slots that it was offered.
        Decline(Decline) = "decline",
    }
}

/// Stop generating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The request.
    pub id: Uuid,
    /// The last attempt to stop. A later attempt under the same id continues.
    pub attempt: u32,
}

/// A further part of a request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The request.
    pub id: Uuid,
    /// The attempt that the part belongs to.
    pub attempt: u32,
    /// Counted from 1: part 0 came in the request.
    pub index: u32,
    /// The bytes.
    pub data: ByteBuf,
}

/// Take no new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drain {
    /// Milliseconds until streams that still run are handed over. If absent, the worker uses its own grace.
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

/// Which streams of this gateway does the worker hold? The answer is `Body::Held` in a frame for stream 0: its
/// place among the other frames shows what was lost. A worker also sends it unasked after it has reconnected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollCall {
    /// Who asks.
    pub gateway: Name,
}

/// Stop a stream that its gateway does not read. It names the stream as its frames do. The request's id is a secret
/// between the gateway and those that it gave the request to, and a worker whose frames were not expected may have
/// invented them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disown {
    /// Who does not read it.
    pub gateway: Name,
    /// The gateway's number for the stream.
    pub stream: u64,
    /// The last attempt to stop.
    pub attempt: u32,
}

/// Requests wait at this gateway. The worker takes it into its round of gateways, and so it does with a gateway that it
/// answers `Busy`. The gateway leaves the round when it declines an offer, or lets one pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Where they wait.
    pub gateway: Name,
}

/// Slots that were offered and are not needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// Who declines.
    pub gateway: Name,
    /// How many.
    pub slots: u32,
}

/// This id is mine. Of two workers with one id, the one that was started later keeps it; at the same millisecond,
/// the one with the higher instance. The other ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Instance of the worker that claims the id.
    pub instance: u64,
    /// Unix time of its start in milliseconds, by its own clock.
    pub started_at_ms: u64,
}

wire_union! {
    /// A worker's answer to a control message.
    ControlReply, {
        /// The worker is there.
        Pong(Pong) = "pong",
        /// Done, or begun.
        Done(Done) = "done",
        /// The worker refuses, and why.
        Refused(Refused) = "refused",
    }
}

/// The worker is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Which worker.
    pub worker: Name,
    /// Its instance. If it differs from the one in `Accepted`, the worker was restarted.
    pub instance: u64,
    /// Its state.
    pub state: WorkerState,
    /// Its free slots and its queue.
    pub room: Room,
}

/// Done, or begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

/// The worker refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for people to read.
    pub message: String,
}

/// A hint on `{ns}.v1.free.{model}.{worker}`: a worker that was full has free slots again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeHint {
    /// Which worker.
    pub worker: Name,
    /// Its free slots and its queue.
    pub room: Room,
}
