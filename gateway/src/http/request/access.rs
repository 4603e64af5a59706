//! Access: checks each request's API key, and tells the client its rate limits.
//!
//! Every path needs a key except those named here, so that a new endpoint is not open by oversight.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::auth::budget::{Budget, currency};
use crate::auth::limiter::RemainingLimits;
use crate::auth::{Auth, AuthError, Caller};
use crate::http::error::HttpError;
use crate::http::format::go_duration;
use crate::http::page;
use crate::http::request::dialect;
use crate::metrics::Metrics;

/// Paths that need no key, in addition to the page's files. They only tell that the gateway is there.
pub(super) const OPEN: [&str; 4] = ["/healthz", "/readyz", "/health", "/ping"];

/// The path that only keys with the right to metrics may read.
const METRICS: &str = "/metrics";

/// The headers for a key, besides `Authorization`: Anthropic's and Azure's.
const KEY_HEADERS: [HeaderName; 2] = [HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// The headers that tell the rate limits. Browsers must be allowed to read them.
pub(crate) const RATE_HEADERS: [HeaderName; 18] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
    HeaderName::from_static("x-ratelimit-limit-tokens-day"),
    HeaderName::from_static("x-ratelimit-remaining-tokens-day"),
    HeaderName::from_static("x-ratelimit-reset-tokens-day"),
    HeaderName::from_static("x-ratelimit-limit-tokens-month"),
    HeaderName::from_static("x-ratelimit-remaining-tokens-month"),
    HeaderName::from_static("x-ratelimit-reset-tokens-month"),
    HeaderName::from_static("x-ratelimit-limit-cost-day"),
    HeaderName::from_static("x-ratelimit-remaining-cost-day"),
    HeaderName::from_static("x-ratelimit-reset-cost-day"),
    HeaderName::from_static("x-ratelimit-limit-cost-month"),
    HeaderName::from_static("x-ratelimit-remaining-cost-month"),
    HeaderName::from_static("x-ratelimit-reset-cost-month"),
];

/// What the layer needs.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) auth: Auth,
    pub(crate) metrics: Metrics,
}

/// Refuses requests without a valid key, and puts the [`Caller`] into the extensions of the others. The router has this
/// layer only if keys are configured.
pub(crate) async fn layer(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) || page::file(path).is_some() {
        return next.run(request).await;
    }
    let caller = match access.auth.authenticate(secrets(request.headers())) {
        Ok(Some(caller)) if path == METRICS && !caller.key().metrics => {
            return dialect::refuse(&request, &HttpError::MetricsNotAllowed);
        }
        Ok(Some(caller)) => caller,
        Ok(None) => return next.run(request).await,
        Err(stranger) => {
            let reason = reason(stranger);
            access.metrics.unauthorized(reason);
            tracing::debug!(path, reason, "request refused: no valid key");
            return dialect::refuse(&request, &HttpError::Unauthorized(stranger));
        }
    };
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    tell(&caller, response.headers_mut());
    response
}

fn reason(stranger: AuthError) -> &'static str {
    match stranger {
        AuthError::NoKey => "no_key",
        AuthError::UnknownKey => "unknown_key",
        AuthError::NotReady => "not_ready",
    }
}

/// The keys that a request carries. There may be several: a client may have a login of its own in one header and the
/// gateway's key in the other.
fn secrets(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, secret) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    let others = KEY_HEADERS.into_iter().flat_map(|name| headers.get_all(name));
    bearer
        .chain(others.map(HeaderValue::as_bytes))
        .map(<[u8]>::trim_ascii)
        .filter(|secret| !secret.is_empty())
}

fn tell(caller: &Caller, headers: &mut HeaderMap) {
    let RemainingLimits {
        requests,
        tokens,
        budgets,
    } = caller.remaining(Instant::now());
    let money = Budget::ALL.map(Budget::is_money);
    let limits = [(requests, false), (tokens, false)]
        .into_iter()
        .chain(budgets.into_iter().zip(money));
    for (names, (left, is_money)) in RATE_HEADERS.chunks_exact(3).zip(limits) {
        let ([limit, remaining, reset], Some(left)) = (names, left) else {
            continue;
        };
        let amount = |amount: u64| {
            let money = is_money.then(|| HeaderValue::try_from(currency(amount).to_string()).ok());
            money.flatten().unwrap_or_else(|| amount.into())
        };
        headers.insert(limit, amount(left.limit));
        headers.insert(remaining, amount(left.remaining));
        if let Ok(time) = HeaderValue::try_from(go_duration(left.reset)) {
            headers.insert(reset, time);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_each_header() {
        let found = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_str(value).unwrap());
            }
            let found: Vec<String> = secrets(&map)
                .map(|secret| String::from_utf8(secret.to_vec()).unwrap())
                .collect();
            found
        };
        for (headers, keys) in [
            (&[("authorization", "Bearer k")][..], &["k"][..]),
            (&[("authorization", "bearer   k ")], &["k"]),
            (&[("x-api-key", "k")], &["k"]),
            (&[("api-key", "k")], &["k"]),
            (&[("authorization", "Basic eDp5"), ("x-api-key", "k")], &["k"]),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], &["a", "b"]),
            (&[("api-key", "c"), ("x-api-key", "b")], &["b", "c"]),
            (&[("authorization", "Bearer "), ("x-api-key", "b")], &["b"]),
            (&[("authorization", "Bearer")], &[]),
            (&[("authorization", "k")], &[]),
            (&[("x-api-key", "")], &[]),
            (&[], &[]),
        ] {
            assert_eq!(found(headers), keys, "{headers:?}");
        }
    }
}
