//! The OpenAI HTTP API as a chat needs it: the models, and one streamed answer.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::{Deserialize, Serialize};
use tokenbus_http_parts::EventParser;

use crate::{http, limits};

/// Why there is no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The address is no URL.
    #[error("{url:?} is no HTTP address: {reason}; write it like http://127.0.0.1:8080/v1")]
    Url {
        /// As given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Nobody there.
    #[error("nothing answers at {url} ({reason}): start a cluster with `tokenbus up`, or name another with --url")]
    Connect {
        /// The base address.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// An answer that is an error.
    #[error("{message} (HTTP {status}{code})")]
    Status {
        /// HTTP status.
        status: u16,
        /// What the server says of it.
        message: String,
        /// Its code, with a comma before it, or nothing.
        code: String,
    },
    /// An error event within the stream.
    #[error("the answer broke off: {0}")]
    Event(String),
    /// The stream ended without its end mark, or the connection broke.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// Not what an OpenAI server sends.
    #[error("not an OpenAI-compatible answer: {0}")]
    Strange(String),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    /// `system`, `user` or `assistant`.
    pub(crate) role: &'static str,
    /// Its text.
    pub(crate) content: String,
}

impl Message {
    /// A message of `role`.
    pub(crate) fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text of the answer.
    Text(String),
    /// Text of the thinking before it, where the model shows it.
    Reasoning(String),
    /// Why it ended: `stop`, `length`, …
    Finish(String),
}

/// A server that speaks the OpenAI API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: Client,
    base: String,
    key: Option<String>,
    sampling: Sampling,
}

/// How tokens are chosen; what is absent is the server's choice.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Sampling {
    /// Randomness, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    /// Most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
}

/// The body of a request.
#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    messages: &'a [Message],
    stream: bool,
    #[serde(flatten)]
    sampling: Sampling,
}

impl Api {
    /// The server whose API is below `url`.
    ///
    /// # Errors
    /// [`ApiError::Url`], or [`ApiError::Connect`] when TLS cannot be set up.
    pub(crate) fn new(url: &str, key: Option<String>) -> Result<Self, ApiError> {
        let base = url.trim_end_matches('/').to_owned();
        let wrong = |reason: String| ApiError::Url {
            url: url.to_owned(),
            reason,
        };
        let parsed: Url = base.parse().map_err(|error| wrong(format!("{error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong("its scheme is not http or https".to_owned()));
        }
        let http = http::client(&parsed, limits::CHAT_SILENCE).map_err(|error| ApiError::Connect {
            url: base.clone(),
            reason: http::cause(&error),
        })?;
        let sampling = Sampling::default();
        Ok(Self {
            http,
            base,
            key,
            sampling,
        })
    }

    /// The same server, asked for answers of this kind.
    #[must_use]
    pub(crate) fn sampling(self, sampling: Sampling) -> Self {
        Self { sampling, ..self }
    }

    /// The names of the models, in the server's order.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn models(&self) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let response = self.send(self.http.get(format!("{}/models", self.base))).await?;
        let body = http::bounded_body(response).await.map_err(ApiError::Strange)?;
        let list: List = serde_json::from_slice(&body).map_err(|error| ApiError::Strange(error.to_string()))?;
        Ok(list.data.into_iter().map(|model| model.id).collect())
    }

    /// Asks, and gives each piece of the answer to `each` as it comes. Dropping the future closes
    /// the connection, which stops the generation.
    ///
    /// # Errors
    /// [`ApiError`]; pieces may have come before.
    pub(crate) async fn chat(
        &self,
        model: &str,
        messages: &[Message],
        mut each: impl FnMut(Piece),
    ) -> Result<(), ApiError> {
        let question = Question {
            model,
            messages,
            stream: true,
            sampling: self.sampling,
        };
        let body = serde_json::to_string(&question).map_err(|error| ApiError::Strange(error.to_string()))?;
        let request = self
            .http
            .post(format!("{}/chat/completions", self.base))
            .header("content-type", "application/json")
            .body(body);
        let response = self.send(request).await?;
        let mut bytes = response.bytes_stream();
        let (mut parser, mut answer) = (EventParser::new(limits::SSE_EVENT_BYTES), Answer::default());
        while !answer.done {
            let Some(chunk) = bytes.next().await else { break };
            let chunk = chunk.map_err(|error| ApiError::Broken(broken(&error)))?;
            parser
                .push(&chunk, |event| {
                    answer.event(&String::from_utf8_lossy(event.data), &mut each);
                })
                .map_err(|error| ApiError::Strange(error.to_string()))?;
            if let Some(error) = answer.failed.take() {
                return Err(error);
            }
        }
        answer.end()
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                ApiError::Connect {
                    url: self.base.clone(),
                    reason: http::cause(&error),
                }
            } else {
                ApiError::Broken(broken(&error))
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http::bounded_body(response).await.unwrap_or_default();
        Err(status_error(status.as_u16(), &body))
    }
}

/// What is known of an answer so far.
#[derive(Debug, Default)]
struct Answer {
    finished: bool,
    done: bool,
    failed: Option<ApiError>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<ErrorBody>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    code: Option<serde_json::Value>,
}

impl Answer {
    fn event(&mut self, data: &str, each: &mut impl FnMut(Piece)) {
        if self.done || self.failed.is_some() {
            return;
        }
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let chunk: Chunk = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            Err(error) => {
                self.failed = Some(ApiError::Strange(error.to_string()));
                return;
            }
        };
        if let Some(error) = chunk.error {
            let code = code_of(&error);
            self.failed = Some(ApiError::Event(format!("{}{code}", error.message)));
            return;
        }
        for choice in chunk.choices {
            let pieces = [
                choice.delta.reasoning_content.map(Piece::Reasoning),
                choice.delta.content.map(Piece::Text),
            ];
            pieces.into_iter().flatten().for_each(&mut *each);
            if let Some(reason) = choice.finish_reason {
                self.finished = true;
                each(Piece::Finish(reason));
            }
        }
    }

    fn end(self) -> Result<(), ApiError> {
        // Some servers leave [DONE] out, but an answer without a finish reason is half an answer.
        if self.done || self.finished {
            return Ok(());
        }
        Err(ApiError::Broken("the stream ended before the answer did".to_owned()))
    }
}

fn status_error(status: u16, body: &[u8]) -> ApiError {
    #[derive(Deserialize)]
    struct Envelope {
        error: ErrorBody,
    }
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { error }) => ApiError::Status {
            status,
            code: error
                .code
                .as_ref()
                .and_then(|code| code.as_str())
                .map_or_else(String::new, |code| format!(", {code}")),
            message: error.message,
        },
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let line = text.lines().find(|line| !line.trim().is_empty());
            let message = line.map_or_else(
                || "the server refused".to_owned(),
                |line| line.chars().take(200).collect(),
            );
            ApiError::Status {
                status,
                message,
                code: String::new(),
            }
        }
    }
}

fn code_of(error: &ErrorBody) -> String {
    match error.code.as_ref().and_then(|code| code.as_str()) {
        Some(code) => format!(" ({code})"),
        None => String::new(),
    }
}

fn broken(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        let silence: Duration = limits::CHAT_SILENCE;
        return format!("nothing came for {} s", silence.as_secs());
    }
    http::cause(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn play(events: &[&str]) -> (Vec<Piece>, Result<(), ApiError>) {
        let (mut answer, mut pieces) = (Answer::default(), Vec::new());
        for event in events {
            answer.event(event, &mut |piece| pieces.push(piece));
        }
        let end = match answer.failed.take() {
            Some(error) => Err(error),
            None => answer.end(),
        };
        (pieces, end)
    }

    #[test]
    fn an_answer_in_pieces() {
        let (pieces, end) = play(&[
            r#"{"choices":[{"delta":{"role":"assistant","reasoning":"hm"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":"Grav"}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"total_tokens":3}}"#,
            "[DONE]",
        ]);
        end.unwrap();
        assert_eq!(
            pieces,
            [
                Piece::Reasoning("hm".into()),
                Piece::Text("Grav".into()),
                Piece::Finish("stop".into())
            ]
        );
    }

    #[test]
    fn half_an_answer_is_an_error() {
        let (pieces, end) = play(&[r#"{"choices":[{"delta":{"content":"Grav"}}]}"#]);
        assert_eq!(pieces.len(), 1);
        assert!(matches!(end, Err(ApiError::Broken(_))));
        let (_, end) = play(&[r#"{"error":{"message":"worker gone","code":"worker_lost"}}"#, "[DONE]"]);
        assert_eq!(
            end.unwrap_err().to_string(),
            "the answer broke off: worker gone (worker_lost)"
        );
        let (_, end) = play(&["nonsense"]);
        assert!(matches!(end, Err(ApiError::Strange(_))));
    }

    #[test]
    fn statuses_carry_the_servers_words() {
        let body = br#"{"error":{"message":"no model x","type":"invalid_request_error","code":"model_not_found"}}"#;
        assert_eq!(
            status_error(404, body).to_string(),
            "no model x (HTTP 404, model_not_found)"
        );
        assert_eq!(
            status_error(502, b"\nBad Gateway\n").to_string(),
            "Bad Gateway (HTTP 502)"
        );
        assert_eq!(status_error(500, b"").to_string(), "the server refused (HTTP 500)");
    }

    #[test]
    fn addresses_are_checked() {
        assert!(matches!(Api::new("127.0.0.1:8080", None), Err(ApiError::Url { .. })));
        assert!(matches!(Api::new("ftp://x/v1", None), Err(ApiError::Url { .. })));
        assert_eq!(Api::new("http://x/v1/", None).unwrap().base, "http://x/v1");
    }

    #[tokio::test]
    async fn nobody_there_says_how_to_start_one() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", socket.local_addr().unwrap());
        drop(socket);
        let error = Api::new(&url, None).unwrap().models().await.unwrap_err();
        assert!(matches!(error, ApiError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("tokenbus up"));
    }
}
