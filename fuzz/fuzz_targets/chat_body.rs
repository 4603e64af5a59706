//! The body of a request, of a chat above all: any bytes are checked or refused, never a panic, and what is
//! accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::chat::check;
use tokenbus_api::limits::MAX_CHOICES;
use tokenbus_api::request::RequestError;
use tokenbus_api::{completions, embeddings, rank, tokens};
use tokenbus_protocol::limits::MAX_MODEL_NAME;

fuzz_target!(|bytes: &[u8]| {
    let _ = completions::check(bytes);
    let _ = embeddings::check(bytes);
    let _ = (rank::check_rerank(bytes), rank::check_score(bytes));
    let _ = (tokens::check_tokenize(bytes), tokens::check_detokenize(bytes));
    match check(bytes) {
        Ok(view) => {
            assert!(!view.model.is_empty() && view.model.len() <= MAX_MODEL_NAME);
            assert!((1..=MAX_CHOICES).contains(&view.n));
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let located = match &error {
                RequestError::NotUtf8(at) => *at < bytes.len(),
                RequestError::Syntax { line, .. } => *line >= 1,
                _ => true,
            };
            assert!(located, "{error:?}");
        }
    }
});
