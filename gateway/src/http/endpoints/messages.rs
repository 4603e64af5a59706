//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use tokenbus_api::messages::{ID_PREFIX, check, check_count, error};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;
use crate::http::request::dialect::MESSAGES;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: MESSAGES,
    kind: RequestKind::Chat,
    id_prefix: ID_PREFIX,
    check,
    error: error::envelope,
};

/// Counts the tokens of a prompt.
pub(crate) static COUNT_TOKENS: Endpoint = Endpoint {
    path: "/v1/messages/count_tokens",
    kind: RequestKind::Tokenize,
    id_prefix: "tok-",
    check: check_count,
    error: error::envelope,
};
