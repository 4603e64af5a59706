//! What travels on the bus: subjects, messages and their codec.
//!
//! Nothing in this crate awaits, reads a clock or opens a socket. Every subject is made by [`Subjects`], every
//! message is encoded by [`encode`] and decoded by [`decode`], and every bound on a peer's messages is in
//! `limits.rs`. Wire structs are MessagePack maps, so that a newer peer may add fields and an older one skips them.

// Without `testing`, what that module re-exports is public for nobody.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

mod batch;
mod capabilities;
mod capacity;
mod codec;
mod consumption;
mod control;
mod deadly;
mod event;
mod feature;
mod frame;
mod limits;
mod messages;
mod model_mark;
mod model_token;
mod name;
mod news;
mod openai;
mod plain;
mod repeat;
mod request;
mod smoothed_time;
mod spending;
mod status;
mod story;
mod subject;
mod usage;
mod waiting;
mod wire;

pub use batch::{BatchReader, BatchWriter};
pub use capabilities::Capabilities;
pub use capacity::{Capacity, LostWorker, ModelCapacity, Total, WorkerCapacity};
pub use codec::{DecodeError, EncodeError, Message, decode, encode};
pub use consumption::{Consumption, KeyConsumption};
pub use control::{
    Cancel, Claim, Control, ControlReply, Decline, Disown, Done, Drain, FreeHint, ModelCommand, Part, Ping, Pong,
    Refused, RollCall, Undrain, Waits,
};
pub use deadly::DeadlyRequest;
pub use event::{CoordinatorBeat, Event, EventKind};
pub use feature::{Family, Feature, Features};
pub use frame::{
    Accepted, Alive, Body, Delta, DeltaExtra, EngineError, ErrorCode, Finish, Frame, Held, HeldStream, Offer, Reject,
    RejectReason, Room,
};
pub use limits::{MAX_BATCH, MAX_BODY, MAX_MESSAGE, MAX_MODEL_NAME, MAX_NAME, MAX_PARTS, REQUEST_OVERHEAD};
pub use model_mark::{is_model_mark, model_mark};
pub use model_token::encode_model;
pub use name::{Name, NameError};
pub use news::{ModelPace, TellPrefixes, WorkerNews};
pub use openai::{ADDED_MEMBERS, RawJson, RawJsonError, RawObject};
pub use repeat::{can_be_repeated, is_repeatable};
pub use request::{Parts, Request, RequestKind, Resume, ResumeChoice, TraceContext};
pub use smoothed_time::SmoothedTime;
pub use spending::{Amount, Date, Spending};
pub use status::{ModelInfo, ModelLoad, Quantiles, SlotsFrom, Status, Totals, WorkerReport, WorkerState};
pub use story::{LeftCause, Step, StepKind, Stories, Story, StoryQuestion};
pub use subject::{Models, Out, Permissions, QUEUE_GROUP, SERVICE_NAME, Subjects, is_inbox};
pub use usage::{UsageOutcome, UsageRecord};
pub use waiting::{ModelWaiting, StreamsLeft, Waiting};

/// What only tests and fuzz targets use.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::limits::FORMAT;
}
