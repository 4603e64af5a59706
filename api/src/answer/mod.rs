//! How answers are written, whatever their API: the seam ([`Form`]), and what several APIs share.

pub(crate) mod events;
pub(crate) mod form;
pub(crate) mod json;
pub(crate) mod usage;
pub(crate) mod verbatim;

pub use form::{Collect, Encoder, Failure, Form, Template, envelope};
pub use usage::cached_tokens;
