//! OpenAI's Responses API as a translation: its request becomes a chat request, and the chat's answer becomes items and
//! events.
//!
//! [`ResponseRequest`] is a request and its translation, [`ResponseForm`] writes the answer. A [`KeptResponse`] can be
//! read again, and a conversation can continue from it.

mod echo;
mod flat_names;
mod free_text;
mod hosted;
mod ids;
mod input;
mod item;
mod kept;
mod kept_items;
mod request;
mod response;
mod seal;
mod tools;
mod writer;

pub use ids::RESPONSE_ID_PREFIX;
pub use kept::{ItemPage, KeptError, KeptResponse, KnownResponses};
#[cfg(test)]
pub(crate) use request::COUNT;
pub use request::{ResponseRequest, TranslatedRequest};
pub use response::ResponseForm;
pub use seal::{Seal, SealKey, SealKeyId, SealNeed};
