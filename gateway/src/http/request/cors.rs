//! Which web pages of other origins may read the answers. None by default.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::http::error::SHOULD_RETRY;
use crate::http::origin::Origin;
use crate::http::request::access::RATE_HEADERS;
use crate::http::request::headers::{DECISION, ESTIMATED, IGNORED, WORKER};
use crate::http::request::request_id::{REQUEST_ID, X_REQUEST_ID};

/// Time for which a browser may cache a preflight. Most allow no more than this.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Answers preflights and marks responses for `origins`; `None` if there are none.
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
    let others = [
        X_REQUEST_ID,
        REQUEST_ID,
        RETRY_AFTER,
        SHOULD_RETRY,
        IGNORED,
        ESTIMATED,
        WORKER,
        DECISION,
    ];
    let exposed = RATE_HEADERS.into_iter().chain(others);
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            // Clients send headers of their own (x-stainless-…), and no header is dangerous here.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed.collect::<Vec<_>>())
            .max_age(REMEMBERED),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_origins_there_is_no_layer() {
        assert!(layer(&[]).is_none());
    }
}
