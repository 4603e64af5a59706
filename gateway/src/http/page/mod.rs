//! The files of the built-in page at `/`, which are part of the program. They hold no data: the page asks the API for
//! everything, like any other client, with the key that its user enters.

use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};

/// The page loads only these files and talks only to this gateway. The icon is in the document.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path.
    pub(crate) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// All files. Anybody may read them, even if the gateway asks for keys.
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
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            // Another version of the gateway may have another page.
            (CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.text).into_response()
    }
}
