//! `POST /v1/chat/completions`.

use tokenbus_api::{check_chat, openai_envelope};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    kind: RequestKind::Chat,
    id_prefix: "chatcmpl-",
    check: check_chat,
    error: openai_envelope,
};
