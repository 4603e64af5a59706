//! JSON of the OpenAI API that passes through the cluster unread.

mod raw_json;
mod raw_object;

pub use raw_json::{RawJson, RawJsonError};
pub use raw_object::RawObject;
