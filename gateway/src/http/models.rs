//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};

use super::Edge;
use super::error::HttpError;
use crate::api::models::{ModelList, ModelObject};
use crate::call::CallError;
use crate::core::Core;

/// All models.
pub(super) async fn list<C: Core>(State(edge): State<Edge<C>>) -> Response {
    Json(ModelList::new(&edge.core.models())).into_response()
}

/// One model. The id is the rest of the path, percent-decoded: ids have slashes and worse.
pub(super) async fn one<C: Core>(
    State(edge): State<Edge<C>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, HttpError> {
    let models = edge.core.models();
    let id = match id {
        Ok(Path(id)) => id,
        // Not UTF-8, so no model's name.
        Err(rejection) => return Err(unknown(rejection.body_text(), &models)),
    };
    match models.iter().find(|model| model.name == id) {
        Some(model) => Ok(Json(ModelObject::from(model)).into_response()),
        None => Err(unknown(id, &models)),
    }
}

fn unknown(model: String, models: &[crate::core::ListedModel]) -> HttpError {
    let mut known: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    known.sort_unstable();
    CallError::UnknownModel { model, known }.into()
}
