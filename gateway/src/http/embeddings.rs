//! `POST /v1/embeddings`.

use tokenbus_protocol::RequestKind;

use super::endpoint::Endpoint;
use crate::api::embeddings::check;
use crate::api::form::envelope;

/// The endpoint.
pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/embeddings",
    kind: RequestKind::Embeddings,
    id_prefix: "embd-",
    check,
    error: envelope,
};
