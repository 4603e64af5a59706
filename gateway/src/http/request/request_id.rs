//! `x-request-id`: the client's or a new one, on every response, errors included; and the header that all responses have.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::http::limits::MAX_REQUEST_ID;
use crate::http::request::dialect::is_anthropic;

/// The header.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The same header in Anthropic's API.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// A request's id: 1 to [`MAX_REQUEST_ID`] characters that are safe in a header and in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(X_REQUEST_ID).and_then(|value| sanitized(value.as_bytes()));
        Self(sent.unwrap_or_else(|| format!("req_{}", Uuid::now_v7().simple())))
    }
}

/// The legal characters of the client's id, up to the bound; `None` if there are none.
fn sanitized(sent: &[u8]) -> Option<String> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    let text: String = sent
        .iter()
        .filter(|byte| legal(byte))
        .take(MAX_REQUEST_ID)
        .map(|byte| char::from(*byte))
        .collect();
    Some(text).filter(|text| !text.is_empty())
}

/// Gives the request its id and puts it on the response, which no browser may take for another kind than it says.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let header = HeaderValue::from_str(&id.0);
    request.extensions_mut().insert(id);
    let anthropic = is_anthropic(request.uri().path(), request.headers());
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(header) = header {
        if anthropic {
            response.headers_mut().insert(REQUEST_ID, header.clone());
        }
        response.headers_mut().insert(X_REQUEST_ID, header);
    }
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_decent_id_is_taken_over() {
        let id = "01J-abc_9.z:/+=@~";
        assert_eq!(sanitized(id.as_bytes()).unwrap(), id);
    }

    #[test]
    fn an_indecent_id_is_cleaned_and_cut() {
        assert_eq!(sanitized(b"a\"b\\c d\xff{}<e>").unwrap(), "abcde");
        assert_eq!(sanitized(&[b'x'; 1000]).unwrap().len(), MAX_REQUEST_ID);
        assert_eq!(sanitized(b" \t\xc3\xa4"), None);
    }

    #[test]
    fn without_one_each_request_has_its_own() {
        let (a, b) = (RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
        assert!(a.0.starts_with("req_") && a.0.len() == 36);
        assert_ne!(a, b);
    }
}
