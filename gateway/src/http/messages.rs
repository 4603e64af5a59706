//! `POST /v1/messages`.

use tokenbus_protocol::RequestKind;

use super::endpoint::Endpoint;
use crate::api::messages::{ID_PREFIX, check, error};

/// The endpoint.
pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/messages",
    kind: RequestKind::Chat,
    id_prefix: ID_PREFIX,
    check,
    error: error::envelope,
};
