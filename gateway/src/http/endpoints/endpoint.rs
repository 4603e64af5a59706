//! The way of a request through an endpoint that calls a model: its headers and body are read, its API checks it, and
//! a call answers it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use http::HeaderValue;
use tokenbus_api::{Checked, Failure, Form, Identity, RequestError, with_cache_salt};
use tokenbus_placement::Prompt;
use tokenbus_protocol::{RequestKind, can_be_repeated};
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::limiter::Refusal;
use crate::auth::secret::KeyHash;
use crate::auth::{Caller, Grant, estimate};
use crate::call::{Backend, Call};
use crate::fast_path::bypass::{Bypass, ClientBypass};
use crate::http::answer::keeping::Keeper;
use crate::http::answer::record::Record;
use crate::http::answer::respond::{self, AnswerContext};
use crate::http::edge::Edge;
use crate::http::endpoints::offered_tools;
use crate::http::error::HttpError;
use crate::http::held::Held;
use crate::http::limits::BACKSTOP;
use crate::http::request::body;
use crate::http::request::client_address::ClientAddress;
use crate::http::request::headers::{self, CallHeaders, IGNORED};
use crate::http::request::path::PathModel;
use crate::http::request::request_id::RequestId;
use crate::http::request::run_off_thread::run_off_thread;
use crate::model_config::{Route, Routed, Served};
use crate::placement::prompt;
use crate::story::Way;
use tokenbus_bus::clock::unix_seconds;

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
    pub(crate) fn route<C: Backend>(&'static self) -> MethodRouter<Arc<Edge<C>>> {
        post(
            move |State(edge): State<Arc<Edge<C>>>, Extension(id): Extension<RequestId>, request: Request| {
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
    address: Option<IpAddr>,
    grant: Option<Grant>,
    /// The kind of its call.
    pub(crate) kind: RequestKind,
    id: RequestId,
    at: Instant,
    record: Record,
    /// Its share of all bodies' bytes.
    held: Held,
    bypass: Option<Arc<dyn Bypass>>,
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
        let bypass = request
            .extensions()
            .get::<ClientBypass>()
            .map(|bypass| Arc::clone(&bypass.0));
        let address = request.extensions().get::<ClientAddress>().map(|client| client.0);
        let caller = request.extensions().get::<Caller>().cloned();
        let trace = edge.tracer.begin(headers::trace(request.headers()));
        let mut record = Record::begin(edge, (id.clone(), endpoint.path), caller.clone(), (trace, at));
        let held = edge.bodies.begin();
        record.holds(held.clone());
        let path_model = request.extensions().get::<PathModel>().cloned();
        let read = async {
            // Before the body: a client beyond its limits must not make the gateway read and check what it sends.
            let grant = caller.as_ref().map(|caller| admit(edge, caller)).transpose()?;
            let mut headers = CallHeaders::read(
                request.headers(),
                edge.options.request_timeout,
                edge.options.max_request_timeout,
            )?;
            headers.bound(caller.as_ref().map(Caller::key), edge.options.max_priority);
            let body = body::read(request, edge.options.body_limit, &held, at + headers.timeout).await?;
            let body = match path_model {
                Some(model) => model.fill(body),
                None => body,
            };
            Ok((grant, headers, body))
        };
        match read.await {
            Ok((grant, headers, body)) => Ok(Box::new(Self {
                endpoint,
                kind: endpoint.kind,
                body,
                headers,
                address,
                grant,
                id,
                at,
                record,
                held,
                bypass,
            })),
            Err(error) => Err(Box::new(refusal(endpoint, &mut record, &error))),
        }
    }

    /// Checks its body.
    async fn check(&mut self) -> Result<Box<Checked>, HttpError> {
        let (check, body, held) = (self.endpoint.check, self.body.clone(), self.held.clone());
        let checked = run_off_thread(body.len(), move || {
            let checked = check(&body);
            // The body counts until here, although the client may have left.
            drop(held);
            checked
        });
        Ok(Box::new(checked.await??))
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
        mut self: Box<Self>,
        edge: &Edge<C>,
        mut checked: Checked,
        keeper: Option<Keeper>,
    ) -> Response {
        let translated = checked.body.as_ref().map_or(0, Bytes::len);
        if let Err(error) = self.held.grow(translated) {
            return self.refuse(&error);
        }
        match self.check_for_engine(edge, &checked).await {
            Ok(None) => {}
            Ok(salted) => checked.body = salted,
            Err(error) => return respond::refuse(&mut self.record, checked.form.as_ref(), &error),
        }
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

    /// Checks what the body for the engine makes that do beside answering. Returns another body where tenants are to be
    /// kept apart in the engine's cache.
    async fn check_for_engine<C>(&self, edge: &Edge<C>, checked: &Checked) -> Result<Option<Bytes>, HttpError> {
        let body = checked.body.as_ref().unwrap_or(&self.body).clone();
        let trusted = self.grant.as_ref().is_some_and(|grant| grant.key().engine_members);
        let options = Arc::clone(&edge.options);
        let salted = options.cache_salt && self.kind.is_generated();
        let salt = salted.then(|| cache_salt(self.headers.tenant.as_deref().unwrap_or_default()));
        let check = move || {
            options.engine.check(&body, trusted)?;
            salt.map(|salt| with_cache_salt(&body, &salt)).transpose()
        };
        Ok(run_off_thread(checked.body.as_ref().unwrap_or(&self.body).len(), check).await??)
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
        if let Err(error) = self.charge(&call, route.as_deref(), edge) {
            return Err(Box::new(respond::refuse(&mut self.record, form.as_ref(), &error)));
        }
        let alias = route.map(|route| Alias {
            route,
            served: Served::default(),
        });
        let served = alias.as_ref().map(|alias| alias.served.clone());
        self.record.called(&call, self.grant, served);
        let created = unix_seconds();
        let context = Box::new(AnswerContext {
            form,
            identity: Identity::new(self.endpoint.id_prefix, call.id, created, &call.model),
            backstop: call.deadline + BACKSTOP,
            silence: call.silence + BACKSTOP,
            explain: self.headers.explain,
            record: self.record,
            bypass: self.bypass,
            keeper,
        });
        Ok(Box::new(PreparedCall { call, context, alias }))
    }

    /// The cuts of its prompt, and the session that the client names.
    async fn prompt(&self, checked: &Checked) -> Result<(Prompt, Option<u64>), HttpError> {
        let (kind, named, body) = (self.kind, self.headers.session, self.body.clone());
        let (model, translated) = (checked.model.clone(), checked.body.clone());
        run_off_thread(body.len(), move || {
            let mut prompt = prompt::cuts(kind, translated.as_ref().unwrap_or(&body));
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
            labels: self
                .grant
                .as_ref()
                .map(|grant| grant.key().labels.clone())
                .unwrap_or_default(),
            body,
            prompt,
            session,
            deadline: self.at + headers.timeout,
            silence: headers.timeout,
            priority: headers.priority,
            tenant: headers.tenant.take(),
            address: self.address,
            client_id: std::mem::take(&mut self.id.0),
            trace: self.record.trace().clone(),
            not_resumable,
            in_one_piece: !checked.form.is_stream(),
            way: Way::default(),
        };
        (checked.form, call)
    }

    /// Charges the call's key for the tokens that it will probably use, if the key may use the model.
    fn charge<C>(&mut self, call: &Call, route: Option<&Route>, edge: &Edge<C>) -> Result<(), HttpError> {
        let Some(grant) = &mut self.grant else { return Ok(()) };
        if !grant.key().may_use(&call.model) {
            return Err(HttpError::ModelNotAllowed(call.model.clone()));
        }
        // If the request does not bound the answer, the first model's defaults may.
        let target = route.and_then(|route| route.targets.first());
        let estimated = || {
            let filled = target.and_then(|target| target.defaults.fill(&call.body, &target.model).ok());
            estimate::request(call.kind, &call.body, filled.as_deref())
        };
        // Of its worker only the labels are known that it must have.
        let labels = target.map(|target| call.labels.or(&target.require)).unwrap_or_default();
        let price = edge
            .models
            .price(&call.model, target.map(|target| target.model.as_str()), &labels);
        let charged = grant.charge(estimated, price, Instant::now());
        charged.map_err(|refusal| limited(edge, grant.key().name.as_str(), refusal))
    }
}

/// What keeps the cached prompts of `tenant` apart: the same at every gateway. It is no secret, since no client's own salt
/// reaches an engine.
fn cache_salt(tenant: &str) -> String {
    KeyHash::of(format!("cache of tenant {tenant}").as_bytes()).to_string()
}

/// Admits a request under its key's limits, by what is known before its body.
fn admit<C>(edge: &Edge<C>, caller: &Caller) -> Result<Grant, HttpError> {
    let admitted = caller.admit(Instant::now());
    admitted.map_err(|refusal| limited(edge, caller.key().name.as_str(), refusal))
}

fn limited<C>(edge: &Edge<C>, key: &str, refusal: Refusal) -> HttpError {
    edge.metrics.key_limited(key, refusal.limit());
    HttpError::Limited(refusal)
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
