//! What the APIs that are translated to chat and back share: the conversation and the body that a request becomes,
//! and the blocks that its answer becomes.

pub(crate) mod blocks;
pub(crate) mod chat_body;
pub(crate) mod conversation;
pub(crate) mod count;
pub(crate) mod pieces;
pub(crate) mod streamed_calls;
pub(crate) mod tool_input;
