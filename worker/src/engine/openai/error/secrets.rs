//! What stays out of messages.

use crate::engine::openai::limits::MAX_ERROR_MESSAGE;

/// What must never stand in a message to a client: keys, and where the engine lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.len() >= 4).collect())
    }

    /// `text` without them, cut to [`MAX_ERROR_MESSAGE`] characters.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut clean: String = text.chars().take(MAX_ERROR_MESSAGE).collect();
        for secret in &self.0 {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), "[hidden]");
            }
        }
        clean
    }
}
