//! What chat and text completions share: the encoder of chunks and the collector of whole answers.

pub(crate) mod collector;
pub(crate) mod encoder;
mod merge;
