//! How answers are written, whatever their API: the traits that each API implements, and what several APIs share.

mod error;
mod failure;
mod form;
mod identity;

pub(crate) mod events;
pub(crate) mod json;
pub(crate) mod usage;
pub(crate) mod verbatim;

pub use error::AnswerError;
pub use failure::{Failure, openai_envelope};
pub use form::{Collect, Encoder, Form, Template, Times};
pub use identity::Identity;
pub use usage::cached_tokens;
