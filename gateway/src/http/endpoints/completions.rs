//! `POST /v1/completions`.

use tokenbus_api::answer::envelope;
use tokenbus_api::completions::check;
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/completions",
    kind: RequestKind::Completion,
    id_prefix: "cmpl-",
    check: |body| check(body).map(Into::into),
    error: envelope,
};
