//! `GET /openapi.json`: one document, put together from the JSON parts in this folder.
//!
//! `base.json` holds traits: members that many operations share. An operation names its traits and gets their members
//! in addition to its own.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use crate::call::CallError;
use crate::http::error::HttpError;

const PARTS: [&str; 15] = [
    include_str!("base.json"),
    include_str!("errors.json"),
    include_str!("chat.json"),
    include_str!("chat_answer.json"),
    include_str!("completions.json"),
    include_str!("embeddings.json"),
    include_str!("rank.json"),
    include_str!("tokens.json"),
    include_str!("responses.json"),
    include_str!("responses_schemas.json"),
    include_str!("messages.json"),
    include_str!("ollama.json"),
    include_str!("ollama_schemas.json"),
    include_str!("models.json"),
    include_str!("gateway.json"),
];

/// The document's member that holds the traits, and the operations' member that names them.
const TRAITS: &str = "x-traits";

static DOCUMENT: LazyLock<Result<Bytes, String>> =
    LazyLock::new(|| document().map(|document| Bytes::from(document.to_string())));

/// Answers with the document.
pub(crate) async fn show() -> Result<Response, HttpError> {
    match &*DOCUMENT {
        Ok(text) => Ok(([(CONTENT_TYPE, "application/json")], text.clone()).into_response()),
        Err(error) => Err(CallError::Internal(format!("the OpenAPI document: {error}")).into()),
    }
}

/// Puts the document together.
fn document() -> Result<Value, String> {
    let mut whole = Value::Object(Map::new());
    for part in PARTS {
        let part: Value = serde_json::from_str(part).map_err(|error| error.to_string())?;
        merge(&mut whole, part);
    }
    let traits = match whole.as_object_mut().and_then(|whole| whole.remove(TRAITS)) {
        Some(Value::Object(traits)) => traits,
        _ => return Err("there are no traits".to_owned()),
    };
    let paths = whole.get_mut("paths").and_then(Value::as_object_mut);
    let operations = paths.into_iter().flat_map(|paths| paths.values_mut());
    let operations = operations.filter_map(Value::as_object_mut);
    for operation in operations.flat_map(|path| path.values_mut()) {
        expand(operation, &traits)?;
    }
    if let Some(info) = whole.get_mut("info").and_then(Value::as_object_mut) {
        info.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    }
    Ok(whole)
}

/// Adds the members of an operation's traits; its own members win.
fn expand(operation: &mut Value, traits: &Map<String, Value>) -> Result<(), String> {
    let named = operation.as_object_mut().and_then(|members| members.remove(TRAITS));
    let named: Vec<String> =
        serde_json::from_value(named.unwrap_or_else(|| Value::Array(Vec::new()))).map_err(|error| error.to_string())?;
    for name in named {
        let shared = traits.get(&name).ok_or_else(|| format!("no trait {name:?}"))?;
        merge(operation, shared.clone());
    }
    Ok(())
}

/// Adds the members of objects and the elements of arrays in `from` to `into`. Any other value in `into` stays.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(&name) {
                    Some(known) => merge(known, value),
                    None => {
                        into.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "tests.rs"]
mod tests;
