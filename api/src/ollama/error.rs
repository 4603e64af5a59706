//! Errors in Ollama's form.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::answer::{Failure, json};

/// Ollama's error body as one line of JSON: `{"error":"…"}`.
pub fn ollama_envelope(failure: &Failure<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: &'a str,
    }
    let mut out = BytesMut::with_capacity(32 + failure.message.len());
    let error = failure.message;
    json::push(&mut out, &Envelope { error });
    out.freeze()
}
