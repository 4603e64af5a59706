//! What the APIs that are translated to chat and back have in common: the conversation and the body that are made
//! of a request, and the blocks that its answer is made of.

pub(crate) mod blocks;
pub(crate) mod chat_body;
pub(crate) mod conversation;
pub(crate) mod count;
pub(crate) mod pieces;
