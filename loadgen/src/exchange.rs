//! One request and its answer: sent, read, timed and checked.

use std::time::{Duration, Instant};

use tokenbus_http_parts::EventParser;

use super::check::{Rules, StreamCheck, check_unary, excerpt};
use super::conn::{Broken, Conn, Connector};
use super::deadline::within;
use super::failure::{Failure, Kind};
use super::http1::Head;
use super::limits::{GAPS_KEPT, IDLE, MAX_BODY_BYTES, MAX_EVENT_BYTES};
use super::openai::error_parts;
use super::target::Request;

/// The parts that all requests of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The request: head and JSON.
    pub(crate) request: Request,
    /// The rules for the answers.
    pub(crate) rules: Rules,
    /// Whether they are streamed.
    pub(crate) stream: bool,
    /// The time limit of one request.
    pub(crate) timeout: Duration,
    /// Gaps at the beginning of an answer that do not count.
    pub(crate) settle: u64,
}

/// The outcome of a request. The gaps between arrivals stay in the session.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The failure, if it failed.
    pub(crate) failure: Option<Failure>,
    /// Tokens received, also before a failure.
    pub(crate) tokens: u64,
    /// Arrivals of output.
    pub(crate) arrivals: u64,
    /// Time from the start to the first output.
    pub(crate) ttft: Option<Duration>,
    /// Time from the first output to the last.
    pub(crate) decode: Option<Duration>,
    /// Time from the start to the end.
    pub(crate) total: Duration,
    /// Time from the moment when it was due to its start.
    pub(crate) start_delay: Duration,
}

/// Progress of a request.
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

/// A connection slot of the load, with the memory that its requests use one after the other.
#[derive(Debug)]
pub(crate) struct Session {
    conn: Option<Conn>,
    parser: EventParser,
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
            parser: EventParser::new(MAX_EVENT_BYTES),
            check: StreamCheck::new(rules),
            gaps: Vec::new(),
            progress: Progress::START,
        }
    }

    /// The gaps between the arrivals of the last answer. Beyond a limit they go to `fold` while the answer streams.
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
        let failure = match within(plan.timeout, exchange).await {
            Some(Ok(failure)) => failure,
            Some(Err(failure)) => Some(failure),
            None => {
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

    /// The failure of an answer that was read to its end; an error if it could not be read. The connection is kept only
    /// if the next request can use it.
    async fn exchange(
        &mut self,
        connector: &Connector,
        plan: &Plan,
        fold: &impl Fn(&[Duration]),
    ) -> Result<Option<Failure>, Failure> {
        let (mut conn, head) = self.send(connector, plan).await?;
        self.progress.stage = if plan.stream { Stage::FirstToken } else { Stage::Body };
        let failure = if head.status != 200 {
            let body = read_whole(&mut conn).await?;
            Some(status_failure(head.status, &body))
        } else if let Some(failure) = wrong_content_type(&head, plan) {
            read_whole(&mut conn).await?;
            Some(failure)
        } else if plan.stream {
            self.read_stream(&mut conn, plan.settle, fold).await?;
            self.check.end(self.parser.is_inside_event())
        } else {
            let body = read_whole(&mut conn).await?;
            let (failure, tokens) = check_unary(plan.rules, &body);
            self.progress.tokens = tokens;
            failure
        };
        conn.unused_since = Instant::now();
        self.conn = Some(conn);
        Ok(failure)
    }

    async fn send(&mut self, connector: &Connector, plan: &Plan) -> Result<(Conn, Head), Failure> {
        if let Some(mut conn) = self.conn.take()
            && conn.unused_since.elapsed() < IDLE
            && conn.is_ready().await
        {
            self.progress.stage = Stage::Head;
            match conn.ask(&plan.request).await {
                Ok(head) => return Ok((conn, head)),
                // The server closed an idle connection; that is not a failure.
                Err(Broken::Unsent(_)) => {}
                Err(broken) => return Err(broken.into_failure(false)),
            }
        }
        self.progress.stage = Stage::Connect;
        let mut conn = connector.connect().await?;
        self.progress.stage = Stage::Head;
        match conn.ask(&plan.request).await {
            Ok(head) => Ok((conn, head)),
            Err(broken) => Err(broken.into_failure(false)),
        }
    }

    /// Reads a stream to its end; an error if the transport fails before that.
    async fn read_stream(&mut self, conn: &mut Conn, settle: u64, fold: &impl Fn(&[Duration])) -> Result<(), Failure> {
        let mut now = Instant::now();
        loop {
            let (mut waited, mut output) = (false, false);
            let (parser, check) = (&mut self.parser, &mut self.check);
            let take = |data: &[u8]| {
                let parsed = parser.push(data, |event| output |= check.event(event));
                parsed.map_err(|error| Failure::of(Kind::Malformed, error.to_string()))
            };
            match conn.body(&mut waited, take).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(broken) => {
                    let failure = broken.into_failure(true);
                    self.check.fail(failure.clone());
                    return Err(self.check.end(false).unwrap_or(failure));
                }
            }
            // Bytes that needed no wait arrived together, whatever their HTTP chunks.
            if waited {
                now = Instant::now();
            }
            if output {
                self.arrival(now, settle, fold);
            }
        }
    }

    fn arrival(&mut self, now: Instant, settle: u64, fold: &impl Fn(&[Duration])) {
        let progress = &mut self.progress;
        progress.stage = Stage::Body;
        match progress.last.replace(now) {
            None => progress.first = Some(now),
            Some(last) if last == now => return,
            Some(_) if progress.arrivals <= settle => {}
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

async fn read_whole(conn: &mut Conn) -> Result<Vec<u8>, Failure> {
    let mut whole = Vec::new();
    let mut waited = false;
    loop {
        let take = |data: &[u8]| {
            if whole.len() + data.len() > MAX_BODY_BYTES {
                let example = format!("an answer of more than {MAX_BODY_BYTES} bytes");
                return Err(Failure::of(Kind::Malformed, example));
            }
            whole.extend_from_slice(data);
            Ok(())
        };
        match conn.body(&mut waited, take).await {
            Ok(true) => {}
            Ok(false) => return Ok(whole),
            Err(broken) => return Err(broken.into_failure(true)),
        }
    }
}

fn status_failure(status: u16, body: &[u8]) -> Failure {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        error: &'a serde_json::value::RawValue,
    }
    match serde_json::from_slice::<Envelope<'_>>(body) {
        Ok(envelope) => {
            let (code, message) = error_parts(envelope.error);
            let space = if code.is_empty() { "" } else { " " };
            Failure::new(Kind::Status, format!("{status}{space}{code}"), message)
        }
        Err(_) => Failure::new(Kind::Status, status.to_string(), excerpt(body)),
    }
}

fn wrong_content_type(head: &Head, plan: &Plan) -> Option<Failure> {
    if plan.rules.level == super::check::Level::Transport {
        return None;
    }
    let wanted = if plan.stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let got = &head.content_type;
    (got != wanted).then(|| Failure::of(Kind::ContentType, format!("{got:?} instead of {wanted}")))
}
