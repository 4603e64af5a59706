//! `POST /v1/embeddings`.

use tokenbus_api::{check_embeddings, openai_envelope};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/embeddings",
    kind: RequestKind::Embeddings,
    id_prefix: "embd-",
    check: check_embeddings,
    error: openai_envelope,
};
