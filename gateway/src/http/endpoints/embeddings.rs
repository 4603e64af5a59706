//! `POST /v1/embeddings`.

use tokenbus_api::answer::envelope;
use tokenbus_api::embeddings::check;
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/embeddings",
    kind: RequestKind::Embeddings,
    id_prefix: "embd-",
    check,
    error: envelope,
};
