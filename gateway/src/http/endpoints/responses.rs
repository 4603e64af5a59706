//! `POST /v1/responses`, and the stored responses: `GET` and `DELETE /v1/responses/{id}`,
//! `GET /v1/responses/{id}/input_items`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use tokenbus_api::{
    Checked, ItemPage, KeptResponse, KnownResponses, RESPONSE_ID_PREFIX, RequestError, ResponseRequest, Seal,
    TranslatedRequest, openai_envelope,
};
use tokenbus_protocol::RequestKind;

use crate::auth::Caller;
use crate::call::Backend;
use crate::http::answer::keeping::Keeper;
use crate::http::edge::Edge;
use crate::http::endpoints::endpoint::{Endpoint, ReceivedRequest};
use crate::http::error::HttpError;
use crate::http::request::headers::CallHeaders;
use crate::http::request::request_id::RequestId;
use crate::http::request::run_off_thread::run_off_thread;
use crate::responses_store::{ResponsesStore, StoreError};

/// The endpoint.
pub(crate) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/responses",
    kind: RequestKind::Chat,
    id_prefix: RESPONSE_ID_PREFIX,
    check: |body| {
        Ok(ResponseRequest::read(body)?
            .translate(&KnownResponses::new(), false)?
            .checked)
    },
    error: openai_envelope,
};

/// Counts the tokens of a prompt.
pub(crate) static INPUT_TOKENS: Endpoint = Endpoint {
    path: "/v1/responses/input_tokens",
    kind: RequestKind::Tokenize,
    id_prefix: "tok-",
    check: |body| ResponseRequest::read(body)?.count(&KnownResponses::new()),
    error: openai_envelope,
};

/// The caller, if there are keys.
type MaybeCaller = Option<Extension<Caller>>;

/// Items on a page if the client gives no number, as at OpenAI.
const PAGE: usize = 20;

/// Most items on a page, as at OpenAI.
const MAX_PAGE: usize = 100;

/// Creates a response.
pub(crate) async fn create<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let received = match ReceivedRequest::read(&edge, &ENDPOINT, id, request).await {
        Ok(received) => received,
        Err(refusal) => return *refusal,
    };
    let tenant = received.headers.tenant.clone();
    match translate(&edge, &received.body, tenant).await {
        Ok((translated, keeper)) => received.answer_kept(&edge, translated, keeper).await,
        Err(error) => received.refuse(&error),
    }
}

/// Counts the tokens of a request that would create a response.
pub(crate) async fn input_tokens<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let received = match ReceivedRequest::read(&edge, &INPUT_TOKENS, id, request).await {
        Ok(received) => received,
        Err(refusal) => return *refusal,
    };
    let counted = async {
        let mut create = read(&received.body).await?;
        let tenant = received.headers.tenant.as_deref();
        let known = known(&edge.responses, tenant, &create).await?;
        create.seal = seal(&edge, tenant, &create).await?;
        Ok(run_off_thread(received.body.len(), move || create.count(&known)).await??)
    };
    match counted.await {
        Ok(checked) => received.answer(&edge, checked).await,
        Err(error) => received.refuse(&error),
    }
}

async fn read(body: &Bytes) -> Result<ResponseRequest, HttpError> {
    let body = body.clone();
    Ok(run_off_thread(body.len(), move || ResponseRequest::read(&body)).await??)
}

async fn translate<C>(
    edge: &Edge<C>,
    body: &Bytes,
    tenant: Option<String>,
) -> Result<(Checked, Option<Keeper>), HttpError> {
    let store = &edge.responses;
    let mut create = read(body).await?;
    let keep = match create.store {
        Some(false) => false,
        Some(true) => {
            store.ready().await.map_err(|error| not_kept("store", error))?;
            true
        }
        // The API's default is to store; if there is no store, the answer says so.
        None => store.ready().await.is_ok(),
    };
    let known = known(store, tenant.as_deref(), &create).await?;
    create.seal = seal(edge, tenant.as_deref(), &create).await?;
    // Stored responses may be large although the body is small.
    let bytes = body.len() + known.values().map(KeptResponse::bytes).sum::<usize>();
    let translated = run_off_thread(bytes, move || create.translate(&known, keep)).await??;
    let TranslatedRequest { checked, shape, items } = translated;
    let keeper = keep.then(|| Keeper {
        store: store.clone(),
        tenant,
        shape,
        items,
    });
    Ok((checked, keeper))
}

/// What seals and opens the reasoning that the client carries.
async fn seal<C>(edge: &Edge<C>, tenant: Option<&str>, create: &ResponseRequest) -> Result<Seal, HttpError> {
    let seal = edge.seals.seal(tenant, &create.sealing()).await;
    seal.map_err(|error| not_kept("input", error))
}

/// The stored responses that `create` refers to. Missing ones are left out.
async fn known(
    store: &ResponsesStore,
    tenant: Option<&str>,
    create: &ResponseRequest,
) -> Result<KnownResponses, HttpError> {
    let found = look_up(store, tenant, create.refers_to()?).await;
    let param = match create.previous {
        Some(_) => "previous_response_id",
        None => "input",
    };
    found.map_err(|error| not_kept(param, error))
}

/// The stored responses with these ids. Missing ones are left out.
async fn look_up(
    store: &ResponsesStore,
    tenant: Option<&str>,
    ids: HashSet<String>,
) -> Result<KnownResponses, StoreError> {
    let found = ids.into_iter().map(async |id| {
        let kept = store
            .get(tenant, &id)
            .await?
            .and_then(|bytes| KeptResponse::decode(&bytes).ok());
        Ok(kept.map(|kept| (id, kept)))
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

fn not_kept(param: &'static str, error: StoreError) -> HttpError {
    HttpError::NotKept { param, error }
}

/// Returns a stored response.
pub(crate) async fn one<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Retrieve>, QueryRejection>,
    headers: HeaderMap,
    caller: MaybeCaller,
) -> Result<Response, HttpError> {
    let Query(query) = query.map_err(|error| HttpError::Query(error.body_text()))?;
    if query.stream == Some(true) {
        let what = "'stream' is not supported here: a kept response is told in one piece";
        return Err(RequestError::Field {
            param: Some("stream".to_owned()),
            code: "unsupported_value",
            message: what.to_owned(),
        }
        .into());
    }
    let kept = find(&edge, named(id)?, &headers, caller).await?;
    Ok(json(kept.response().to_owned()))
}

/// Lists the input items of a stored response.
pub(crate) async fn input_items<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<List>, QueryRejection>,
    headers: HeaderMap,
    caller: MaybeCaller,
) -> Result<Response, HttpError> {
    let Query(list) = query.map_err(|error| HttpError::Query(error.body_text()))?;
    let page = list.page()?;
    let kept = find(&edge, named(id)?, &headers, caller).await?;
    Ok(json(kept.page(&page)))
}

/// Deletes a stored response.
pub(crate) async fn delete<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    caller: MaybeCaller,
) -> Result<Response, HttpError> {
    let (id, tenant) = (named(id)?, tenant(&edge, &headers, caller)?);
    match edge.responses.delete(tenant.as_deref(), &id).await {
        Ok(true) => {
            let object = "response";
            let deleted = true;
            Ok(Json(Deleted { id, object, deleted }).into_response())
        }
        Ok(false) => Err(HttpError::ResponseNotFound(id)),
        Err(error) => Err(nowhere(id, error)),
    }
}

/// The answer to a deletion.
#[derive(Serialize)]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// The query of a request for a stored response.
#[derive(Debug, Deserialize)]
pub(crate) struct Retrieve {
    stream: Option<bool>,
}

/// The query of a request for input items.
#[derive(Debug, Deserialize)]
pub(crate) struct List {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
}

impl List {
    fn page(self) -> Result<ItemPage, HttpError> {
        let ascending = match self.order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(HttpError::Query("'order' is 'asc' or 'desc'".to_owned())),
        };
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(HttpError::Query(format!("'limit' is between 1 and {MAX_PAGE}")));
        }
        Ok(ItemPage {
            ascending,
            limit,
            after: self.after,
        })
    }
}

/// The id in the path. One that is not UTF-8 belongs to no response.
fn named(id: Result<Path<String>, PathRejection>) -> Result<String, HttpError> {
    let id = id.map_err(|rejection| HttpError::ResponseNotFound(rejection.body_text()))?;
    Ok(id.0)
}

async fn find<C>(
    edge: &Edge<C>,
    id: String,
    headers: &HeaderMap,
    caller: MaybeCaller,
) -> Result<KeptResponse, HttpError> {
    let tenant = tenant(edge, headers, caller)?;
    match edge.responses.get(tenant.as_deref(), &id).await {
        Ok(Some(bytes)) => match KeptResponse::decode(&bytes) {
            Ok(kept) => Ok(kept),
            Err(error) => {
                tracing::warn!(response = id, %error, "a stored response cannot be decoded");
                Err(HttpError::ResponseNotFound(id))
            }
        },
        Ok(None) => Err(HttpError::ResponseNotFound(id)),
        Err(error) => Err(nowhere(id, error)),
    }
}

/// Without a store there is no response with this id.
fn nowhere(id: String, error: StoreError) -> HttpError {
    match error {
        StoreError::Absent(_) => HttpError::ResponseNotFound(id),
        error => not_kept("id", error),
    }
}

/// The tenant that owns the responses: the key's, if there are keys.
fn tenant<C>(edge: &Edge<C>, headers: &HeaderMap, caller: MaybeCaller) -> Result<Option<String>, HttpError> {
    let mut headers = CallHeaders::read(headers, edge.options.request_timeout, edge.options.max_request_timeout)?;
    let caller = caller.as_ref().map(|Extension(caller)| caller.key());
    headers.bound(caller, edge.options.max_priority);
    Ok(headers.tenant)
}

fn json(text: impl Into<Bytes>) -> Response {
    ([(CONTENT_TYPE, "application/json")], text.into()).into_response()
}
