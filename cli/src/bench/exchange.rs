//! One request and its answer: sent, read, timed and checked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;

use super::check::{Rules, StreamCheck, check_whole, excerpt};
use super::chunk::error_parts;
use super::conn::{Conn, Connector, transport_failure};
use super::failure::{Failure, Kind};
use super::limits::{GAPS_KEPT, IDLE, MAX_BODY_BYTES};
use super::sse::Parser;

/// What every request of a run has in common.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The JSON that is sent.
    pub(crate) body: Bytes,
    /// What the answers must be.
    pub(crate) rules: Rules,
    /// Whether they are streamed.
    pub(crate) stream: bool,
    /// The longest that one may take.
    pub(crate) timeout: Duration,
}

/// What became of a request. The gaps between arrivals are left in the session.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
    /// Tokens received, also before a failure.
    pub(crate) tokens: u64,
    /// Arrivals of output.
    pub(crate) arrivals: u64,
    /// From the start to the first output.
    pub(crate) ttft: Option<Duration>,
    /// From the first output to the last.
    pub(crate) decode: Option<Duration>,
    /// From the start to the end.
    pub(crate) total: Duration,
    /// From the moment at which it was due to the moment at which it was begun.
    pub(crate) start_delay: Duration,
}

/// How far a request got.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Connect,
    Head,
    FirstToken,
    Body,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Head => "head",
            Self::FirstToken => "first_token",
            Self::Body => "body",
        }
    }
}

/// A slot of the load: its connection, and the memory that its requests use one after the other.
#[derive(Debug)]
pub(crate) struct Session {
    conn: Option<Conn>,
    parser: Parser,
    check: StreamCheck,
    gaps: Vec<Duration>,
    progress: Progress,
}

#[derive(Debug)]
struct Progress {
    stage: Stage,
    first: Option<Instant>,
    last: Option<Instant>,
    arrivals: u64,
    tokens: u64,
}

impl Progress {
    const START: Self = Self {
        stage: Stage::Connect,
        first: None,
        last: None,
        arrivals: 0,
        tokens: 0,
    };
}

impl Session {
    /// A slot without a connection.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            conn: None,
            parser: Parser::default(),
            check: StreamCheck::new(rules),
            gaps: Vec::new(),
            progress: Progress::START,
        }
    }

    /// The gaps between the arrivals of the last answer; when they grow over a limit, they are handed
    /// to `fold` while it still streams.
    pub(crate) fn gaps(&self) -> &[Duration] {
        &self.gaps
    }

    /// Makes a request. Its time counts from `due`, or else from now.
    pub(crate) async fn request(
        &mut self,
        connector: &Connector,
        plan: &Plan,
        due: Option<Instant>,
        fold: impl Fn(&[Duration]),
    ) -> Outcome {
        self.parser.reset();
        self.check.reset();
        self.gaps.clear();
        self.progress = Progress::START;
        let begun = Instant::now();
        let start = due.unwrap_or(begun);
        let exchange = self.exchange(connector, plan, &fold);
        let failure = match tokio::time::timeout(plan.timeout, exchange).await {
            Ok(Ok(failure)) => failure,
            Ok(Err(failure)) => Some(failure),
            Err(_) => {
                let stage = self.progress.stage.name();
                self.conn = None;
                let example = format!("not finished after {:?}, waiting for the {stage}", plan.timeout);
                Some(Failure::new(Kind::Timeout, stage, example))
            }
        };
        if plan.stream {
            self.progress.tokens = self.check.tokens();
        }
        let Progress {
            first,
            last,
            arrivals,
            tokens,
            ..
        } = self.progress;
        Outcome {
            failure,
            tokens,
            arrivals,
            ttft: first.map(|at| at.saturating_duration_since(start)),
            decode: first
                .zip(last)
                .map(|(first, last)| last.saturating_duration_since(first)),
            total: start.elapsed(),
            start_delay: begun.saturating_duration_since(start),
        }
    }

    /// The failure of an answer that was read to its end, or (as an error) of one that could not be.
    /// The connection is kept only where the next request can use it.
    async fn exchange(
        &mut self,
        connector: &Connector,
        plan: &Plan,
        fold: &impl Fn(&[Duration]),
    ) -> Result<Option<Failure>, Failure> {
        let (mut conn, response) = self.send(connector, plan).await?;
        self.progress.stage = if plan.stream { Stage::FirstToken } else { Stage::Body };
        let (head, mut body) = response.into_parts();
        let failure = if head.status != StatusCode::OK {
            let body = read_whole(&mut conn, &mut body).await?;
            Some(status_failure(head.status, &body))
        } else if let Some(failure) = wrong_content_type(&head.headers, plan) {
            read_whole(&mut conn, &mut body).await?;
            Some(failure)
        } else if plan.stream {
            self.read_stream(&mut conn, &mut body, fold).await?;
            self.check.end(self.parser.is_inside_event())
        } else {
            let body = read_whole(&mut conn, &mut body).await?;
            let (failure, tokens) = check_whole(plan.rules, &body);
            self.progress.tokens = tokens;
            failure
        };
        conn.unused_since = Instant::now();
        self.conn = Some(conn);
        Ok(failure)
    }

    async fn send(&mut self, connector: &Connector, plan: &Plan) -> Result<(Conn, http::Response<Incoming>), Failure> {
        if let Some(mut conn) = self.conn.take()
            && conn.unused_since.elapsed() < IDLE
            && conn.is_ready().await
        {
            self.progress.stage = Stage::Head;
            match conn.send(connector.target().request(plan.body.clone())).await {
                Ok(response) => return Ok((conn, response)),
                // Closed by the server just then and nothing of the request was sent: not its failure.
                Err(error) if error.is_canceled() => {}
                Err(error) => return Err(transport_failure(&error, false)),
            }
        }
        self.progress.stage = Stage::Connect;
        let mut conn = connector.connect().await?;
        self.progress.stage = Stage::Head;
        match conn.send(connector.target().request(plan.body.clone())).await {
            Ok(response) => Ok((conn, response)),
            Err(error) => Err(transport_failure(&error, false)),
        }
    }

    /// Reads a stream to its end; an error where the transport failed before that.
    async fn read_stream(
        &mut self,
        conn: &mut Conn,
        body: &mut Incoming,
        fold: &impl Fn(&[Duration]),
    ) -> Result<(), Failure> {
        let mut now = Instant::now();
        loop {
            let mut waited = false;
            let frame = match conn.frame(body, &mut waited).await {
                None => return Ok(()),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.check.fail(transport_failure(&error, true));
                    return Err(self.check.end(false).unwrap_or_else(|| transport_failure(&error, true)));
                }
            };
            // What was there without waiting arrived together, whatever the HTTP chunks.
            if waited {
                now = Instant::now();
            }
            let Some(data) = frame.data_ref() else { continue };
            let (parser, check) = (&mut self.parser, &mut self.check);
            let mut output = false;
            if let Err(error) = parser.push(data, |event| output |= check.event(event)) {
                return Err(Failure::of(Kind::Malformed, error.to_string()));
            }
            if output {
                self.arrival(now, fold);
            }
        }
    }

    fn arrival(&mut self, now: Instant, fold: &impl Fn(&[Duration])) {
        let progress = &mut self.progress;
        progress.stage = Stage::Body;
        match progress.last.replace(now) {
            None => progress.first = Some(now),
            Some(last) if last == now => return,
            Some(last) => {
                if self.gaps.len() >= GAPS_KEPT {
                    fold(&self.gaps);
                    self.gaps.clear();
                }
                self.gaps.push(now.saturating_duration_since(last));
            }
        }
        progress.arrivals += 1;
    }
}

async fn read_whole(conn: &mut Conn, body: &mut Incoming) -> Result<Vec<u8>, Failure> {
    let mut whole = Vec::new();
    let mut waited = false;
    while let Some(frame) = conn.frame(body, &mut waited).await {
        let frame = frame.map_err(|error| transport_failure(&error, true))?;
        let data = frame.data_ref().map_or(b"".as_slice(), |d| d.as_ref());
        if whole.len() + data.len() > MAX_BODY_BYTES {
            let example = format!("an answer of more than {MAX_BODY_BYTES} bytes");
            return Err(Failure::of(Kind::Malformed, example));
        }
        whole.extend_from_slice(data);
    }
    Ok(whole)
}

fn status_failure(status: StatusCode, body: &[u8]) -> Failure {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        error: &'a serde_json::value::RawValue,
    }
    let number = status.as_u16();
    match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(envelope) => {
            let (code, message) = error_parts(envelope.error);
            let space = if code.is_empty() { "" } else { " " };
            Failure::new(Kind::Status, format!("{number}{space}{code}"), message)
        }
        Err(_) => Failure::new(Kind::Status, number.to_string(), excerpt(body)),
    }
}

fn wrong_content_type(headers: &HeaderMap, plan: &Plan) -> Option<Failure> {
    if plan.rules.level == super::check::Level::Transport {
        return None;
    }
    let wanted = if plan.stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let got = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let essence = got.split(';').next().unwrap_or_default().trim();
    (!essence.eq_ignore_ascii_case(wanted))
        .then(|| Failure::of(Kind::ContentType, format!("{got:?} instead of {wanted}")))
}
