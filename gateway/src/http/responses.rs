//! `POST /v1/responses`, and what is kept of it: `GET` and `DELETE /v1/responses/{id}`,
//! `GET /v1/responses/{id}/input_items`.

use std::collections::HashSet;

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokenbus_api::answer::envelope;
use tokenbus_api::request::{Checked, RequestError};
use tokenbus_api::responses::kept::{Kept, Known, Page};
use tokenbus_api::responses::{Create, ID_PREFIX, Translated};
use tokenbus_protocol::RequestKind;

use super::Edge;
use super::beside::beside;
use super::endpoint::{Arrived, Endpoint};
use super::error::HttpError;
use super::headers::CallHeaders;
use super::keeping::Keeper;
use super::request_id::RequestId;
use crate::auth::Caller;
use crate::call::Backend;
use crate::responses_store::{ResponsesStore, StoreError};

/// The endpoint.
pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/v1/responses",
    kind: RequestKind::Chat,
    id_prefix: ID_PREFIX,
    check: |body| Ok(Create::read(body)?.translate(&Known::new(), false)?.checked),
    error: envelope,
};

/// The number of a prompt's tokens.
pub(super) static INPUT_TOKENS: Endpoint = Endpoint {
    path: "/v1/responses/input_tokens",
    kind: RequestKind::Tokenize,
    id_prefix: "tok-",
    check: |body| Create::read(body)?.count(&Known::new()),
    error: envelope,
};

/// Who asks, where there are keys.
type Asking = Option<Extension<Caller>>;

/// Items on a page when a client does not say, and at most: as OpenAI has it.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;

/// Answers a request for a response.
pub(super) async fn create<C: Backend>(
    State(edge): State<Edge<C>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let arrived = match Arrived::read(&edge, &ENDPOINT, id, request).await {
        Ok(arrived) => arrived,
        Err(refusal) => return *refusal,
    };
    let tenant = arrived.headers.tenant.clone();
    match translate(&edge.responses, &arrived.body, tenant).await {
        Ok((translated, keeper)) => arrived.answer_kept(&edge, translated, keeper).await,
        Err(error) => arrived.refuse(&error),
    }
}

/// Counts the tokens of what would be a request for a response.
pub(super) async fn input_tokens<C: Backend>(
    State(edge): State<Edge<C>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let arrived = match Arrived::read(&edge, &INPUT_TOKENS, id, request).await {
        Ok(arrived) => arrived,
        Err(refusal) => return *refusal,
    };
    let counted = async {
        let create = read(&arrived.body).await?;
        let known = known(&edge.responses, arrived.headers.tenant.as_deref(), &create).await?;
        Ok(beside(arrived.body.len(), move || create.count(&known)).await??)
    };
    match counted.await {
        Ok(checked) => arrived.answer(&edge, checked).await,
        Err(error) => arrived.refuse(&error),
    }
}

async fn read(body: &Bytes) -> Result<Create, HttpError> {
    let body = body.clone();
    Ok(beside(body.len(), move || Create::read(&body)).await??)
}

async fn translate(
    store: &ResponsesStore,
    body: &Bytes,
    tenant: Option<String>,
) -> Result<(Checked, Option<Keeper>), HttpError> {
    let create = read(body).await?;
    let keep = match create.store {
        Some(false) => false,
        Some(true) => {
            store.ready().await.map_err(|error| not_kept("store", error))?;
            true
        }
        // By the API's default, and where there is no place for it, told by the answer.
        None => store.ready().await.is_ok(),
    };
    let known = known(store, tenant.as_deref(), &create).await?;
    // What was kept may be large where the body is not.
    let bytes = body.len() + known.values().map(Kept::bytes).sum::<usize>();
    let translated = beside(bytes, move || create.translate(&known, keep)).await??;
    let Translated { checked, shape, items } = translated;
    let keeper = keep.then(|| Keeper {
        store: store.clone(),
        tenant,
        shape,
        items,
    });
    Ok((checked, keeper))
}

/// The responses that `create` refers to, as far as they are there.
async fn known(store: &ResponsesStore, tenant: Option<&str>, create: &Create) -> Result<Known, HttpError> {
    let found = look_up(store, tenant, create.refers_to()?).await;
    let param = match create.previous {
        Some(_) => "previous_response_id",
        None => "input",
    };
    found.map_err(|error| not_kept(param, error))
}

/// The responses with these ids, as far as they are there.
async fn look_up(store: &ResponsesStore, tenant: Option<&str>, ids: HashSet<String>) -> Result<Known, StoreError> {
    let found = ids.into_iter().map(async |id| {
        let kept = store
            .get(tenant, &id)
            .await?
            .and_then(|bytes| Kept::decode(&bytes).ok());
        Ok(kept.map(|kept| (id, kept)))
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

fn not_kept(param: &'static str, error: StoreError) -> HttpError {
    HttpError::NotKept { param, error }
}

/// One kept response.
pub(super) async fn one<C: Backend>(
    State(edge): State<Edge<C>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Retrieve>, QueryRejection>,
    headers: HeaderMap,
    caller: Asking,
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

/// What a kept response answered.
pub(super) async fn input_items<C: Backend>(
    State(edge): State<Edge<C>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<List>, QueryRejection>,
    headers: HeaderMap,
    caller: Asking,
) -> Result<Response, HttpError> {
    let Query(list) = query.map_err(|error| HttpError::Query(error.body_text()))?;
    let page = list.page()?;
    let kept = find(&edge, named(id)?, &headers, caller).await?;
    Ok(json(kept.page(&page)))
}

/// Forgets a kept response.
pub(super) async fn delete<C: Backend>(
    State(edge): State<Edge<C>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    caller: Asking,
) -> Result<Response, HttpError> {
    let (id, tenant) = (named(id)?, tenant(&edge, &headers, caller)?);
    match edge.responses.delete(tenant.as_deref(), &id).await {
        Ok(true) => {
            let id = serde_json::Value::from(id);
            Ok(json(format!(r#"{{"id":{id},"object":"response","deleted":true}}"#)))
        }
        Ok(false) => Err(HttpError::ResponseNotFound(id)),
        Err(error) => Err(nowhere(id, error)),
    }
}

/// What is asked of a kept response.
#[derive(Debug, Deserialize)]
pub(super) struct Retrieve {
    stream: Option<bool>,
}

/// Which items are asked for.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
}

impl List {
    fn page(self) -> Result<Page, HttpError> {
        let ascending = match self.order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(HttpError::Query("'order' is 'asc' or 'desc'".to_owned())),
        };
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(HttpError::Query(format!("'limit' is between 1 and {MAX_PAGE}")));
        }
        Ok(Page {
            ascending,
            limit,
            after: self.after,
        })
    }
}

/// An id as the path has it. What is not UTF-8 is nobody's.
fn named(id: Result<Path<String>, PathRejection>) -> Result<String, HttpError> {
    let id = id.map_err(|rejection| HttpError::ResponseNotFound(rejection.body_text()))?;
    Ok(id.0)
}

async fn find<C>(edge: &Edge<C>, id: String, headers: &HeaderMap, caller: Asking) -> Result<Kept, HttpError> {
    let tenant = tenant(edge, headers, caller)?;
    match edge.responses.get(tenant.as_deref(), &id).await {
        Ok(Some(bytes)) => match Kept::decode(&bytes) {
            Ok(kept) => Ok(kept),
            Err(error) => {
                tracing::warn!(response = id, %error, "what was kept cannot be read");
                Err(HttpError::ResponseNotFound(id))
            }
        },
        Ok(None) => Err(HttpError::ResponseNotFound(id)),
        Err(error) => Err(nowhere(id, error)),
    }
}

/// Where no responses are kept, there is none with this id either.
fn nowhere(id: String, error: StoreError) -> HttpError {
    match error {
        StoreError::Absent(_) => HttpError::ResponseNotFound(id),
        error => not_kept("id", error),
    }
}

/// Whose responses are meant: where there are keys, the key says.
fn tenant<C>(edge: &Edge<C>, headers: &HeaderMap, caller: Asking) -> Result<Option<String>, HttpError> {
    let mut headers = CallHeaders::read(headers, edge.options.request_timeout)?;
    if let Some(Extension(caller)) = caller {
        headers.bound(caller.key());
    }
    Ok(headers.tenant)
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
