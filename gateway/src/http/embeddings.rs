//! `POST /v1/embeddings`.

use tokenbus_api::answer::envelope;
use tokenbus_api::embeddings::check;
use tokenbus_protocol::RequestKind;

use super::endpoint::Endpoint;

/// The endpoint.
pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/embeddings",
    kind: RequestKind::Embeddings,
    id_prefix: "embd-",
    check,
    error: envelope,
};
