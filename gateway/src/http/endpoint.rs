//! What every endpoint that generates does around a request: its headers and body are read, its API
//! checks it, and a call answers it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use tokenbus_api::Identity;
use tokenbus_api::answer::{Failure, Form};
use tokenbus_api::request::{Checked, RequestError};
use tokenbus_protocol::RequestKind;
use tokio::time::Instant;
use uuid::Uuid;

use super::Edge;
use super::answer::{self, Asked};
use super::beside::beside;
use super::body;
use super::error::HttpError;
use super::headers::CallHeaders;
use super::keeping::Keeper;
use super::limits::BACKSTOP;
use super::record::Record;
use super::request_id::RequestId;
use super::wire::{ClientWire, Wire};
use crate::auth::limiter::Refusal;
use crate::auth::{Caller, Grant, estimate};
use crate::call::Backend;
use crate::call::Call;
use crate::model_config::{Route, Routed, Served};

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its path.
    pub(super) path: &'static str,
    /// What its calls ask of an engine.
    pub(super) kind: RequestKind,
    /// With what the ids of its answers begin.
    pub(super) id_prefix: &'static str,
    /// Checks a body.
    pub(super) check: fn(&[u8]) -> Result<Checked, RequestError>,
    /// The body of an error that is told before the request is known well enough to have a form.
    pub(super) error: fn(&Failure<'_>) -> Bytes,
}

impl Endpoint {
    /// Its route, for endpoints that need nothing between the check and the call.
    pub(super) fn route<C: Backend>(&'static self) -> MethodRouter<Edge<C>> {
        post(
            move |State(edge): State<Edge<C>>, Extension(id): Extension<RequestId>, request: Request| {
                // In boxes, here and in there: the layers around this hand its future on from one to the next, and
                // while an answer is waited for, nothing is kept of what came before.
                Box::pin(async move {
                    let mut arrived = match Box::pin(Arrived::read(&edge, self, id, request)).await {
                        Ok(arrived) => arrived,
                        Err(refusal) => return *refusal,
                    };
                    match arrived.check().await {
                        Ok(checked) => Box::pin(arrived.answer(&edge, *checked)).await,
                        Err(error) => arrived.refuse(&error),
                    }
                })
            },
        )
    }
}

/// A request whose headers and body have been read.
pub(super) struct Arrived {
    endpoint: &'static Endpoint,
    /// What the client sent.
    pub(super) body: Bytes,
    /// What its headers say.
    pub(super) headers: CallHeaders,
    caller: Option<Caller>,
    id: RequestId,
    at: Instant,
    record: Record,
    wire: Option<Arc<Wire>>,
}

/// A call that may be opened.
struct Ready {
    call: Call,
    /// How it is to be answered.
    asked: Box<Asked>,
    /// The way to its models, where its name stands for others.
    routed: Option<(Arc<Route>, Served)>,
}

impl Arrived {
    /// Reads `request`.
    ///
    /// # Errors
    /// The response that refuses it.
    pub(super) async fn read<C: Backend>(
        edge: &Edge<C>,
        endpoint: &'static Endpoint,
        id: RequestId,
        request: Request,
    ) -> Result<Box<Self>, Box<Response>> {
        let at = Instant::now();
        let wire = request.extensions().get::<ClientWire>().map(|wire| Arc::clone(&wire.0));
        let mut record = Record::begin(edge, id.clone(), at);
        let caller = request.extensions().get::<Caller>().cloned();
        let read = async {
            let mut headers = CallHeaders::read(request.headers(), edge.options.request_timeout)?;
            if let Some(caller) = &caller {
                headers.bound(caller.key());
            }
            let body = body::read(request, edge.options.body_limit).await?;
            Ok((headers, body))
        };
        match read.await {
            Ok((headers, body)) => Ok(Box::new(Self {
                endpoint,
                body,
                headers,
                caller,
                id,
                at,
                record,
                wire,
            })),
            Err(error) => Err(Box::new(refusal(endpoint, &mut record, &error))),
        }
    }

    /// What its endpoint's check says of its body.
    async fn check(&mut self) -> Result<Box<Checked>, HttpError> {
        let (check, body) = (self.endpoint.check, self.body.clone());
        Ok(Box::new(beside(body.len(), move || check(&body)).await??))
    }

    /// Ends the request with `error`.
    pub(super) fn refuse(mut self: Box<Self>, error: &HttpError) -> Response {
        refusal(self.endpoint, &mut self.record, error)
    }

    /// Answers the request with what comes of its call. While it waits it is part of the
    /// connection's task: a client that goes away ends it, which drops the call's stream and so
    /// cancels the call.
    pub(super) fn answer<C: Backend>(
        self: Box<Self>,
        edge: &Edge<C>,
        checked: Checked,
    ) -> impl Future<Output = Response> + Send {
        self.answer_kept(edge, checked, None)
    }

    /// As [`Arrived::answer`], and `keeper` keeps the answer.
    pub(super) async fn answer_kept<C: Backend>(
        self: Box<Self>,
        edge: &Edge<C>,
        checked: Checked,
        keeper: Option<Keeper>,
    ) -> Response {
        let Ready { call, asked, routed } = match self.ask(edge, checked, keeper) {
            Ok(ready) => *ready,
            Err(refusal) => return *refusal,
        };
        match routed {
            None => answer::answer(edge.core.open(call), asked, &edge.options).await,
            Some((route, served)) => {
                let call = Routed::open(edge.core.clone(), call, &route, served);
                // In a box, so that requests that need no route do not hold room for it.
                Box::pin(answer::answer(call, asked, &edge.options)).await
            }
        }
    }

    /// What is asked for, of whom, and how it is to be answered.
    ///
    /// # Errors
    /// The response that refuses it.
    fn ask<C: Backend>(
        mut self: Box<Self>,
        edge: &Edge<C>,
        checked: Checked,
        keeper: Option<Keeper>,
    ) -> Result<Box<Ready>, Box<Response>> {
        let (form, call) = self.call(checked);
        let route = edge.models.route(&call.model);
        let grant = match self.grant(&call, route.as_deref(), edge) {
            Ok(grant) => grant,
            Err(error) => return Err(Box::new(answer::refuse(&mut self.record, form.as_ref(), &error))),
        };
        let routed = route.map(|route| (route, Served::default()));
        let served = routed.as_ref().map(|(_, served)| served.clone());
        self.record.called(&call, grant, served);
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let created = created.map_or(0, |since| since.as_secs());
        let asked = Box::new(Asked {
            form,
            identity: Identity::prefixed(self.endpoint.id_prefix, call.id, created, &call.model),
            backstop: call.deadline + BACKSTOP,
            record: self.record,
            wire: self.wire,
            keeper,
        });
        Ok(Box::new(Ready { call, asked, routed }))
    }

    fn call(&mut self, checked: Checked) -> (Box<dyn Form>, Call) {
        let headers = &mut self.headers;
        let call = Call {
            id: Uuid::now_v7(),
            kind: self.endpoint.kind,
            model: checked.model,
            needs: checked.needs,
            body: checked.body.unwrap_or_else(|| self.body.clone()),
            deadline: self.at + headers.timeout,
            priority: headers.priority,
            tenant: headers.tenant.take(),
            client_id: std::mem::take(&mut self.id.0),
            trace: headers.trace.take(),
            not_resumable: checked.not_resumable,
            in_one_piece: !checked.form.is_stream(),
        };
        (checked.form, call)
    }

    /// What the request's key says to the call.
    fn grant<C>(&self, call: &Call, route: Option<&Route>, edge: &Edge<C>) -> Result<Option<Grant>, HttpError> {
        let Some(caller) = &self.caller else { return Ok(None) };
        if !caller.key().may_use(&call.model) {
            return Err(HttpError::ModelNotAllowed(call.model.clone()));
        }
        // The first model's defaults bound the answer where the request does not.
        let target = route.and_then(|route| route.targets.first());
        let filled = || target.and_then(|target| target.defaults.fill(&call.body, &target.model).ok());
        let tokens = || {
            let completion = match filled() {
                Some(filled) => estimate::completion(call.kind, &filled),
                None => estimate::completion(call.kind, &call.body),
            };
            estimate::prompt(&call.body).saturating_add(completion)
        };
        caller.admit(tokens, Instant::now()).map(Some).map_err(|refusal| {
            let limit = match refusal {
                Refusal::Requests { .. } => "requests",
                Refusal::Tokens { .. } => "tokens",
                Refusal::Streams { .. } => "streams",
            };
            edge.metrics.key_limited(caller.key().name.as_str(), limit);
            HttpError::Limited(refusal)
        })
    }
}

fn refusal(endpoint: &Endpoint, record: &mut Record, error: &HttpError) -> Response {
    let verdict = record.failed(error, None);
    let body = (endpoint.error)(&verdict.failure().of(record.id()));
    verdict.into_response_with(body)
}
