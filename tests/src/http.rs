//! An HTTP client with a new connection for each call, which closes when the call is dropped.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::sse_client::{Sse, Transcript};
use crate::wait::within;

/// A client of one address.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer without its body so far. Dropping it closes the connection.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// When the head came.
    pub at: Instant,
    pub(crate) body: Incoming,
    connection: Connection,
}

/// The task that drives one connection; aborting it closes the socket.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// The connection failed.
    Connect(std::io::Error),
    /// The connection ended before the head of an answer.
    Broken(hyper::Error),
}

impl Client {
    /// A client of `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`HttpError`] when the connection fails or ends before the head.
    pub async fn try_send(&self, mut request: Request<Full<Bytes>>) -> Result<Response, HttpError> {
        let stream = TcpStream::connect(self.address).await.map_err(HttpError::Connect)?;
        stream.set_nodelay(true).map_err(HttpError::Connect)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(HttpError::Broken)?;
        let connection = Connection(tokio::spawn(async move {
            let _ = driver.await;
        }));
        let host = self.address.to_string().parse().expect("an address is a header value");
        request.headers_mut().entry(HOST).or_insert(host);
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(HttpError::Broken)?
            .into_parts();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            at: Instant::now(),
            body,
            connection,
        })
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Panics
    /// Without an answer, or after the deadline.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response {
        let what = format!("{} {} at {}", request.method(), request.uri(), self.address);
        within(&what, self.try_send(request))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    /// GET `path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], Bytes::new()).await
    }

    /// GET `path`, although the server may be away.
    ///
    /// # Errors
    /// As [`Client::try_send`].
    pub async fn try_get(&self, path: &str) -> Result<Answer, HttpError> {
        let request = build(Method::GET, path, &[], Bytes::new());
        Ok(self.try_send(request).await?.collect().await)
    }

    /// Sends any request; returns its whole answer.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        self.send(build(method, path, headers, body)).await.collect().await
    }

    /// POSTs a JSON value; the body of the answer is still to come.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        self.send(build(Method::POST, path, headers, body.to_string().into()))
            .await
    }

    /// Requests a chat completion; returns the whole answer.
    pub async fn chat(&self, body: &Value) -> Answer {
        self.chat_with(&[], body).await
    }

    /// Like [`Client::chat`], with further headers.
    pub async fn chat_with(&self, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.post(CHAT, headers, body).await.collect().await
    }

    /// Requests a streaming chat completion: adds `stream: true` to `body`.
    pub async fn stream(&self, body: &Value) -> Sse {
        self.stream_with(&[], body).await
    }

    /// Like [`Client::stream`], with further headers.
    pub async fn stream_with(&self, headers: &[(&str, &str)], body: &Value) -> Sse {
        self.stream_at(CHAT, headers, body).await
    }

    /// Like [`Client::stream_with`], at another path.
    pub async fn stream_at(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Sse {
        let mut body = body.clone();
        body["stream"] = Value::Bool(true);
        Sse::new(self.post(path, headers, &body).await)
    }

    /// Requests a streaming chat completion and reads it to its end.
    pub async fn transcript(&self, body: &Value) -> Transcript {
        self.stream(body).await.transcript().await
    }
}

/// The path of chat completions.
pub const CHAT: &str = "/v1/chat/completions";

/// A request for [`Client::send`], as JSON if it has a body.
///
/// # Panics
/// When the path or a header is illegal in HTTP.
pub fn build(method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if !body.is_empty()
        && !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).expect("a legal request")
}

impl Response {
    /// Waits for the whole body.
    ///
    /// # Panics
    /// When the body breaks off, or after the deadline.
    pub async fn collect(self) -> Answer {
        let Self {
            status,
            headers,
            body,
            connection,
            ..
        } = self;
        let body = within("the body of an answer", body.collect())
            .await
            .expect("a whole body")
            .to_bytes();
        drop(connection);
        Answer { status, headers, body }
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body of an answer with status 200 as JSON.
    ///
    /// # Panics
    /// For another status.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()
    }

    /// The text of the first choice of a complete chat completion.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn content(&self) -> String {
        let answer = self.ok();
        let content = answer["choices"][0]["message"]["content"].as_str();
        content.unwrap_or_else(|| panic!("no content in {answer}")).to_owned()
    }

    /// The `error` object of an answer with status `status`, in OpenAI's envelope.
    ///
    /// # Panics
    /// For another status, or when the envelope lacks a member.
    #[track_caller]
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let error = self.json()["error"].clone();
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "not OpenAI's envelope: {error}"
        );
        for member in ["param", "code"] {
            let value = error.get(member).unwrap_or_else(|| panic!("no {member} in {error}"));
            assert!(value.is_null() || value.is_string(), "{member} in {error}");
        }
        error
    }

    /// `Retry-After` in seconds.
    ///
    /// # Panics
    /// When it is absent or less than 1.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let value = self
            .header("retry-after")
            .unwrap_or_else(|| panic!("no Retry-After: {self:?}"));
        let seconds: u64 = value.parse().unwrap_or_else(|_| panic!("Retry-After: {value}"));
        assert!(seconds >= 1, "Retry-After: 0 asks for a storm");
        seconds
    }
}
