//! `POST /v1/rerank` and `POST /v1/score`, passed to engines that have them.

use tokenbus_api::{check_rerank, check_score, openai_envelope};
use tokenbus_protocol::RequestKind;

use crate::http::endpoints::endpoint::Endpoint;

/// Ranks documents by a query.
pub(crate) static RERANK: Endpoint = Endpoint {
    path: "/v1/rerank",
    kind: RequestKind::Rerank,
    id_prefix: "rerank-",
    check: check_rerank,
    error: openai_envelope,
};

/// Other servers' paths for reranking.
pub(crate) const RERANK_ALIASES: [&str; 2] = ["/rerank", "/v2/rerank"];

/// Scores pairs of texts.
pub(crate) static SCORE: Endpoint = Endpoint {
    path: "/v1/score",
    kind: RequestKind::Score,
    id_prefix: "score-",
    check: check_score,
    error: openai_envelope,
};

/// Another server's path for scoring.
pub(crate) const SCORE_ALIAS: &str = "/score";
