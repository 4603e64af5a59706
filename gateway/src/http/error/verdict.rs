//! How an error is answered: its status, its headers and its error object.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use tokenbus_api::{Failure, openai_envelope};

use crate::http::format::retry_seconds;
use crate::metrics::Outcome;

/// Tells the official SDKs whether to retry, whatever the status.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What a client may compress a body with, as `Accept-Encoding` says it.
const CODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, zstd, identity");

/// The response that an error becomes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// HTTP status.
    pub status: StatusCode,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`.
    pub code: Option<Cow<'static, str>>,
    /// `error.param`.
    pub param: Option<Cow<'static, str>>,
    /// `error.message`.
    pub message: String,
    /// For the `Retry-After` header.
    pub retry_after: Option<Duration>,
    /// The outcome in the metrics.
    pub outcome: Outcome,
    /// Whether to retry, if the status alone would mislead an SDK. By itself, a 429 or a 5xx is worth it.
    pub should_retry: Option<bool>,
    /// Whether the response asks for a key.
    pub challenge: bool,
    /// Whether the response says how a body may be compressed.
    pub codings: bool,
    /// Whether the connection closes after the response, because the request was not read to its end.
    pub close: bool,
}

impl Verdict {
    pub(super) fn new(status: StatusCode, kind: &'static str, outcome: Outcome, message: String) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message,
            retry_after: None,
            outcome,
            should_retry: None,
            challenge: false,
            codings: false,
            close: false,
        }
    }

    pub(super) fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    pub(super) fn param(mut self, param: Option<impl Into<Cow<'static, str>>>) -> Self {
        self.param = param.map(Into::into);
        self
    }

    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The same request would fail again, or do harm.
    pub(super) fn not_again(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    pub(super) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The error as the API's form writes it.
    pub(crate) fn failure(&self) -> Failure<'_> {
        Failure {
            status: self.status.as_u16(),
            kind: self.kind,
            message: &self.message,
            param: self.param.as_deref(),
            code: self.code.as_deref(),
            request_id: None,
        }
    }

    /// The OpenAI error object as one line of JSON: `{"error":{…}}`.
    pub(crate) fn envelope(&self) -> Bytes {
        openai_envelope(&self.failure())
    }

    /// The response with this status and its headers; `body` is JSON.
    pub(crate) fn into_response_with(self, body: Bytes) -> Response {
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, retry_seconds(after).into());
        }
        let passes = self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error();
        if let Some(retry) = self.should_retry.or(passes.then_some(true)) {
            headers.insert(
                SHOULD_RETRY,
                HeaderValue::from_static(if retry { "true" } else { "false" }),
            );
        }
        if self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.codings {
            headers.insert(ACCEPT_ENCODING, CODINGS);
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl IntoResponse for Verdict {
    fn into_response(self) -> Response {
        let body = self.envelope();
        self.into_response_with(body)
    }
}
