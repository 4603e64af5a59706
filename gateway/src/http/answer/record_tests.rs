//! What a request is charged is what was delivered, whatever happened to it and in which order.

use std::sync::Arc;

use bytes::BytesMut;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokenbus_protocol::{EngineError, ErrorCode, Features};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::auth::Auth;
use crate::auth::key_table::KeyTable;
use crate::http::held::Bodies;
use crate::http::options::HttpOptions;
use crate::responses_store::{ResponsesStore, SealKeys};

/// Tokens a minute of the key: more than any test uses.
const TOKENS: u64 = 1_000_000;
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"How much is this?"}]}"#;

/// Something that happens to a request.
#[derive(Debug, Clone)]
enum Happening {
    /// A worker took it, also after another one was lost.
    Placed,
    /// Output of a choice: whether it has text, and how many tokens the engine counts in it.
    Delta { choice: u32, text: bool, tokens: u32 },
    /// Text that the fast path delivered: tokens that leave with the next flush, and tokens sent before.
    Written { tokens: u64, sent: u64 },
    /// What was booked has left.
    Flush,
    /// The worker was lost, and the answer begins anew.
    Anew,
    /// The engine's counts, as far as it counts.
    Finish {
        prompt: Option<u64>,
        completion: Option<u64>,
    },
}

/// How a request ends.
#[derive(Debug, Clone)]
enum End {
    Succeeded,
    Failed(CallError),
    /// Its client left.
    Dropped,
}

fn happening() -> impl Strategy<Value = Happening> {
    let count = || proptest::option::of(0..200_u64);
    prop_oneof![
        2 => Just(Happening::Placed),
        6 => (0..2_u32, any::<bool>(), 0..5_u32).prop_map(|(choice, text, tokens)| Happening::Delta { choice, text, tokens }),
        4 => (0..9_u64, 0..9_u64).prop_map(|(tokens, sent)| Happening::Written { tokens, sent }),
        3 => Just(Happening::Flush),
        1 => Just(Happening::Anew),
        1 => (count(), count()).prop_map(|(prompt, completion)| Happening::Finish { prompt, completion }),
    ]
}

fn end() -> impl Strategy<Value = End> {
    let engine = EngineError {
        code: ErrorCode::Internal,
        message: "it broke".to_owned(),
        param: None,
        engine_code: None,
        retryable: false,
        retry_after_ms: None,
    };
    let (model, known) = ("m".to_owned(), Vec::new());
    prop_oneof![
        Just(End::Succeeded),
        Just(End::Dropped),
        Just(End::Failed(CallError::Engine(engine))),
        Just(End::Failed(CallError::UnknownModel { model, known })),
        Just(End::Failed(CallError::Deadly)),
        Just(End::Failed(CallError::SlowClient)),
    ]
}

/// What was delivered, in the words of the rule and nothing else.
#[derive(Debug, Default)]
struct Delivered {
    /// Since the answer last began.
    tokens: u64,
    /// The engine's counts.
    prompt: Option<u64>,
    completion: Option<u64>,
    placed: bool,
}

impl Delivered {
    fn take(&mut self, happening: &Happening) {
        match happening {
            Happening::Placed => self.placed = true,
            Happening::Delta { text, tokens, .. } => self.tokens += u64::from(*tokens).max(u64::from(*text)),
            Happening::Written { tokens, sent } => self.tokens += tokens + sent,
            Happening::Flush => {}
            Happening::Anew => (self.tokens, self.completion) = (0, None),
            Happening::Finish { prompt, completion } => {
                // An engine that does not count what it generated leaves our own count in force.
                self.completion = completion.or(self.completion);
                self.prompt = *prompt;
            }
        }
    }

    /// Tokens of the prompt and of the answer to charge. Who got nothing because the request failed, or was taken by
    /// nobody, pays nothing.
    fn charge(&self, failed: bool) -> (u64, u64) {
        let completion = self.completion.unwrap_or(self.tokens);
        if self.prompt.is_none() && completion == 0 && (failed || !self.placed) {
            return (0, 0);
        }
        (
            self.prompt.unwrap_or_else(|| estimated_tokens(BODY.as_bytes())),
            completion,
        )
    }
}

/// A gateway's edge with one key, which may run one request at once.
struct Bench {
    edge: Edge<()>,
    caller: Caller,
    records: Receiver<UsageRecord>,
    registry: Registry,
}

impl Bench {
    fn new() -> Self {
        let (gateway, metrics) = (Name::new("g").unwrap(), Metrics::default());
        let auth = Auth::on(gateway.clone(), metrics.clone());
        let hash = crate::auth::secret::KeyHash::of(b"tb-alice");
        let limits = format!("tokens-per-minute = {TOKENS}\nstreams = 1\n");
        auth.set(KeyTable::parse(&format!("[keys.alice]\nhash = \"{hash}\"\n{limits}")).unwrap());
        let caller = auth.authenticate([&b"tb-alice"[..]]).unwrap().unwrap();
        let (usage, records) = Usage::new(gateway, metrics.clone());
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let options = HttpOptions::default();
        let edge = Edge {
            core: (),
            bodies: Bodies::new(options.body_memory, metrics.clone()),
            options: Arc::new(options),
            registry: Arc::default(),
            models: ModelConfig::none(),
            stories: KeptStories::default(),
            responses: ResponsesStore::absent(),
            seals: SealKeys::absent(),
            tracer: Tracer::default(),
            draining: tokio_util::sync::CancellationToken::new(),
            metrics,
            auth,
            usage,
        };
        Self {
            edge,
            caller,
            records,
            registry,
        }
    }

    fn begin(&self, kind: RequestKind) -> Record {
        let now = Instant::now();
        let request = (RequestId("r".to_owned()), "/v1/chat/completions");
        let mut record = Record::begin(&self.edge, request, Some(self.caller.clone()), (Trace::default(), now));
        let mut grant = self.caller.admit(now).expect("its only place is free");
        assert!(self.caller.admit(now).is_err(), "while it runs, nothing else does");
        let call = Call {
            id: Uuid::now_v7(),
            kind,
            model: "m".to_owned(),
            needs: Features::NONE,
            body: Bytes::from_static(BODY.as_bytes()),
            prompt: tokenbus_placement::Prompt::default(),
            session: None,
            deadline: now,
            silence: std::time::Duration::ZERO,
            priority: 0,
            tenant: None,
            address: None,
            client_id: String::new(),
            trace: Trace::default(),
            labels: tokenbus_protocol::Labels::default(),
            not_resumable: None,
            in_one_piece: false,
            way: Way::default(),
        };
        let price = self.edge.models.price("m", None, &tokenbus_protocol::Labels::default());
        let estimate = || crate::auth::estimate::request(kind, &call.body, None);
        grant.charge(estimate, price, now).unwrap();
        record.called(&call, Some(grant), None);
        record
    }

    /// What is left of the key's tokens.
    fn left(&self) -> u64 {
        self.caller.remaining(Instant::now()).tokens.unwrap().remaining
    }

    /// The value of a series, 0 if there is none.
    fn metric(&self, series: &str) -> u64 {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

fn happen(record: &mut Record, happening: &Happening) {
    match happening {
        Happening::Placed => record.placed(&Name::new("w").unwrap(), None, &WorkerKind::default()),
        Happening::Delta { choice, text, tokens } => record.saw(&Delta {
            choice: *choice,
            text: if *text { "a" } else { "" }.into(),
            tokens: *tokens,
            ..Delta::default()
        }),
        Happening::Written { tokens, sent } => record.saw_text(&Written {
            events: BytesMut::new(),
            tokens: *tokens,
            sent: *sent,
            sent_at: Some(Instant::now()),
        }),
        Happening::Flush => record.flush(Instant::now()),
        Happening::Anew => record.anew(),
        Happening::Finish { prompt, completion } => record.finished(&Finish {
            prompt_tokens: *prompt,
            completion_tokens: *completion,
            ..Finish::default()
        }),
    }
}

/// Lets this happen to a request, and compares what was charged everywhere with what was delivered.
fn charged_is_delivered(happenings: &[Happening], end: &End, generated: bool) {
    let mut bench = Bench::new();
    let kind = if generated {
        RequestKind::Chat
    } else {
        RequestKind::Embeddings
    };
    let mut record = bench.begin(kind);
    let mut delivered = Delivered::default();
    for happening in happenings {
        let is_output = !matches!(
            happening,
            Happening::Placed | Happening::Anew | Happening::Finish { .. }
        );
        // Nothing comes before a worker has the request. What is no stream of tokens has only the engine's count.
        let comes = delivered.placed || matches!(happening, Happening::Placed);
        if comes && (generated || !is_output) {
            happen(&mut record, happening);
            delivered.take(happening);
        }
    }
    let outcome = match end {
        End::Succeeded => {
            record.succeeded();
            Outcome::Succeeded
        }
        End::Failed(error) => record.failed(&HttpError::Call(error.clone()), Some(200)).outcome,
        End::Dropped => Outcome::Cancelled,
    };
    drop(record);
    let (prompt, completion) = delivered.charge(matches!(outcome, Outcome::Failed | Outcome::Rejected));
    let told = bench.records.try_recv().expect("one record of usage");
    assert_eq!(
        (told.prompt_tokens, told.completion_tokens),
        (prompt, completion),
        "{told:?}"
    );
    assert!(bench.records.try_recv().is_err(), "and no second one");
    assert_eq!(bench.left(), TOKENS - prompt - completion, "the key's limit");
    let by_key = |what| bench.metric(&format!("key_{what}_total{{key=\"alice\"}}"));
    assert_eq!(
        (by_key("requests"), by_key("prompt_tokens"), by_key("completion_tokens")),
        (1, prompt, completion)
    );
    assert_eq!(
        bench.metric("completion_tokens_total{model=\"m\"}"),
        completion,
        "the model's count"
    );
    assert_eq!(bench.metric("requests_in_flight"), 0);
    drop(bench.caller.admit(Instant::now()).expect("its place is free again"));
}

/// In a time that stands still, so that no limit refills.
fn still(run: impl FnOnce()) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true);
    runtime.build().unwrap().block_on(async { run() });
}

proptest! {
    #[test]
    fn what_is_charged_was_delivered_whatever_happens(
        happenings in proptest::collection::vec(happening(), 0..24),
        end in end(),
        generated in proptest::bool::weighted(0.8),
    ) {
        still(|| charged_is_delivered(&happenings, &end, generated));
    }
}

#[test]
fn an_answer_that_begins_anew_after_its_end_is_charged_for_what_came_then() {
    let output = Happening::Delta {
        choice: 0,
        text: true,
        tokens: 3,
    };
    let finish = Happening::Finish {
        prompt: Some(5),
        completion: Some(9),
    };
    let happenings = [Happening::Placed, output.clone(), finish, Happening::Anew, output];
    still(|| charged_is_delivered(&happenings, &End::Dropped, true));
}
