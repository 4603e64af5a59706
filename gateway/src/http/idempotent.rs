//! Requests with an `Idempotency-Key`: the first runs its call, repeats read the same recording.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::Edge;
use super::answer::{self, Asked};
use super::error::HttpError;
use crate::call::Call;
use crate::core::{CallStream, Core};
use crate::idempotency::{Claim, Key, Keyed};

/// On every answer, also an error, that was made for an earlier request.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What makes a request known when it comes again.
pub(super) struct Repeatable {
    /// Its key.
    pub(super) key: String,
    /// Where it came to.
    pub(super) endpoint: &'static str,
    /// As the client sent it.
    pub(super) body: Bytes,
}

/// Answers `call`, which `repeatable` became; `open` opens it where it is the first.
pub(super) async fn answer<C: Core, S: CallStream>(
    edge: &Edge<C>,
    repeatable: Repeatable,
    call: Call,
    mut asked: Box<Asked>,
    open: impl FnOnce(Call) -> S,
) -> Response {
    let Repeatable { key, endpoint, body } = repeatable;
    let request = Keyed {
        key: Key {
            tenant: call.tenant.clone(),
            key,
        },
        endpoint,
        body: &body,
        identity: &asked.identity,
        deadline: call.deadline,
        choices: asked.form.max_choices(),
        behind: call.reader_bound(),
    };
    match edge.idempotency.claim(request, Instant::now()) {
        Claim::First(run) => {
            let reader = run.start(open(call));
            answer::answer(reader, asked, &edge.options).await
        }
        Claim::Repeat(reader) => {
            asked.identity.clone_from(reader.identity());
            asked.record.replayed();
            let mut response = answer::answer(reader, asked, &edge.options).await;
            response
                .headers_mut()
                .insert(REPLAYED, HeaderValue::from_static("true"));
            response
        }
        Claim::Reused => {
            let Asked { record, form, .. } = asked.as_mut();
            answer::refuse(record, form.as_ref(), &HttpError::IdempotencyKeyReused)
        }
        Claim::Crowded => {
            tracing::debug!(call = %call.id, "no room for another idempotency key, the answer will not be kept");
            answer::answer(open(call), asked, &edge.options).await
        }
    }
}
