//! How answers are written, whatever their API: the seam ([`Form`]), and what several APIs share.

pub(crate) mod collect;
pub(crate) mod events;
pub(crate) mod form;
pub(crate) mod json;
mod merge;
pub(crate) mod text_logprobs;
pub(crate) mod usage;
pub(crate) mod whole;

pub use form::{Collect, Encoder, Failure, Form, Template, envelope};
pub use usage::cached_tokens;
