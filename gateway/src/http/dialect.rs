//! In which API's form an error is told that comes before any endpoint is asked: by the path.

use axum::extract::Request;
use axum::response::Response;

use super::error::HttpError;
use super::messages;
use super::request_id::RequestId;
use crate::api::form::envelope;
use crate::api::messages::error as anthropic;

/// Whether `path` belongs to Anthropic's API.
pub(super) fn is_anthropic(path: &str) -> bool {
    let below = path.strip_prefix(messages::ENDPOINT.path);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Refuses `request` with `error`.
pub(super) fn refuse(request: &Request, error: &HttpError) -> Response {
    let verdict = error.verdict();
    let id = request.extensions().get::<RequestId>();
    let mut failure = verdict.failure();
    failure.request_id = id.map(|id| id.0.as_str());
    let body = if is_anthropic(request.uri().path()) {
        anthropic::envelope(&failure)
    } else {
        envelope(&failure)
    };
    verdict.into_response_with(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropics_paths_are_those_of_its_messages() {
        assert!(is_anthropic("/v1/messages"));
        assert!(is_anthropic("/v1/messages/count_tokens"));
        for other in ["/v1/messagesx", "/v1/chat/completions", "/", "/v1/responses"] {
            assert!(!is_anthropic(other), "{other}");
        }
    }
}
