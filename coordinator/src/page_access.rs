//! Who may read the status page: without a token, whoever reaches it and is no foreign web page.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokenbus_http_parts::{AllowedHost, WebGuard};

/// Paths that need no token. They only tell that the coordinator is there.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Who may read the page.
#[derive(Debug, Clone, Default)]
pub struct PageAccess {
    /// What `/metrics` and `/capacity` ask for.
    pub token: Option<PageToken>,
    /// Names under which the page may be asked without a token, beside its addresses and `localhost`.
    pub allowed_hosts: Vec<AllowedHost>,
}

/// The secret of those who may read the page.
#[derive(Clone, PartialEq, Eq)]
pub struct PageToken(String);

impl PageToken {
    /// Takes `text` without the white space around it; `None` if that is empty.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Whether `headers` bring it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.get_all(AUTHORIZATION).iter().any(|value| {
            let Some((scheme, sent)) = value.as_bytes().split_at_checked(7) else {
                return false;
            };
            scheme.eq_ignore_ascii_case(b"bearer ") && is_same(self.0.as_bytes(), sent.trim_ascii())
        })
    }
}

impl fmt::Debug for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageToken(…)")
    }
}

/// Compares without telling by its time how much is right.
fn is_same(secret: &[u8], sent: &[u8]) -> bool {
    let unlike = secret.iter().zip(sent).fold(0, |unlike, (a, b)| unlike | (a ^ b));
    secret.len() == sent.len() && std::hint::black_box(unlike) == 0
}

/// [`PageAccess`], ready to check.
#[derive(Debug)]
pub(crate) struct Checks {
    token: Option<PageToken>,
    guard: WebGuard,
}

impl Checks {
    pub(crate) fn new(access: PageAccess) -> Arc<Self> {
        Arc::new(Self {
            token: access.token,
            guard: WebGuard {
                hosts: access.allowed_hosts,
                ..WebGuard::default()
            },
        })
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The response that refuses it.
    fn check(&self, request: &Request) -> Result<(), Box<Response>> {
        if OPEN.contains(&request.uri().path()) {
            return Ok(());
        }
        if let Some(token) = &self.token {
            return if token.is_in(request.headers()) {
                Ok(())
            } else {
                let asked = [(WWW_AUTHENTICATE, "Bearer")];
                let text = "This page asks for the token of --page-token, as in 'Authorization: Bearer TOKEN'\n";
                Err(Box::new((StatusCode::UNAUTHORIZED, asked, text).into_response()))
            };
        }
        let checked = self.guard.check(request.method(), request.uri(), request.headers());
        checked.map_err(|foreign| {
            let text = format!("{foreign}. --allowed-host adds a name, --page-token asks for a secret instead\n");
            Box::new((StatusCode::FORBIDDEN, text).into_response())
        })
    }
}

/// Refuses whoever may not read the page.
pub(crate) async fn layer(State(checks): State<Arc<Checks>>, request: Request, next: Next) -> Response {
    let mut response = match checks.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(access: &PageAccess, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match Checks::new(access.clone()).check(&request.body(Body::empty()).unwrap()) {
            Ok(()) => StatusCode::OK,
            Err(refusal) => refusal.status(),
        }
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one_but_not_for_health() {
        let access = PageAccess {
            token: PageToken::new(" s3cret\n"),
            ..PageAccess::default()
        };
        for path in ["/metrics", "/capacity", "/else"] {
            for wrong in [
                "Bearer s3cre",
                "Bearer s3cretx",
                "Bearer ",
                "Bearer",
                "s3cret",
                "Basic s3cret",
            ] {
                let status = status(&access, path, &[("authorization", wrong)]);
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong}");
            }
            assert_eq!(status(&access, path, &[]), StatusCode::UNAUTHORIZED);
            let right = [("authorization", "bearer s3cret"), ("host", "page.example.org")];
            assert_eq!(status(&access, path, &right), StatusCode::OK);
        }
        assert_eq!(status(&access, "/readyz", &[]), StatusCode::OK);
        assert_eq!(format!("{access:?}").find("s3cret"), None);
        assert_eq!(PageToken::new(" \n"), None);
    }

    #[test]
    fn without_a_token_foreign_pages_are_refused() {
        let mut access = PageAccess::default();
        let rebound = [("host", "page.example.org:8081")];
        assert_eq!(status(&access, "/capacity", &rebound), StatusCode::FORBIDDEN);
        assert_eq!(status(&access, "/healthz", &rebound), StatusCode::OK);
        let framed = [("host", "127.0.0.1:8081"), ("sec-fetch-site", "cross-site")];
        assert_eq!(status(&access, "/capacity", &framed), StatusCode::FORBIDDEN);
        assert_eq!(status(&access, "/capacity", &framed[..1]), StatusCode::OK);
        access.allowed_hosts.push("page.example.org".parse().unwrap());
        assert_eq!(status(&access, "/capacity", &rebound), StatusCode::OK);
    }
}
