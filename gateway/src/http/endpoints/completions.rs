//! `POST /v1/completions`.

use tokenbus_api::{check_completion, openai_envelope};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/completions",
    kind: RequestKind::Completion,
    id_prefix: "cmpl-",
    check: check_completion,
    error: openai_envelope,
};
