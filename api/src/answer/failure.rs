//! A failure as a client is told of it, and OpenAI's JSON for it.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::json;

/// A failure as a client is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The failure's HTTP status, also where the answer's own status has been sent already.
    pub status: u16,
    /// OpenAI's `error.type`.
    pub kind: &'a str,
    /// A sentence.
    pub message: &'a str,
    /// The member of the request that is to blame.
    pub param: Option<&'a str>,
    /// A word for programs.
    pub code: Option<&'a str>,
    /// The request's id, for APIs that repeat it in the error.
    pub request_id: Option<&'a str>,
}

impl<'a> Failure<'a> {
    /// The same failure, of the request `id`.
    #[must_use]
    pub fn of(self, id: &'a str) -> Self {
        Self {
            request_id: Some(id),
            ..self
        }
    }
}

/// OpenAI's error object.
#[derive(Serialize)]
pub(crate) struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl<'a> From<&Failure<'a>> for OpenAiError<'a> {
    fn from(failure: &Failure<'a>) -> Self {
        Self {
            message: failure.message,
            r#type: failure.kind,
            param: failure.param,
            code: failure.code,
        }
    }
}

/// OpenAI's error body as one line of JSON: `{"error":{…}}`.
pub fn openai_envelope(failure: &Failure<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: OpenAiError<'a>,
    }
    let mut out = BytesMut::with_capacity(128 + failure.message.len());
    let error = failure.into();
    json::push(&mut out, &Envelope { error });
    out.freeze()
}
