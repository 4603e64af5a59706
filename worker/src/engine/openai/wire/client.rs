//! The HTTP client: plain connections by hyper itself, TLS and proxies by reqwest.
//!
//! Plain HTTP is the hot path (an engine on this machine or network) and must not depend on a
//! certificate store, which slim containers lack.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokenbus_protocol::TraceContext;

use super::credentials::Credentials;
use crate::engine::openai::error::Secrets;
use crate::engine::openai::limits;
use crate::engine::openai::options::StartError;
use crate::fast_path::tap::{Connector, TappedBody};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection could be made.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke before an answer came.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It took longer than allowed.
    #[error("no answer in time")]
    Timeout,
    /// The answer is larger than allowed.
    #[error("the answer is too large")]
    TooLarge,
    /// The request cannot be written, which is our own fault.
    #[error("the request cannot be sent: {0}")]
    Invalid(String),
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Base of the API without a trailing slash.
    api: String,
    /// The same without `/v1`: where servers have their own pages.
    root: String,
    /// `host:port`, as it may appear in messages.
    authority: String,
    /// Whether it speaks TLS.
    tls: bool,
}

impl Base {
    /// Reads a base URL.
    pub(crate) fn parse(url: &str) -> Result<Self, StartError> {
        let refused = |reason: &str| StartError::Url {
            url: hide_user(url),
            reason: reason.to_owned(),
        };
        let uri: Uri = url.trim().parse().map_err(|_| refused("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("a user or password in it would end up in logs; use an API key"));
        }
        if uri.query().is_some() {
            return Err(refused("it has a query"));
        }
        let scheme = if tls { "https" } else { "http" };
        let path = uri.path().trim_end_matches('/');
        let api = format!("{scheme}://{authority}{path}");
        let root = api.strip_suffix("/v1").unwrap_or(&api).to_owned();
        Ok(Self {
            api,
            root,
            authority: authority.as_str().to_owned(),
            tls,
        })
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host and port as the URL has them.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

fn hide_user(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.to_owned(),
    }
}

/// A path of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    /// Below `/v1`.
    Api(&'a str),
    /// Beside `/v1`.
    Root(&'a str),
}

/// A client of one server. Its address may change when a supervised server is started again.
pub(crate) struct Client {
    base: RwLock<Arc<Base>>,
    credentials: Credentials,
    http: Http,
}

enum Http {
    Plain(Box<hyper_util::client::legacy::Client<Connector, Full<Bytes>>>),
    Tls(reqwest::Client),
}

/// The body of an answer. Dropping it before its end closes the connection.
pub(crate) enum AnswerBody {
    Plain(Incoming),
    Tapped(TappedBody),
    Tls(reqwest::Body),
}

impl Client {
    pub(crate) fn new(base: Base, credentials: Credentials) -> Result<Self, StartError> {
        let http = if base.is_tls() {
            Http::Tls(tls_client()?)
        } else {
            Http::Plain(Box::new(plain_client()))
        };
        Ok(Self {
            base: RwLock::new(Arc::new(base)),
            credentials,
            http,
        })
    }

    /// Where the server is now.
    pub(crate) fn base(&self) -> Arc<Base> {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server is elsewhere now. TLS or not stays as it was.
    pub(crate) fn set_base(&self, base: Base) {
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(base);
    }

    /// What must not be told to clients.
    pub(crate) fn secrets(&self) -> Secrets {
        let authority = self.base().authority().to_owned();
        Secrets::new(self.credentials.secret().into_iter().chain([authority]))
    }

    /// Posts JSON. A key that was refused is read again, and a connection that the server closed
    /// while it was idle is replaced, once each.
    pub(crate) async fn post(
        &self,
        path: Path<'_>,
        body: &Bytes,
        trace: Option<&TraceContext>,
    ) -> Result<Response<AnswerBody>, SendError> {
        let mut renewed = false;
        let mut replaced = false;
        loop {
            let key = self.credentials.header();
            let request = self.request(Method::POST, path, key.as_ref(), Some(body), trace)?;
            let sent = Instant::now();
            match self.send(request).await {
                Ok(answer) if answer.status() == 401 && !renewed && self.renew(key.as_ref()) => renewed = true,
                Err(SendError::Broken(_)) if !replaced && sent.elapsed() < limits::STALE_CONNECTION => replaced = true,
                // The first connection was not stale: the server has died since.
                Err(SendError::Connect(reason)) if replaced => return Err(SendError::Broken(reason)),
                outcome => return outcome,
            }
        }
    }

    /// Gets a page within `timeout` and reads at most [`limits::MAX_PROBE_BODY`] bytes of it.
    pub(crate) async fn get(&self, path: Path<'_>, timeout: Duration) -> Result<Response<Bytes>, SendError> {
        self.page(Method::GET, path, None, timeout).await
    }

    /// The same for a page that wants a JSON body.
    pub(crate) async fn ask(
        &self,
        path: Path<'_>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        self.page(Method::POST, path, Some(body), timeout).await
    }

    async fn page(
        &self,
        method: Method,
        path: Path<'_>,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let key = self.credentials.header();
        let request = self.request(method, path, key.as_ref(), body.as_ref(), None)?;
        let whole = async {
            let (parts, body) = self.send(request).await?.into_parts();
            if parts.status == 401 {
                self.renew(key.as_ref());
            }
            Ok(Response::from_parts(
                parts,
                read_to_end(body, limits::MAX_PROBE_BODY).await?,
            ))
        };
        tokio::time::timeout(timeout, whole)
            .await
            .unwrap_or(Err(SendError::Timeout))
    }

    fn renew(&self, used: Option<&HeaderValue>) -> bool {
        self.credentials.renew(used)
    }

    fn request(
        &self,
        method: Method,
        path: Path<'_>,
        key: Option<&HeaderValue>,
        body: Option<&Bytes>,
        trace: Option<&TraceContext>,
    ) -> Result<Request<Bytes>, SendError> {
        let base = self.base();
        let uri = match path {
            Path::Api(path) => format!("{}/{path}", base.api),
            Path::Root(path) => format!("{}/{path}", base.root),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(body.cloned().unwrap_or_default())
            .map_err(|error| SendError::Invalid(error.to_string()))?;
        let headers = request.headers_mut();
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("text/event-stream, application/json, */*"),
        );
        let parent = trace.map(|trace| ("traceparent", trace.parent.as_str()));
        let state = trace.and_then(|trace| Some(("tracestate", trace.state.as_deref()?)));
        for (name, text) in parent.into_iter().chain(state) {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        Ok(request)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<AnswerBody>, SendError> {
        match &self.http {
            Http::Plain(client) => match client.request(request.map(Full::new)).await {
                Ok(answer) => Ok(TappedBody::of(answer).map(|body| match body {
                    Ok(tapped) => AnswerBody::Tapped(tapped),
                    Err(library) => AnswerBody::Plain(library),
                })),
                Err(error) if error.is_connect() => Err(SendError::Connect(causes(&error))),
                Err(error) => Err(SendError::Broken(causes(&error))),
            },
            Http::Tls(client) => {
                let request =
                    reqwest::Request::try_from(request).map_err(|error| SendError::Invalid(causes(&error)))?;
                match client.execute(request).await {
                    Ok(answer) => Ok(Response::<reqwest::Body>::from(answer).map(AnswerBody::Tls)),
                    Err(error) if error.is_connect() => Err(SendError::Connect(causes(&error))),
                    Err(error) => Err(SendError::Broken(causes(&error))),
                }
            }
        }
    }
}

fn plain_client() -> hyper_util::client::legacy::Client<Connector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
    connector.set_keepalive(Some(limits::TCP_KEEPALIVE));
    connector.set_keepalive_interval(Some(limits::TCP_KEEPALIVE));
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(limits::POOL_IDLE)
        .pool_max_idle_per_host(limits::POOL_MAX_IDLE)
        .build(Connector(connector))
}

fn tls_client() -> Result<reqwest::Client, StartError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    reqwest::Client::builder()
        .tcp_nodelay(true)
        .tcp_keepalive(limits::TCP_KEEPALIVE)
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .pool_idle_timeout(limits::POOL_IDLE)
        .pool_max_idle_per_host(limits::POOL_MAX_IDLE)
        // A redirect would send the prompt, and maybe the key, to where nobody pointed.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| StartError::Client(causes(&error)))
}

/// An error with the causes below it, which is where the reason stands.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Reads a body whole, up to `max` bytes.
pub(crate) async fn read_to_end(mut body: AnswerBody, max: usize) -> Result<Bytes, SendError> {
    let mut all = Vec::new();
    let mut fits = true;
    while let Some(fed) = body
        .feed(&mut |bytes| {
            fits &= all.len() + bytes.len() <= max;
            if fits {
                all.extend_from_slice(bytes);
            }
        })
        .await
    {
        fed?;
        if !fits {
            return Err(SendError::TooLarge);
        }
    }
    Ok(all.into())
}

/// The text of a header.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl AnswerBody {
    /// Waits for bytes and gives them to `take`. `None` at the end.
    pub(crate) async fn feed(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) -> Option<Result<(), SendError>> {
        let broken = |error: &dyn std::error::Error| SendError::Broken(causes(error));
        let frame = match self {
            Self::Tapped(body) => return Some(body.feed(take).await?.map_err(|error| broken(&error))),
            Self::Plain(body) => body.frame().await?.map_err(|error| broken(&error)),
            Self::Tls(body) => body.frame().await?.map_err(|error| broken(&error)),
        };
        Some(frame.map(|frame| {
            // What is no data are trailers, which say nothing.
            if let Some(data) = frame.data_ref() {
                take(data);
            }
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_base_and_what_is_beside_it() {
        for url in ["http://h:8000/v1", "http://h:8000/v1/", " http://h:8000/v1 "] {
            let base = Base::parse(url).unwrap();
            assert_eq!(
                (base.api.as_str(), base.root.as_str()),
                ("http://h:8000/v1", "http://h:8000")
            );
            assert_eq!((base.authority(), base.is_tls()), ("h:8000", false));
        }
        let base = Base::parse("https://api.example.com/openai/v1").unwrap();
        assert_eq!(
            (base.root.as_str(), base.is_tls()),
            ("https://api.example.com/openai", true)
        );
        let base = Base::parse("https://api.example.com/openai").unwrap();
        assert_eq!(base.api, base.root);
    }

    #[test]
    fn urls_that_lead_nowhere_are_refused_and_passwords_not_repeated() {
        for bad in [
            "",
            "h:8000",
            "/v1",
            "ftp://h/v1",
            "http://",
            "http://u:secret@h/v1",
            "http://h/v1?key=x",
        ] {
            let error = Base::parse(bad).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
