//! The built-in page at `/`: its files, which are part of the program. They hold no data:
//! what the page shows it asks for like any other client, with the key that its user gives it.

use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// Nothing but these files, and nobody but this gateway is spoken to. The icon is within the document.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
#[derive(Debug)]
pub(crate) struct File {
    /// Where it is.
    pub(crate) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// All of them. Anybody may read them, also where keys are asked for.
pub(crate) static FILES: [File; 4] = [
    File {
        path: "/",
        kind: "text/html; charset=utf-8",
        text: include_str!("index.html"),
    },
    File {
        path: "/page.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("page.css"),
    },
    File {
        path: "/page.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("page.js"),
    },
    File {
        path: "/page-cluster.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("page-cluster.js"),
    },
];

impl File {
    /// Its route.
    pub(crate) fn route<S: Clone + Send + Sync + 'static>(&'static self) -> MethodRouter<S> {
        get(async || self.response())
    }

    fn response(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            // Another version of the gateway has another page.
            (CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.text).into_response()
    }
}
