//! `POST /v1/chat/completions`.

use tokenbus_protocol::RequestKind;

use super::endpoint::Endpoint;
use crate::api::chat::check;
use crate::api::form::envelope;

/// The endpoint.
pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    kind: RequestKind::Chat,
    id_prefix: "chatcmpl-",
    check: |body| check(body).map(Into::into),
    error: envelope,
};
