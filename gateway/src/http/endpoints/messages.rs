//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use tokenbus_api::{MESSAGE_ID_PREFIX, anthropic_envelope, check_message, check_message_count};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;
use crate::http::request::dialect::MESSAGES;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: MESSAGES,
    kind: RequestKind::Chat,
    id_prefix: MESSAGE_ID_PREFIX,
    check: check_message,
    error: anthropic_envelope,
};

/// Counts the tokens of a prompt.
pub(crate) static COUNT_TOKENS: Endpoint = Endpoint {
    path: "/v1/messages/count_tokens",
    kind: RequestKind::Tokenize,
    id_prefix: "tok-",
    check: check_message_count,
    error: anthropic_envelope,
};
