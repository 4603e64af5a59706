//! The files of the built-in page at `/`, which are part of the program. They hold no data: the page asks the API for
//! everything, like any other client, with the key that its user enters.

use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};

/// The page loads only these files and talks only to this gateway. The icon is in the document. Text becomes elements in
/// the sanitiser only, where the browser knows trusted types.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types dompurify";

/// One file of the page.
#[derive(Debug)]
pub(crate) struct File {
    path: &'static str,
    text: &'static str,
}

/// The page itself and its parts, each below `/page/`.
macro_rules! files {
    ($page:literal, $($part:literal),*) => {
        &[
            File { path: "/", text: include_str!($page) },
            $(File { path: concat!("/page/", $part), text: include_str!($part) }),*
        ]
    };
}

static FILES: &[File] = files![
    "index.html",
    "page.css",
    "chat.css",
    "cluster.css",
    "page.js",
    "answer.js",
    "chart.js",
    "chat.js",
    "cluster.js",
    "detail.js",
    "dom.js",
    "gateway.js",
    "history.js",
    "markdown.js",
    "models.js",
    "rows.js",
    "settings.js",
    "storage.js",
    "vendor/marked.esm.js",
    "vendor/purify.min.js"
];

/// The file at `path`. Anybody may read it, even if the gateway asks for keys.
pub(crate) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// The paths of all files.
#[cfg(feature = "testing")]
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|file| file.path)
}

impl File {
    /// The file as an answer.
    pub(crate) fn response(&self) -> Response {
        let kind = match self.path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        let headers = [
            (CONTENT_TYPE, kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            // Another version of the gateway may have another page.
            (CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.text).into_response()
    }
}
