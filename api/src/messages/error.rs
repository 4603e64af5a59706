//! Errors in Anthropic's form.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::answer::events::push_named;
use crate::answer::{Failure, json};

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    error: ErrorObject<'a>,
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    r#type: &'static str,
    message: &'a str,
}

impl<'a> Envelope<'a> {
    fn new(failure: &Failure<'a>) -> Self {
        Self {
            r#type: "error",
            error: ErrorObject {
                r#type: kind(failure.status),
                message: failure.message,
            },
            request_id: failure.request_id,
        }
    }
}

/// Anthropic's error body as one line of JSON: `{"type":"error","error":{…},"request_id":…}`.
pub fn anthropic_envelope(failure: &Failure<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(128 + failure.message.len());
    json::push(&mut out, &Envelope::new(failure));
    out.freeze()
}

/// Appends the event for a failure after the status has been sent.
pub(super) fn push_failure(failure: &Failure<'_>, out: &mut BytesMut) {
    push_named(out, "error", &Envelope::new(failure));
}

/// Anthropic's word for an error with this status. Clients decide by it whether to try again, so a 503 is an
/// overload.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_error_has_anthropics_members() {
        let failure = Failure {
            status: 404,
            kind: "invalid_request_error",
            message: "no \"m\"",
            param: Some("model"),
            code: Some("model_not_found"),
            request_id: Some("req_1"),
        };
        let told: Value = serde_json::from_slice(&anthropic_envelope(&failure)).unwrap();
        let want = json!({"type": "error", "request_id": "req_1",
            "error": {"type": "not_found_error", "message": "no \"m\""}});
        assert_eq!(told, want);
    }

    #[test]
    fn each_status_has_its_word() {
        let words = [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (405, "invalid_request_error"),
            (408, "invalid_request_error"),
            (413, "request_too_large"),
            (422, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (501, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
        ];
        for (status, word) in words {
            assert_eq!(kind(status), word, "{status}");
        }
    }
}
