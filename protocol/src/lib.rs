//! What travels on the bus: subjects, frames and their codec.
//!
//! Nothing in this crate awaits, reads a clock, or touches a socket. Every subject is made in
//! [`subject`], every message is encoded and decoded by [`codec`], every bound on what a peer may
//! send stands in [`limits`]. Wire structs are MessagePack maps with short keys, so that a newer
//! peer may add fields and an older one passes over them.

pub mod batch;
pub mod capacity;
pub mod codec;
pub mod consumption;
pub mod control;
pub mod event;
pub mod feature;
pub mod frame;
pub mod limits;
pub mod model_token;
pub mod name;
pub mod openai;
mod plain;
pub mod request;
mod smoothed_time;
pub mod status;
pub mod subject;
pub mod usage;
pub mod waiting;
mod wire_enum;

pub use batch::{BatchReader, BatchWriter};
pub use capacity::{Capacity, ModelCapacity, Total, WorkerCapacity};
pub use codec::{DecodeError, EncodeError, decode, encode};
pub use consumption::{Consumption, KeyConsumption};
pub use control::{Control, ControlReply, FreeHint};
pub use event::Event;
pub use feature::{Family, Feature, Features};
pub use frame::{
    Accepted, Body, Delta, EngineError, ErrorCode, Finish, Frame, Held, HeldStream, Reject, RejectReason, Room,
};
pub use name::{Name, NameError};
pub use request::{Parts, Request, RequestKind, Resume, ResumeChoice, TraceContext};
pub use smoothed_time::SmoothedTime;
pub use status::{Capabilities, ModelInfo, ModelLoad, Quantiles, Status, WorkerState};
pub use subject::Subjects;
pub use usage::{UsageOutcome, UsageRecord};
pub use waiting::{ModelWaiting, Waiting};
