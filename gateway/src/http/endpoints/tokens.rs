//! `POST /tokenize` and `POST /detokenize`, passed to engines that have them.

use tokenbus_api::{check_detokenize, check_tokenize, openai_envelope};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// Turns a text or a chat into token ids.
pub(crate) static TOKENIZE: Endpoint = Endpoint {
    path: "/tokenize",
    kind: RequestKind::Tokenize,
    id_prefix: "tok-",
    check: check_tokenize,
    error: openai_envelope,
};

/// Turns token ids into text.
pub(crate) static DETOKENIZE: Endpoint = Endpoint {
    path: "/detokenize",
    kind: RequestKind::Detokenize,
    id_prefix: "detok-",
    check: check_detokenize,
    error: openai_envelope,
};
