//! The way of a request through an endpoint that calls a model: its headers and body are read, its API checks it, and
//! a call answers it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use http::HeaderValue;
use tokenbus_api::{Checked, Failure, Form, Identity, RequestError, estimated_tokens};
use tokenbus_placement::Prompt;
use tokenbus_protocol::{RequestKind, can_be_repeated};
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::limiter::Refusal;
use crate::auth::{Caller, Grant, estimate};
use crate::call::{Backend, Call};
use crate::fast_path::wire::{ClientWire, Wire};
use crate::http::answer::keeping::Keeper;
use crate::http::answer::record::Record;
use crate::http::answer::respond::{self, AnswerContext};
use crate::http::edge::Edge;
use crate::http::endpoints::offered_tools;
use crate::http::error::HttpError;
use crate::http::limits::BACKSTOP;
use crate::http::request::body;
use crate::http::request::headers::{CallHeaders, IGNORED};
use crate::http::request::path::PathModel;
use crate::http::request::request_id::RequestId;
use crate::http::request::run_off_thread::run_off_thread;
use crate::model_config::{Route, Routed, Served};
use crate::placement::prompt;

/// An endpoint that calls a model.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its path.
    pub(crate) path: &'static str,
    /// The kind of its calls.
    pub(crate) kind: RequestKind,
    /// Prefix of the answers' ids.
    pub(crate) id_prefix: &'static str,
    /// Checks a request's body.
    pub(crate) check: fn(&[u8]) -> Result<Checked, RequestError>,
    /// The body of an error that comes before the request has a form.
    pub(crate) error: fn(&Failure<'_>) -> Bytes,
}

impl Endpoint {
    /// The route of an endpoint that does nothing between the check and the call.
    pub(crate) fn route<C: Backend>(&'static self) -> MethodRouter<Edge<C>> {
        post(
            move |State(edge): State<Edge<C>>, Extension(id): Extension<RequestId>, request: Request| {
                // Boxed, here and inside: the layers around this move its future, and while it waits for an answer it
                // must not hold space for the steps before.
                Box::pin(async move {
                    let mut received = match Box::pin(ReceivedRequest::read(&edge, self, id, request)).await {
                        Ok(received) => received,
                        Err(refusal) => return *refusal,
                    };
                    match received.check().await {
                        Ok(checked) => Box::pin(received.answer(&edge, *checked)).await,
                        Err(error) => received.refuse(&error),
                    }
                })
            },
        )
    }
}

/// A request whose headers and body were read.
pub(crate) struct ReceivedRequest {
    endpoint: &'static Endpoint,
    /// The client's body.
    pub(crate) body: Bytes,
    /// The values of its headers.
    pub(crate) headers: CallHeaders,
    caller: Option<Caller>,
    /// The kind of its call.
    pub(crate) kind: RequestKind,
    id: RequestId,
    at: Instant,
    record: Record,
    wire: Option<Arc<Wire>>,
}

/// A call that can be opened.
struct PreparedCall {
    call: Call,
    context: Box<AnswerContext>,
    /// `None` if its model is not an alias.
    alias: Option<Alias>,
}

/// The models that an alias stands for.
struct Alias {
    route: Arc<Route>,
    /// The model that serves the call, once that is known.
    served: Served,
}

impl ReceivedRequest {
    /// Reads `request`.
    ///
    /// # Errors
    /// The response that refuses it.
    pub(crate) async fn read<C: Backend>(
        edge: &Edge<C>,
        endpoint: &'static Endpoint,
        id: RequestId,
        request: Request,
    ) -> Result<Box<Self>, Box<Response>> {
        let at = Instant::now();
        let wire = request.extensions().get::<ClientWire>().map(|wire| Arc::clone(&wire.0));
        let caller = request.extensions().get::<Caller>().cloned();
        let mut record = Record::begin(edge, (id.clone(), endpoint.path), caller.clone(), at);
        let path_model = request.extensions().get::<PathModel>().cloned();
        let read = async {
            let mut headers = CallHeaders::read(
                request.headers(),
                edge.options.request_timeout,
                edge.options.max_request_timeout,
            )?;
            if let Some(caller) = &caller {
                headers.bound(caller.key());
            }
            let body = body::read(request, edge.options.body_limit).await?;
            let body = match path_model {
                Some(model) => model.fill(body),
                None => body,
            };
            Ok((headers, body))
        };
        match read.await {
            Ok((headers, body)) => Ok(Box::new(Self {
                endpoint,
                kind: endpoint.kind,
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

    /// Checks its body.
    async fn check(&mut self) -> Result<Box<Checked>, HttpError> {
        let (check, body) = (self.endpoint.check, self.body.clone());
        Ok(Box::new(run_off_thread(body.len(), move || check(&body)).await??))
    }

    /// Ends the request with `error`.
    pub(crate) fn refuse(mut self: Box<Self>, error: &HttpError) -> Response {
        refusal(self.endpoint, &mut self.record, error)
    }

    /// Ends the request with an answer that needs no call.
    pub(crate) fn answered(mut self: Box<Self>) {
        self.record.succeeded();
    }

    /// Opens the request's call and answers with its outputs. Runs in the connection's task: a client that goes away
    /// ends that, which drops the call's stream and so cancels the call.
    pub(crate) fn answer<C: Backend>(
        self: Box<Self>,
        edge: &Edge<C>,
        checked: Checked,
    ) -> impl Future<Output = Response> + Send {
        self.answer_kept(edge, checked, None)
    }

    /// Like [`ReceivedRequest::answer`]; `keeper` stores the answer.
    pub(crate) async fn answer_kept<C: Backend>(
        self: Box<Self>,
        edge: &Edge<C>,
        mut checked: Checked,
        keeper: Option<Keeper>,
    ) -> Response {
        offered_tools::leave_out(edge, &mut checked, &self.body);
        let ignored = ignored(&checked.ignored);
        let read = match self.prompt(&checked).await {
            Ok(read) => read,
            Err(error) => return self.refuse(&error),
        };
        let PreparedCall { call, context, alias } = match self.prepare(edge, checked, read, keeper) {
            Ok(prepared) => *prepared,
            Err(refusal) => return *refusal,
        };
        let mut response = match alias {
            None => respond::answer(edge.core.open(call), context, &edge.options).await,
            Some(Alias { route, served }) => {
                let call = Routed::open(edge.core.clone(), call, &route, served);
                // Boxed, so that requests without an alias do not reserve space for this.
                Box::pin(respond::answer(call, context, &edge.options)).await
            }
        };
        if let Some(ignored) = ignored {
            response.headers_mut().insert(IGNORED, *ignored);
        }
        response
    }

    /// Makes the call, and what its answer needs.
    ///
    /// # Errors
    /// The response that refuses it.
    fn prepare<C: Backend>(
        mut self: Box<Self>,
        edge: &Edge<C>,
        checked: Checked,
        prompt: (Prompt, Option<u64>),
        keeper: Option<Keeper>,
    ) -> Result<Box<PreparedCall>, Box<Response>> {
        let (form, call) = self.call(checked, prompt);
        let route = edge.models.route(&call.model);
        let grant = match self.grant(&call, route.as_deref(), edge) {
            Ok(grant) => grant,
            Err(error) => return Err(Box::new(respond::refuse(&mut self.record, form.as_ref(), &error))),
        };
        let alias = route.map(|route| Alias {
            route,
            served: Served::default(),
        });
        let served = alias.as_ref().map(|alias| alias.served.clone());
        self.record.called(&call, grant, served);
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let created = created.map_or(0, |since| since.as_secs());
        let context = Box::new(AnswerContext {
            form,
            identity: Identity::new(self.endpoint.id_prefix, call.id, created, &call.model),
            backstop: call.deadline + BACKSTOP,
            silence: call.silence + BACKSTOP,
            explain: self.headers.explain,
            record: self.record,
            wire: self.wire,
            keeper,
        });
        Ok(Box::new(PreparedCall { call, context, alias }))
    }

    /// The cuts of its prompt, and the session that the client names.
    async fn prompt(&self, checked: &Checked) -> Result<(Prompt, Option<u64>), HttpError> {
        let (kind, named, body) = (self.kind, self.headers.session, self.body.clone());
        let (model, translated) = (checked.model.clone(), checked.body.clone());
        run_off_thread(body.len(), move || {
            let mut prompt = prompt::cuts(kind, translated.as_ref().unwrap_or(&body), "");
            prompt.set_model(&model);
            (prompt, named.or_else(|| prompt::session(&body)))
        })
        .await
    }

    fn call(&mut self, checked: Checked, (prompt, session): (Prompt, Option<u64>)) -> (Box<dyn Form>, Call) {
        let headers = &mut self.headers;
        let body = checked.body.unwrap_or_else(|| self.body.clone());
        // What cannot be continued is generated again where it comes out the same.
        let again = || self.endpoint.kind.is_generated() && can_be_repeated(&body);
        let not_resumable = checked.not_resumable.filter(|_| !again());
        let call = Call {
            id: Uuid::now_v7(),
            kind: self.kind,
            model: checked.model,
            needs: checked.needs,
            body,
            prompt,
            session,
            deadline: self.at + headers.timeout,
            silence: headers.timeout,
            priority: headers.priority,
            tenant: headers.tenant.take(),
            client_id: std::mem::take(&mut self.id.0),
            trace: headers.trace.take(),
            not_resumable,
            in_one_piece: !checked.form.is_stream(),
        };
        (checked.form, call)
    }

    /// Admits the call under its key's rights and limits.
    fn grant<C>(&self, call: &Call, route: Option<&Route>, edge: &Edge<C>) -> Result<Option<Grant>, HttpError> {
        let Some(caller) = &self.caller else { return Ok(None) };
        if !caller.key().may_use(&call.model) {
            return Err(HttpError::ModelNotAllowed(call.model.clone()));
        }
        // If the request does not bound the answer, the first model's defaults may.
        let target = route.and_then(|route| route.targets.first());
        let filled = || target.and_then(|target| target.defaults.fill(&call.body, &target.model).ok());
        let tokens = || {
            let completion = match filled() {
                Some(filled) => estimate::completion(call.kind, &filled),
                None => estimate::completion(call.kind, &call.body),
            };
            estimated_tokens(&call.body).saturating_add(completion)
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

/// The names of what the client does not get, for the answer's head.
fn ignored(names: &[String]) -> Option<Box<HeaderValue>> {
    let names = names.join(", ");
    HeaderValue::from_str(&names)
        .ok()
        .filter(|_| !names.is_empty())
        .map(Box::new)
}

fn refusal(endpoint: &Endpoint, record: &mut Record, error: &HttpError) -> Response {
    let verdict = record.failed(error, None);
    let body = (endpoint.error)(&verdict.failure().of(record.id()));
    verdict.into_response_with(body)
}
