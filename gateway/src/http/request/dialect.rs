//! The form of an error that comes before any endpoint: OpenAI's, Anthropic's or Ollama's. The path decides, and where
//! two APIs share a path, or it belongs to none, a header.

use axum::response::Response;
use http::{HeaderMap, Request};
use tokenbus_api::{anthropic_envelope, ollama_envelope, openai_envelope};

use crate::auth::Caller;
use crate::http::error::HttpError;
use crate::http::request::refusals::{self, Refused};
use crate::http::request::request_id::RequestId;

/// The root of the paths that only Anthropic's API has.
pub(crate) const MESSAGES: &str = "/v1/messages";

/// The roots of the paths that only OpenAI's API has.
const OPENAI: [&str; 4] = ["/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/responses"];

const ANTHROPIC_VERSION: &str = "anthropic-version";

/// Whether a request for `path` with these headers speaks Anthropic's API.
pub(crate) fn is_anthropic(path: &str, headers: &HeaderMap) -> bool {
    let at_or_below = |root| {
        let below = path.strip_prefix(root);
        below.is_some_and(|below: &str| below.is_empty() || below.starts_with('/'))
    };
    at_or_below(MESSAGES) || (headers.contains_key(ANTHROPIC_VERSION) && !OPENAI.into_iter().any(at_or_below))
}

/// Whether a request for `path` speaks Ollama's own API.
pub(crate) fn is_ollama(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// Refuses `request` with `error`.
pub(crate) fn refuse<B>(request: &Request<B>, error: &HttpError) -> Response {
    let verdict = error.verdict();
    let id = request.extensions().get::<RequestId>();
    let id = id.map(|id| id.0.as_str());
    let caller = request.extensions().get::<Caller>();
    let refused = Refused {
        request: id.unwrap_or_default(),
        api: request.uri().path(),
        key: caller.map(|caller| caller.key().name.as_str()),
        model: None,
    };
    refusals::tell(refused, &verdict);
    let mut failure = verdict.failure();
    failure.request_id = id;
    let body = if is_anthropic(request.uri().path(), request.headers()) {
        anthropic_envelope(&failure)
    } else if is_ollama(request.uri().path()) {
        ollama_envelope(&failure)
    } else {
        openai_envelope(&failure)
    };
    verdict.into_response_with(body)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn anthropics_requests_are_those_for_messages_and_those_that_say_so() {
        let mut headers = HeaderMap::new();
        assert!(is_anthropic("/v1/messages", &headers));
        assert!(is_anthropic("/v1/messages/count_tokens", &headers));
        for other in ["/v1/messagesx", "/v1/chat/completions", "/", "/v1/models"] {
            assert!(!is_anthropic(other, &headers), "{other}");
        }
        headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
        assert!(is_anthropic("/v1/models", &headers) && is_anthropic("/v1/models/a/b", &headers));
        assert!(is_anthropic("/v1/complete", &headers) && is_anthropic("/v1/files", &headers));
        assert!(!is_anthropic("/v1/chat/completions", &headers) && !is_anthropic("/v1/responses/x", &headers));
    }
    #[test]
    fn ollamas_requests_are_those_below_its_root() {
        for path in ["/api", "/api/", "/api/chat", "/api/unknown/x"] {
            assert!(is_ollama(path), "{path}");
        }
        for other in ["/", "/apis", "/v1/api/chat"] {
            assert!(!is_ollama(other), "{other}");
        }
    }
}
