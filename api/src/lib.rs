//! The public APIs of tokenbus, each as a translation: what a client sent is checked and becomes the one internal
//! request that goes through the cluster, and the deltas that come back become what the client reads. Pure: nothing
//! here waits, reads a clock or decides a status.
//!
//! The check of an API makes a [`Checked`] of a body, or says with a [`RequestError`] what is wrong and where. The
//! [`Form`] in it writes the answer: event by event, or in one piece. Each API has a module of its own. The Responses
//! and the Messages API become chat and come back from it.

mod answer;
mod chat;
mod completions;
mod delta;
mod embeddings;
mod generation;
mod limits;
mod messages;
mod models;
mod ollama;
mod rank;
mod request;
mod responses;
#[cfg(test)]
mod sample_tests;
mod tokens;
mod translation;

pub use answer::{
    AnswerError, Collect, Encoder, Failure, Form, Identity, Template, Times, cached_tokens, openai_envelope,
};
pub use chat::{WithoutTools, check_chat, without_offered_tools};
pub use completions::check_completion;
pub use embeddings::check_embeddings;
pub use limits::MAX_ANSWER;
pub use messages::{
    MESSAGE_ID_PREFIX, ModelInfo, ModelPage, PageQuery, anthropic_envelope, check_message, check_message_count,
};
pub use models::{ListedModel, ModelList, ModelObject};
pub use ollama::{
    LoadAnswer, OLLAMA_VERSION, OllamaAsk, RunningModels, ShownModel, TaggedModels, ask_chat, ask_embed,
    ask_embeddings, ask_generate, model_in, ollama_envelope, other_name, pull_answer,
};
pub use rank::{check_rerank, check_score};
pub use request::cache_salt::with_cache_salt;
pub use request::engine_rules::{EngineRules, MediaUrls};
pub use request::{Checked, PromptEstimate, RequestError, estimate, estimated_tokens};
pub use responses::{
    ItemPage, KeptError, KeptResponse, KnownResponses, RESPONSE_ID_PREFIX, ResponseForm, ResponseRequest, Seal,
    SealKey, SealKeyId, SealNeed, TranslatedRequest,
};
pub use tokens::{check_detokenize, check_tokenize};

/// What only the fuzz targets use.
#[cfg(feature = "testing")]
pub mod testing {
    use crate::{chat, completions, limits};

    /// The most choices that a chat completion can ask for.
    pub const MAX_CHOICES: u32 = limits::MAX_CHOICES;

    /// The choices that a chat completion request asks for; `None` if it is refused.
    pub fn chat_choices(body: &[u8]) -> Option<u32> {
        chat::chat_view(body).ok().map(|view| view.choices)
    }

    /// The choices that a text completion request asks for; `None` if it is refused.
    pub fn completion_choices(body: &[u8]) -> Option<u32> {
        completions::completion_view(body).ok().map(|view| view.choices)
    }
}
