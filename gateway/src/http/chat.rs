//! `POST /v1/chat/completions`.

use std::time::SystemTime;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use tokenbus_protocol::RequestKind;
use tokio::time::Instant;
use uuid::Uuid;

use super::Edge;
use super::answer::{Asked, answer};
use super::body;
use super::error::HttpError;
use super::headers::CallHeaders;
use super::idempotent;
use super::limits::BACKSTOP;
use super::record::Record;
use super::request_id::RequestId;
use crate::api::Identity;
use crate::api::chat::{ChatView, check};
use crate::call::Call;
use crate::core::Core;

/// The path.
pub(super) const PATH: &str = "/v1/chat/completions";

/// A request that has passed all checks.
struct Prepared {
    call: Call,
    view: ChatView,
    identity: Identity,
    idempotency_key: Option<String>,
}

/// Answers a chat request. While it waits it is part of the connection's task: a client that goes
/// away ends it, which drops the call's stream and so cancels the call.
pub(super) async fn create<C: Core>(
    State(edge): State<Edge<C>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    let mut record = Record::begin(&edge.metrics, id.clone(), arrived);
    let prepared = match prepare(&edge, id, request, arrived).await {
        Ok(prepared) => prepared,
        Err(error) => return record.failed(&error, None).into_response(),
    };
    record.called(&prepared.call);
    let call = prepared.call;
    let asked = Asked {
        form: Box::new(prepared.view),
        identity: prepared.identity,
        backstop: call.deadline + BACKSTOP,
        record,
    };
    match prepared.idempotency_key {
        None => answer(edge.core.open(call), asked, &edge.options).await,
        // In a box, so that requests without a key do not hold room for this.
        Some(key) => Box::pin(idempotent::answer(&edge, key, PATH, call, asked)).await,
    }
}

async fn prepare<C: Core>(
    edge: &Edge<C>,
    id: RequestId,
    request: Request,
    arrived: Instant,
) -> Result<Prepared, HttpError> {
    let headers = CallHeaders::read(request.headers(), edge.options.request_timeout)?;
    let body = body::read(request, edge.options.body_limit).await?;
    let view = check(&body)?;
    let call = Call {
        id: Uuid::now_v7(),
        kind: RequestKind::Chat,
        model: view.model.clone(),
        body,
        deadline: arrived + headers.timeout,
        priority: headers.priority,
        tenant: headers.tenant,
        client_id: id.0,
        trace: headers.trace,
        not_resumable: view.not_resumable,
    };
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let created = created.map_or(0, |since| since.as_secs());
    Ok(Prepared {
        identity: Identity::new(call.id, created, &call.model),
        call,
        view,
        idempotency_key: headers.idempotency_key,
    })
}
