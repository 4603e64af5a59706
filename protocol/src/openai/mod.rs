//! JSON of the OpenAI API that passes through the cluster unread.

mod raw_json;
mod raw_object;

/// The member of a request in which the gateway lists members that its translation of another API made, as paths
/// (`a.b`): what no client wrote, and an engine that refuses it is asked without. A worker takes the list out.
pub const ADDED_MEMBERS: &str = "tokenbus_added";

pub use raw_json::{RawJson, RawJsonError};
pub use raw_object::RawObject;
