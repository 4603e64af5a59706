//! Answers in one piece of the simulated engine: embeddings, ranks, scores and token ids. Each follows from the
//! request's texts alone. Pure.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenbus_protocol::{EngineError, ErrorCode, RequestKind};

use super::fixed_answer::{FixedAnswer, Piece};
use crate::refusal::refusal;

/// Length of an embedding whose request does not set one.
const DIMENSIONS: usize = 8;

/// Greatest length of an embedding.
const MAX_DIMENSIONS: usize = 4096;

/// First id for words that are not the engine's own tokens `t0`, `t1`, ….
const WORDS: u64 = 1_000_000;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    input: Value,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default)]
    query: Value,
    #[serde(default)]
    documents: Vec<Value>,
    #[serde(default)]
    top_n: Option<usize>,
    #[serde(default)]
    text_1: Value,
    #[serde(default)]
    text_2: Value,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    tokens: Vec<u64>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Value,
}

/// The answer to a request of `kind`, and its prompt tokens.
///
/// # Errors
/// The error with which an engine refuses a request that it cannot serve.
pub(super) fn answer(kind: RequestKind, body: &[u8], context: Option<u64>) -> Result<(FixedAnswer, u64), EngineError> {
    let body: Body = serde_json::from_slice(body)
        .map_err(|e| refusal(ErrorCode::BadRequest, format!("The request cannot be read: {e}"), None))?;
    let (answer, tokens) = match kind {
        RequestKind::Embeddings => embeddings(&body)?,
        RequestKind::Rerank => rerank(&body),
        RequestKind::Score => score(&body),
        RequestKind::Tokenize => tokenize(&body, context),
        RequestKind::Detokenize => detokenize(&body),
        RequestKind::Chat | RequestKind::Completion | RequestKind::Other => {
            let message = "The simulated engine does not know this kind of request".to_owned();
            return Err(refusal(ErrorCode::BadRequest, message, None));
        }
    };
    Ok((document(&answer), tokens))
}

/// The document, with the mark that the gateway replaces by the model's name.
fn document(answer: &Value) -> FixedAnswer {
    let text = answer.to_string();
    let pieces = match text.split_once(NAME) {
        Some((head, tail)) => vec![Piece::Text(head.to_owned()), Piece::Mark, Piece::Text(tail.to_owned())],
        None => vec![Piece::Text(text)],
    };
    FixedAnswer {
        pieces,
        finish_reason: None,
    }
}

/// Placeholder for the model's name while a document is built, quotes included.
const NAME: &str = "\"\\u0000model\\u0000\"";
const NAME_VALUE: &str = "\0model\0";

fn usage(tokens: u64) -> Value {
    json!({"prompt_tokens": tokens, "total_tokens": tokens})
}

/// A text, or the text of an array of token ids.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).map(word_of_id).collect(),
        Value::Object(object) => object.get("text").map(text_of).unwrap_or_default(),
        _ => String::new(),
    }
}

fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) if !list.first().is_some_and(Value::is_number) => list.iter().map(text_of).collect(),
        one => vec![text_of(one)],
    }
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

fn embeddings(body: &Body) -> Result<(Value, u64), EngineError> {
    let dimensions = body.dimensions.unwrap_or(DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let message = format!("dimensions must be between 1 and {MAX_DIMENSIONS}");
        return Err(refusal(ErrorCode::BadRequest, message, Some("dimensions")));
    }
    let base64 = match body.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            let message = "encoding_format must be float or base64".to_owned();
            return Err(refusal(ErrorCode::BadRequest, message, Some("encoding_format")));
        }
    };
    let texts = texts_of(&body.input);
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding = if base64 { json!(encoded(&vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens = texts.iter().map(|text| words(text)).sum();
    let answer = json!({"object": "list", "data": data, "model": NAME_VALUE, "usage": usage(tokens)});
    Ok((answer, tokens))
}

/// FNV-1a, which is the same on every machine.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// A vector of length 1 that follows from the text alone.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(hash(text));
    let numbers: Vec<f64> = (0..dimensions).map(|_| random.f64() - 0.5).collect();
    let length = numbers.iter().map(|n| n * n).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    numbers.iter().map(|n| (n / length) as f32).collect()
}

/// The numbers as little-endian bytes in base64, as OpenAI sends them.
fn encoded(vector: &[f32]) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Share of the query's words that occur in the text, 0 to 1.
#[allow(clippy::cast_precision_loss)]
fn likeness(query: &str, text: &str) -> f64 {
    let of = |text: &str| -> BTreeSet<String> { text.split_whitespace().map(str::to_lowercase).collect() };
    let (query, text) = (of(query), of(text));
    query.intersection(&text).count() as f64 / query.len().max(1) as f64
}

fn rerank(body: &Body) -> (Value, u64) {
    let query = text_of(&body.query);
    let mut results: Vec<(usize, f64, String)> = body
        .documents
        .iter()
        .map(text_of)
        .enumerate()
        .map(|(index, text)| (index, likeness(&query, &text), text))
        .collect();
    let tokens = words(&query) * results.len() as u64 + results.iter().map(|(_, _, text)| words(text)).sum::<u64>();
    results.sort_by(|a, b| b.1.total_cmp(&a.1));
    results.truncate(body.top_n.unwrap_or(usize::MAX));
    let results: Vec<Value> = results
        .into_iter()
        .map(|(index, score, text)| json!({"index": index, "document": {"text": text}, "relevance_score": score}))
        .collect();
    let answer = json!({"model": NAME_VALUE, "results": results, "usage": usage(tokens)});
    (answer, tokens)
}

fn score(body: &Body) -> (Value, u64) {
    let (first, second) = (texts_of(&body.text_1), texts_of(&body.text_2));
    let pairs: Vec<(String, String)> = if first.len() == 1 {
        let query = first.first().cloned().unwrap_or_default();
        second.into_iter().map(|text| (query.clone(), text)).collect()
    } else {
        first.into_iter().zip(second).collect()
    };
    let data: Vec<Value> = pairs
        .iter()
        .enumerate()
        .map(|(index, (a, b))| json!({"index": index, "object": "score", "score": likeness(a, b)}))
        .collect();
    let tokens = pairs.iter().map(|(a, b)| words(a) + words(b)).sum();
    let answer = json!({"object": "list", "model": NAME_VALUE, "data": data, "usage": usage(tokens)});
    (answer, tokens)
}

/// One token per word. The engine's own words have their number as id, others their hash.
fn tokenize(body: &Body, context: Option<u64>) -> (Value, u64) {
    let messages = body.messages.iter().map(|message| match &message.content {
        Value::Array(parts) => parts.iter().map(|part| text_of(part) + " ").collect(),
        content => text_of(content) + " ",
    });
    let text = body.prompt.clone().or(body.content.clone());
    let text = text.unwrap_or_else(|| messages.collect::<String>());
    let own = |word: &str| word.strip_prefix('t').and_then(|number| number.parse::<u64>().ok());
    let id = |word: &str| {
        own(word)
            .filter(|id| *id < WORDS)
            .unwrap_or_else(|| WORDS + hash(word) % WORDS)
    };
    let tokens: Vec<u64> = text.split_whitespace().map(id).collect();
    let count = tokens.len() as u64;
    (
        json!({"count": count, "max_model_len": context, "tokens": tokens}),
        count,
    )
}

/// The text of token ids.
pub(super) fn text_of_ids(ids: &[u64]) -> String {
    ids.iter().copied().map(word_of_id).collect()
}

fn word_of_id(id: u64) -> String {
    if id < WORDS {
        format!("t{id} ")
    } else {
        format!("<{id}> ")
    }
}

fn detokenize(body: &Body) -> (Value, u64) {
    let text = text_of_ids(&body.tokens);
    (json!({"prompt": text, "content": text}), body.tokens.len() as u64)
}

#[cfg(test)]
#[path = "unary_tests.rs"]
mod tests;
