//! `GET /v1/models` and `GET /v1/models/{id}`. Clients of Anthropic's API use the same paths; a header tells them apart.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use tokenbus_api::{ListedModel, ModelInfo, ModelList, ModelObject, ModelPage, PageQuery};

use crate::auth::Caller;
use crate::call::{Backend, CallError};
use crate::http::edge::Edge;
use crate::http::error::HttpError;
use crate::http::request::dialect;

/// The caller, if there are keys.
pub(crate) type MaybeCaller = Option<Extension<Caller>>;

/// Lists the models that the caller may use, aliases included.
pub(crate) async fn list<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    caller: MaybeCaller,
    request: Request,
) -> Response {
    let models = known(&edge, caller.as_deref());
    if dialect::is_anthropic(request.uri().path(), request.headers()) {
        match Query::<PageQuery>::try_from_uri(request.uri()) {
            Ok(Query(query)) => Json(ModelPage::new(&models, &query)).into_response(),
            Err(rejection) => dialect::refuse(&request, &HttpError::Query(rejection.body_text())),
        }
    } else {
        Json(ModelList::new(&models)).into_response()
    }
}

/// Describes one model. The id is the rest of the path, percent-decoded, because ids contain slashes.
pub(crate) async fn one<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    caller: MaybeCaller,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let models = known(&edge, caller.as_deref());
    let id = match id {
        Ok(Path(id)) => id,
        // Not UTF-8, so not the name of a model.
        Err(rejection) => rejection.body_text(),
    };
    let Some(model) = models.iter().find(|model| model.name == id) else {
        return dialect::refuse(&request, &unknown(id, &models));
    };
    if dialect::is_anthropic(request.uri().path(), request.headers()) {
        Json(ModelInfo::from(model)).into_response()
    } else {
        Json(ModelObject::from(model)).into_response()
    }
}

/// The models that the caller may use, aliases included.
pub(crate) fn known<C: Backend>(edge: &Edge<C>, caller: Option<&Caller>) -> Vec<ListedModel> {
    let mut models = edge.models.with_aliases(edge.core.models());
    if let Some(caller) = caller {
        models.retain(|model| caller.key().may_use(&model.name));
    }
    models
}

/// The error for a model that is none of `models`.
pub(crate) fn unknown(model: String, models: &[ListedModel]) -> HttpError {
    let mut known: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    known.sort_unstable();
    CallError::UnknownModel { model, known }.into()
}
