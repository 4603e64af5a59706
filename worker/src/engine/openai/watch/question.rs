//! A small question of the worker's own to its server. The answer tells whether the server is broken, or the requests
//! of clients are to blame that it answered with errors of its own.

use bytes::Bytes;
use serde_json::{Value, json};
use tokenbus_protocol::RequestKind;

use crate::engine::openai::limits::GENERATION_TIMEOUT;
use crate::engine::openai::wire::client::{Client, Path, SendError};

/// What is asked about: requests of this kind for a model, by its name at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) kind: RequestKind,
    pub(crate) upstream: String,
}

/// How the server took the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answered, or had a reason to refuse.
    Works,
    /// It failed.
    Fails,
    /// It said nothing in time.
    Silent,
}

/// Asks the server. One that refuses all forms of the question is given the benefit of the doubt.
pub(crate) async fn ask(client: &Client, topic: &Topic) -> Verdict {
    for (path, question) in questions(topic) {
        let question = Bytes::from(question.to_string());
        match client.ask(path, question, GENERATION_TIMEOUT).await {
            Ok(answer) if answer.status().is_client_error() => {}
            Ok(answer) if answer.status().is_success() => return Verdict::Works,
            Err(SendError::Timeout) => return Verdict::Silent,
            Ok(_) | Err(_) => return Verdict::Fails,
        }
    }
    Verdict::Works
}

/// The forms of the question, the likeliest first.
fn questions(topic: &Topic) -> Vec<(Path<'static>, Value)> {
    let model = topic.upstream.as_str();
    let message = json!([{ "role": "user", "content": "1" }]);
    let chat = json!({ "model": model, "messages": message, "max_tokens": 1 });
    let completion = json!({ "model": model, "prompt": "1", "max_tokens": 1 });
    let (chat, completion) = (
        (Path::Api("chat/completions"), chat),
        (Path::Api("completions"), completion),
    );
    match topic.kind {
        RequestKind::Chat => vec![chat, completion],
        RequestKind::Completion => vec![completion, chat],
        RequestKind::Embeddings => vec![(Path::Api("embeddings"), json!({ "model": model, "input": "1" }))],
        RequestKind::Rerank => {
            let question = json!({ "model": model, "query": "1", "documents": ["1"] });
            vec![(Path::Api("rerank"), question)]
        }
        RequestKind::Score => {
            let question = json!({ "model": model, "text_1": "1", "text_2": "1" });
            vec![(Path::Api("score"), question)]
        }
        RequestKind::Tokenize => {
            let question = json!({ "model": model, "prompt": "1", "content": "1" });
            vec![(Path::Root("tokenize"), question)]
        }
        RequestKind::Detokenize => vec![(Path::Root("detokenize"), json!({ "model": model, "tokens": [1] }))],
        RequestKind::Other => Vec::new(),
    }
}
