//! Ollama's own API, where it is about models: which there are, and why none can be added here.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokenbus_api::{
    ListedModel, OLLAMA_VERSION, RunningModels, ShownModel, TaggedModels, model_in, other_name, pull_answer,
};

use tokio::time::Instant;

use crate::call::Backend;
use crate::http::edge::Edge;
use crate::http::endpoints::models::{self, MaybeCaller};
use crate::http::error::HttpError;
use crate::http::request::body;
use crate::http::request::dialect;

/// Lists the models that the caller may use.
pub(crate) async fn list<C: Backend>(State(edge): State<Arc<Edge<C>>>, caller: MaybeCaller) -> Response {
    let models = models::known(&edge, caller.as_deref());
    Json(TaggedModels::new(&models, digest)).into_response()
}

/// Lists those that a live worker serves.
pub(crate) async fn running<C: Backend>(State(edge): State<Arc<Edge<C>>>, caller: MaybeCaller) -> Response {
    let models = models::known(&edge, caller.as_deref());
    Json(RunningModels::new(&models, digest)).into_response()
}

/// Shows one model.
pub(crate) async fn show<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    caller: MaybeCaller,
    request: Request,
) -> Response {
    let known = models::known(&edge, caller.as_deref());
    about_one(&edge, &known, request, |model, _| {
        Json(ShownModel::new(model)).into_response()
    })
    .await
}

/// A model that is there needs no pull.
pub(crate) async fn pull<C: Backend>(
    State(edge): State<Arc<Edge<C>>>,
    caller: MaybeCaller,
    request: Request,
) -> Response {
    let known = models::known(&edge, caller.as_deref());
    about_one(&edge, &known, request, |_, stream| {
        let kind = if stream {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        ([(CONTENT_TYPE, kind)], pull_answer(stream)).into_response()
    })
    .await
}

/// Tells the version of Ollama whose API this is, and our own.
pub(crate) async fn version() -> Response {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
        tokenbus: &'static str,
    }
    Json(Version {
        version: OLLAMA_VERSION,
        tokenbus: env!("CARGO_PKG_VERSION"),
    })
    .into_response()
}

/// The error for a path that would change models, if it is one. These paths are no routes: nothing is there.
pub(crate) fn changes_models(path: &str) -> Option<HttpError> {
    let what = match path.strip_prefix("/api/")? {
        "push" => "Pushing a model",
        "create" => "Creating a model",
        "copy" => "Copying a model",
        "delete" => "Deleting a model",
        rest if rest.starts_with("blobs/") => "Uploading a model",
        _ => return None,
    };
    Some(HttpError::ModelsAtWorkers(what))
}

/// Answers a request about one of the `known` models.
async fn about_one<C: Backend>(
    edge: &Edge<C>,
    known: &[ListedModel],
    request: Request,
    answer: impl FnOnce(&ListedModel, bool) -> Response,
) -> Response {
    let (head, sent) = request.into_parts();
    let refuse =
        |error: &HttpError| dialect::refuse(&Request::from_parts(head.clone(), axum::body::Body::empty()), error);
    let request = Request::from_parts(head.clone(), sent);
    let read = body::read(
        request,
        edge.options.body_limit,
        &edge.bodies.begin(),
        Instant::now() + edge.options.request_timeout,
    )
    .await;
    let asked = read.and_then(|body| Ok(model_in(&body)?));
    let (name, stream) = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse(&error),
    };
    let find = |name: &str| known.iter().find(|model| model.name == name);
    match find(&name).or_else(|| find(&other_name(&name)?)) {
        Some(model) => answer(model, stream),
        None => refuse(&models::unknown(name, known)),
    }
}

/// 64 hexadecimal digits for a model. Clients show and compare them. No gateway knows the model's file, so they are
/// made of its name.
fn digest(name: &str) -> String {
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(name) {
        // A string takes every write.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
