//! A job's exchange with the server: leave to ask, the question, a refusal, and output into the sink.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokenbus_protocol::{Delta, EngineError, ErrorCode, TraceContext};

use super::streamed::Stopped;
use crate::engine::openai::error;
use crate::engine::openai::limits;
use crate::engine::openai::manner::Refused;
use crate::engine::openai::watch::question::Topic;
use crate::engine::openai::watch::shared::Shared;
use crate::engine::openai::wire::client::{AnswerBody, Path, SendError, header_text, read_to_end};
use crate::engine::{Closed, Job, Sink};

/// Several upstream answers may write to one sink (a failover with `n > 1`).
pub(crate) type Output = Mutex<Box<dyn Sink>>;

pub(crate) fn emit(output: &Output, delta: Delta<'_>) -> Result<(), Closed> {
    output.lock().unwrap_or_else(PoisonError::into_inner).delta(delta)
}

/// Waits for room on the way to the gateway.
pub(crate) async fn room(output: &Output) {
    let room = output.lock().unwrap_or_else(PoisonError::into_inner).congestion();
    if let Some(room) = room {
        room.await;
    }
}

/// Lets `work` for `job` run if the circuit breaker does, and tells it how that went.
pub(crate) async fn permitted<T>(
    shared: &Arc<Shared>,
    job: &Job,
    work: impl Future<Output = Result<T, Stopped>>,
) -> Result<T, Stopped> {
    let Some(permit) = shared.permit(Instant::now()) else {
        let message = "the engine failed repeatedly and is left alone for a while";
        return Err(error::plain(ErrorCode::EngineUnavailable, message, true).into());
    };
    let outcome = work.await;
    match &outcome {
        Ok(_) => permit.success(),
        Err(Stopped::Failed(error)) if error::is_fault(error) && error.code == ErrorCode::Internal => {
            let mut hasher = DefaultHasher::new();
            job.body.hash(&mut hasher);
            let topic = Topic {
                kind: job.kind,
                upstream: shared
                    .catalog()
                    .target(&job.model)
                    .map_or_else(String::new, |target| target.upstream.clone()),
            };
            permit.failed_on(hasher.finish(), topic, Instant::now());
        }
        Err(Stopped::Failed(error)) if error::is_fault(error) => permit.failure(Instant::now()),
        Err(Stopped::Failed(_)) => permit.success(),
        Err(Stopped::Closed) => drop(permit),
    }
    outcome
}

/// The server, as one job speaks to it.
pub(crate) struct Server<'j> {
    pub(crate) shared: &'j Shared,
    pub(crate) trace: Option<&'j TraceContext>,
    /// The last refusal, as the server wrote it.
    pub(crate) refused: Mutex<Option<Refused>>,
}

impl<'j> Server<'j> {
    pub(crate) fn new(shared: &'j Shared, job: &'j Job) -> Self {
        Self {
            shared,
            trace: job.trace.as_ref(),
            refused: Mutex::new(None),
        }
    }

    /// Keeps what the server said when it refused.
    pub(crate) fn note(&self, status: StatusCode, body: &[u8]) {
        let body = String::from_utf8_lossy(body).into_owned();
        self.keep(Refused {
            status,
            body,
            begun: false,
        });
    }

    fn keep(&self, refused: Refused) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }

    /// Posts `body`; what comes back is an answer that began well.
    pub(crate) async fn post(&self, path: Path<'_>, body: &Bytes) -> Result<Response<AnswerBody>, EngineError> {
        let sent = self.shared.client.post(path, body, self.trace).await;
        let answer = sent.map_err(|error| self.send_error(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let secrets = self.shared.client.secrets();
        Err(self.refusal(answer, &secrets).await)
    }

    /// The same for a failure in an answer that began well.
    pub(crate) fn note_failure(&self, error: &EngineError) {
        let status = match error.code {
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            _ => return,
        };
        let param = error.param.as_deref().unwrap_or_default();
        self.keep(Refused {
            status,
            body: format!("{} {param}", error.message),
            begun: true,
        });
    }

    pub(crate) fn take_refused(&self) -> Option<Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn send_error(&self, error: &SendError) -> EngineError {
        tracing::warn!(%error, "the engine cannot be reached");
        match error {
            SendError::Invalid(_) | SendError::TooLarge => {
                error::plain(ErrorCode::Internal, "the request cannot be sent to the engine", false)
            }
            SendError::Broken(_) => {
                self.shared.connection_failed();
                error::died()
            }
            SendError::Connect(_) | SendError::Timeout => {
                self.shared.connection_failed();
                error::unreachable()
            }
        }
    }

    pub(crate) fn broken(&self, reason: &SendError) -> EngineError {
        tracing::warn!(%reason, "the engine's stream broke");
        self.shared.connection_failed();
        error::died()
    }

    async fn refusal(&self, answer: Response<AnswerBody>, secrets: &error::Secrets) -> EngineError {
        let (parts, body) = answer.into_parts();
        if matches!(
            parts.status,
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY
        ) {
            self.shared.look_again();
        }
        let body = error_body(body).await;
        self.note(parts.status, &body);
        let retry_after = header_text(&parts.headers, "retry-after");
        let error = error::from_response(parts.status, retry_after, &body, SystemTime::now(), secrets);
        if error::is_fault(&error) || error.code == ErrorCode::UpstreamUnauthorized {
            tracing::warn!(status = parts.status.as_u16(), message = %error.message, "the engine failed");
        }
        error
    }
}

/// What there is of an error's body within its bounds; the status alone says enough.
pub(crate) async fn error_body(body: AnswerBody) -> Bytes {
    match tokio::time::timeout(limits::ERROR_BODY_TIMEOUT, read_to_end(body, limits::MAX_ERROR_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) | Err(_) => Bytes::new(),
    }
}
