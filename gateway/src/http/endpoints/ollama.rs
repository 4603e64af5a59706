//! Ollama's own API, where it calls a model: `POST /api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post};
use http::header::CONTENT_TYPE;
use tokenbus_api::{
    LoadAnswer, OllamaAsk, RequestError, ask_chat, ask_embed, ask_embeddings, ask_generate, ollama_envelope, other_name,
};
use tokenbus_protocol::{Features, Labels, RequestKind};

use crate::call::{Backend, Prospect};
use crate::http::edge::Edge;
use crate::http::endpoints::endpoint::{Endpoint, ReceivedRequest};
use crate::http::endpoints::models;
use crate::http::error::HttpError;
use crate::http::request::request_id::RequestId;
use crate::http::request::run_off_thread::run_off_thread;
use tokenbus_bus::clock::unix_seconds;

type Ask = fn(&[u8], &dyn Fn(&str) -> Option<String>) -> Result<OllamaAsk, RequestError>;

/// An endpoint of Ollama's API.
#[derive(Debug)]
pub(crate) struct OllamaEndpoint {
    pub(crate) endpoint: Endpoint,
    ask: Ask,
}

/// All of them.
pub(crate) static ENDPOINTS: [OllamaEndpoint; 4] = [
    OllamaEndpoint {
        endpoint: Endpoint {
            path: "/api/chat",
            kind: RequestKind::Chat,
            id_prefix: "",
            check: |body| ask_chat(body, &|_| None)?.checked(),
            error: ollama_envelope,
        },
        ask: ask_chat,
    },
    OllamaEndpoint {
        endpoint: Endpoint {
            path: "/api/generate",
            kind: RequestKind::Chat,
            id_prefix: "",
            check: |body| ask_generate(body, &|_| None)?.checked(),
            error: ollama_envelope,
        },
        ask: ask_generate,
    },
    OllamaEndpoint {
        endpoint: Endpoint {
            path: "/api/embed",
            kind: RequestKind::Embeddings,
            id_prefix: "",
            check: |body| ask_embed(body, &|_| None)?.checked(),
            error: ollama_envelope,
        },
        ask: ask_embed,
    },
    OllamaEndpoint {
        endpoint: Endpoint {
            path: "/api/embeddings",
            kind: RequestKind::Embeddings,
            id_prefix: "",
            check: |body| ask_embeddings(body, &|_| None)?.checked(),
            error: ollama_envelope,
        },
        ask: ask_embeddings,
    },
];

impl OllamaEndpoint {
    /// Its route.
    pub(crate) fn route<C: Backend>(&'static self) -> MethodRouter<Arc<Edge<C>>> {
        post(
            move |State(edge): State<Arc<Edge<C>>>, Extension(id): Extension<RequestId>, request: Request| {
                // Boxed, like the steps of every endpoint.
                Box::pin(async move {
                    let caller = request.extensions().get().cloned();
                    let mut received = match Box::pin(ReceivedRequest::read(&edge, &self.endpoint, id, request)).await {
                        Ok(received) => received,
                        Err(refusal) => return *refusal,
                    };
                    match self.read(&edge, &received).await {
                        Ok(OllamaAsk::Call { checked, kind }) => {
                            received.kind = kind;
                            Box::pin(received.answer(&edge, checked)).await
                        }
                        Ok(OllamaAsk::Load { model, answer }) => {
                            let known = models::known(&edge, caller.as_ref());
                            if known.iter().any(|known| known.name == model) {
                                received.answered();
                                loaded(answer)
                            } else {
                                received.refuse(&models::unknown(model, &known))
                            }
                        }
                        Err(error) => received.refuse(&error),
                    }
                })
            },
        )
    }

    async fn read<C: Backend>(&self, edge: &Edge<C>, received: &ReceivedRequest) -> Result<OllamaAsk, HttpError> {
        let (ask, body, edge) = (self.ask, received.body.clone(), edge.clone());
        let asked = run_off_thread(body.len(), move || ask(&body, &|name| resolve(&edge, name)));
        Ok(asked.await??)
    }
}

/// The name by which the cluster knows a model that it does not know by the client's name.
pub(crate) fn resolve<C: Backend>(edge: &Edge<C>, name: &str) -> Option<String> {
    let known = |name: &str| {
        edge.models.route(name).is_some()
            || edge.core.prospect(name, Features::NONE, &Labels::default()) != Prospect::Unknown
    };
    if known(name) {
        return None;
    }
    let other = other_name(name)?.into_owned();
    known(&other).then_some(other)
}

fn loaded(answer: LoadAnswer) -> Response {
    let answer = answer.write(unix_seconds());
    ([(CONTENT_TYPE, "application/json")], answer).into_response()
}
