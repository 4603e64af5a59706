//! The types that are messages: their decoders are compiled here.

use serde::Deserialize as _;

use crate::capacity::Capacity;
use crate::codec::{DecodeError, Message, decoder};
use crate::consumption::Consumption;
use crate::control::{Control, ControlReply, FreeHint};
use crate::deadly::DeadlyRequest;
use crate::event::{CoordinatorBeat, Event};
use crate::news::WorkerNews;
use crate::request::Request;
use crate::status::Status;
use crate::story::{Stories, Story, StoryQuestion};
use crate::usage::UsageRecord;
use crate::waiting::Waiting;

macro_rules! messages {
    ($($message:ty),+ $(,)?) => {$(
        impl<'a> Message<'a> for $message {
            fn read(payload: &'a [u8]) -> Result<Self, DecodeError> {
                Ok(Self::deserialize(&mut decoder(payload))?)
            }
        }
    )+};
}

messages! {
    Capacity,
    Consumption,
    Control,
    ControlReply,
    CoordinatorBeat,
    DeadlyRequest,
    Event,
    FreeHint,
    Request<'a>,
    Status,
    Stories,
    Story,
    StoryQuestion,
    UsageRecord,
    Waiting,
    WorkerNews,
}

// Parts of messages, which only tests read alone.
#[cfg(any(test, feature = "testing"))]
messages! {
    crate::frame::Delta<'a>,
    crate::feature::Features,
    crate::openai::RawJson,
    crate::frame::RejectReason,
}
