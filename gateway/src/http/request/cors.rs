//! Pages of other origins: which of them browsers let read our answers. None by default.

use std::str::FromStr;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, Uri};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::http::error::SHOULD_RETRY;
use crate::http::request::access::RATE_HEADERS;
use crate::http::request::request_id::{REQUEST_ID, X_REQUEST_ID};

/// Time for which a browser remembers what it may send: most let nobody ask for more than this.
const REMEMBERED: Duration = Duration::from_secs(600);

/// An origin, as a browser names it, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every one.
    Any,
    /// This one: `https://example.org`, `http://localhost:3000`.
    One(HeaderValue),
}

/// The text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is written as in https://example.org or http://localhost:3000, without a path; or * for all")]
pub struct NoOrigin;

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let uri: Uri = text.parse().map_err(|_| NoOrigin)?;
        let host = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let (Some(scheme), Some(host)) = (uri.scheme_str(), host) else {
            return Err(NoOrigin);
        };
        // Browsers compare the text, so it must be theirs: no path, no slash, no capitals.
        let origin = format!("{scheme}://{host}").to_ascii_lowercase();
        if text.to_ascii_lowercase() != origin {
            return Err(NoOrigin);
        }
        origin.try_into().map(Self::One).map_err(|_| NoOrigin)
    }
}

/// Answers preflights and marks responses for `origins`; `None` where there are none.
pub(crate) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let listed: Vec<HeaderValue> = origins
        .iter()
        .filter_map(|origin| match origin {
            Origin::Any => None,
            Origin::One(origin) => Some(origin.clone()),
        })
        .collect();
    let allowed = if origins.contains(&Origin::Any) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(listed)
    };
    let others = [X_REQUEST_ID, REQUEST_ID, RETRY_AFTER, SHOULD_RETRY];
    let exposed = RATE_HEADERS.into_iter().chain(others);
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            // Clients send headers of their own (x-stainless-…), and none of ours is a danger.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed.collect::<Vec<_>>())
            .max_age(REMEMBERED),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
        for right in [
            "https://example.org",
            "http://localhost:3000",
            "http://127.0.0.1",
            "app://obsidian.md",
        ] {
            assert_eq!(right.parse(), Ok(Origin::One(HeaderValue::from_static(right))));
        }
        let capitals = "HTTPS://Example.org".parse();
        assert_eq!(
            capitals,
            Ok(Origin::One(HeaderValue::from_static("https://example.org")))
        );
        assert_eq!("*".parse(), Ok(Origin::Any));
        for wrong in [
            "",
            "example.org",
            "https://example.org/",
            "https://a/b",
            "https://",
            "null",
            "https://u@h",
            "*.org",
        ] {
            assert_eq!(wrong.parse::<Origin>(), Err(NoOrigin), "{wrong}");
        }
        assert!(layer(&[]).is_none());
    }
}
