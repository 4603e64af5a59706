//! `POST /v1/chat/completions`.

use tokenbus_api::answer::envelope;
use tokenbus_api::chat::check;
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    kind: RequestKind::Chat,
    id_prefix: "chatcmpl-",
    check: |body| check(body).map(Into::into),
    error: envelope,
};
