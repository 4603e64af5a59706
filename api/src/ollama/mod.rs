//! Ollama's own API as a translation: its requests become chats, text completions and embeddings, and the answers
//! become its lines of JSON.

mod answer;
mod ask;
mod embed;
mod error;
mod lines;
mod messages;
mod models;
mod names;
mod options;
mod tool_calls;

pub use ask::{LoadAnswer, OllamaAsk, ask_chat, ask_generate};
pub use embed::{ask_embed, ask_embeddings};
pub use error::ollama_envelope;
pub use models::{RunningModels, ShownModel, TaggedModels, model_in, pull_answer};
pub use names::other_name;

/// The version of Ollama whose API this is. Clients ask for it and refuse servers that are too old.
pub const OLLAMA_VERSION: &str = "0.18.0";
