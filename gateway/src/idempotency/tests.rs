//! The loop of a keyed call and its readers, over a scripted call and a clock that jumps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use tokenbus_bus::task::spawn;
use tokenbus_protocol::{Delta, EngineError, ErrorCode, Finish};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::*;
use crate::call::{CallError, Output, Stage};
use crate::core::CallStream;

type Happened = Result<Output, CallError>;

/// A call whose test says what happens.
struct Scripted {
    happens: mpsc::Receiver<Happened>,
    _guard: DropGuard,
}

impl CallStream for Scripted {
    async fn next(&mut self) -> Option<Happened> {
        self.happens.recv().await
    }

    fn try_next(&mut self) -> Option<Happened> {
        self.happens.try_recv().ok()
    }
}

/// The test's side of it.
struct Call {
    say: mpsc::Sender<Happened>,
    dropped: CancellationToken,
}

impl Call {
    fn new() -> (Self, Scripted) {
        let (say, happens) = mpsc::channel(64);
        let dropped = CancellationToken::new();
        let _guard = dropped.clone().drop_guard();
        (Self { say, dropped }, Scripted { happens, _guard })
    }

    async fn text(&self, text: &str) {
        self.say.send(Ok(delta(text))).await.unwrap();
    }

    async fn finish(&self) {
        self.say.send(Ok(Output::Finish(Finish::default()))).await.unwrap();
        self.dropped.cancelled().await;
    }

    async fn fail(&self, error: CallError) {
        self.say.send(Err(error)).await.unwrap();
        self.dropped.cancelled().await;
    }
}

fn delta(text: &str) -> Output {
    Output::Delta(Delta {
        text: text.to_owned().into(),
        ..Delta::default()
    })
}

fn full() -> CallError {
    CallError::Full {
        model: "m".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

struct Bench {
    idempotency: Idempotency,
    closing: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        Self::with(IdempotencyOptions::default())
    }

    fn with(options: IdempotencyOptions) -> Self {
        let closing = CancellationToken::new();
        Self {
            idempotency: Idempotency::new(options, closing.clone()),
            closing,
        }
    }

    fn claim(&self, body: &str) -> Claim {
        self.claim_for(body, Duration::from_secs(600))
    }

    fn claim_for(&self, body: &str, patience: Duration) -> Claim {
        self.claim_at("/x", body, patience)
    }

    fn claim_at(&self, endpoint: &'static str, body: &str, patience: Duration) -> Claim {
        let now = Instant::now();
        let key = Key {
            tenant: None,
            key: "k".to_owned(),
        };
        self.idempotency.claim(
            Keyed {
                key,
                endpoint,
                body: body.as_bytes(),
                identity: &Identity::new(uuid::Uuid::now_v7(), 0, "m"),
                deadline: now + patience,
                choices: 128,
                behind: crate::limits::STREAM_BUFFER,
            },
            now,
        )
    }

    fn first(&self) -> (Call, Reader) {
        let Claim::First(run) = self.claim("body") else {
            panic!("not the first");
        };
        let (call, stream) = Call::new();
        (call, run.start(stream))
    }

    fn repeat(&self) -> Reader {
        match self.claim("body") {
            Claim::Repeat(reader) => reader,
            other => panic!("no repeat: {other:?}"),
        }
    }
}

/// All that a reader reads: its text and how it ended.
async fn read(mut reader: Reader) -> (String, Option<CallError>) {
    let mut all = String::new();
    loop {
        match reader.next().await {
            Some(Ok(output)) => match &*output {
                Output::Delta(delta) => all += &delta.text,
                Output::Finish(_) => all += "!",
                Output::Accepted { .. } | Output::Anew => {}
                Output::Written(written) => panic!("a recording has no {written:?}"),
            },
            Some(Err(error)) => {
                assert!(reader.next().await.is_none() && reader.try_next().is_none());
                return (all, Some(error));
            }
            None => {
                assert!(reader.next().await.is_none() && reader.try_next().is_none());
                return (all, None);
            }
        }
    }
}

fn whole(text: &str) -> (String, Option<CallError>) {
    (text.to_owned(), None)
}

#[tokio::test(start_paused = true)]
async fn repeats_read_the_same_call_before_during_and_after_it() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    let early = spawn("early", read(bench.repeat()));
    let first = spawn("first", read(first));
    call.text("a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let middle = spawn("middle", read(bench.repeat()));
    call.text("b").await;
    call.finish().await;
    for reader in [first, early, middle] {
        assert_eq!(reader.await.unwrap(), whole("ab!"));
    }
    assert_eq!(read(bench.repeat()).await, whole("ab!"));
    // From the end of the answer on, the window runs.
    tokio::time::sleep(limits::WINDOW - Duration::from_secs(1)).await;
    assert_eq!(read(bench.repeat()).await, whole("ab!"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(bench.claim("body"), Claim::First(_)));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_has_the_name_of_the_first() {
    let bench = Bench::new();
    let (_call, first) = bench.first();
    assert_eq!(first.identity(), bench.repeat().identity());
}

#[tokio::test(start_paused = true)]
async fn another_body_or_endpoint_is_refused_while_the_key_is_known() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    assert!(matches!(bench.claim("other"), Claim::Reused));
    let elsewhere = bench.claim_at("/y", "body", Duration::from_secs(1));
    assert!(matches!(elsewhere, Claim::Reused));
    call.text("a").await;
    call.finish().await;
    assert!(matches!(bench.claim("other"), Claim::Reused));
    assert!(matches!(bench.claim("body"), Claim::Repeat(_)));
    tokio::time::sleep(limits::WINDOW * 2).await;
    assert!(matches!(bench.claim("other"), Claim::First(_)));
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_all_who_wait_and_then_forgotten() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    let second = bench.repeat();
    call.text("a").await;
    call.fail(full()).await;
    assert_eq!(read(first).await, ("a".to_owned(), Some(full())));
    assert_eq!(read(second).await, ("a".to_owned(), Some(full())));
    // A key whose request failed may even be used for another body.
    let Claim::First(run) = bench.claim("other") else {
        panic!("still known");
    };
    drop(run);
    let (call, again) = bench.first();
    call.text("b").await;
    call.finish().await;
    assert_eq!(read(again).await, whole("b!"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_engine_is_kept() {
    let bench = Bench::new();
    let refused = CallError::Engine(EngineError {
        code: ErrorCode::ContextLengthExceeded,
        message: "too long".to_owned(),
        param: None,
        engine_code: None,
        retryable: false,
        retry_after_ms: None,
    });
    let (call, first) = bench.first();
    call.fail(refused.clone()).await;
    drop(first);
    assert_eq!(read(bench.repeat()).await, (String::new(), Some(refused)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_may_come_back_within_the_linger() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    call.text("a").await;
    drop(first);
    tokio::time::sleep(limits::LINGER - Duration::from_millis(10)).await;
    assert!(!call.dropped.is_cancelled());
    let again = spawn("again", read(bench.repeat()));
    // It waits for as long as it likes.
    tokio::time::sleep(limits::LINGER * 3).await;
    call.text("b").await;
    call.finish().await;
    assert_eq!(again.await.unwrap(), whole("ab!"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_come_back_costs_no_more_than_the_linger() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    let left = Instant::now();
    drop(first);
    call.dropped.cancelled().await;
    let took = left.elapsed();
    assert!(
        took >= limits::LINGER && took < limits::LINGER + Duration::from_millis(10),
        "{took:?}"
    );
    let (call, again) = bench.first();
    call.text("b").await;
    call.finish().await;
    assert_eq!(read(again).await, whole("b!"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_while_nobody_waits_is_kept() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    drop(first);
    call.text("a").await;
    call.finish().await;
    assert_eq!(read(bench.repeat()).await, whole("a!"));
}

#[tokio::test(start_paused = true)]
async fn a_closing_gateway_waits_for_nobody() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    drop(first);
    let closed = Instant::now() + Duration::from_secs(1);
    tokio::time::sleep_until(closed).await;
    bench.closing.cancel();
    call.dropped.cancelled().await;
    assert_eq!(closed.elapsed(), Duration::ZERO);
    let (call, first) = bench.first();
    drop(first);
    call.dropped.cancelled().await;
    assert_eq!(closed.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_its_bound_reaches_its_reader_and_is_not_kept() {
    let bench = Bench::with(IdempotencyOptions {
        answer: 2000,
        ..IdempotencyOptions::default()
    });
    let (call, first) = bench.first();
    let first = spawn("first", read(first));
    let text = "x".repeat(100);
    for _ in 0..100 {
        call.text(&text).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(bench.claim("body"), Claim::First(_)), "it runs anew");
    call.finish().await;
    assert_eq!(first.await.unwrap(), whole(&(text.repeat(100) + "!")));
    assert!(matches!(bench.claim("body"), Claim::First(_)));
}

#[tokio::test(start_paused = true)]
async fn nobody_lingers_for_an_answer_that_is_not_kept() {
    let bench = Bench::with(IdempotencyOptions {
        answer: 10,
        ..IdempotencyOptions::default()
    });
    let (call, first) = bench.first();
    drop(first);
    let start = Instant::now();
    call.text("much more than ten bytes").await;
    call.dropped.cancelled().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_waits_no_longer_than_its_own_time() {
    let bench = Bench::new();
    let (call, _first) = bench.first();
    let Claim::Repeat(mut hasty) = bench.claim_for("body", Duration::from_secs(2)) else {
        panic!("no repeat");
    };
    call.text("a").await;
    assert!(matches!(hasty.next().await, Some(Ok(_))));
    let late = hasty.next().await.unwrap().unwrap_err();
    assert_eq!(
        late,
        CallError::Deadline {
            stage: Stage::Generation
        }
    );
    assert!(hasty.next().await.is_none());
    assert!(!call.dropped.is_cancelled(), "the call goes on for the other");
}

#[tokio::test(start_paused = true)]
async fn a_core_that_falls_silent_or_panics_leaves_nobody_waiting() {
    let bench = Bench::new();
    let (call, first) = bench.first();
    drop(call.say);
    assert_eq!(read(first).await, whole(""));

    struct Panics;
    impl CallStream for Panics {
        async fn next(&mut self) -> Option<Happened> {
            panic!("a bug")
        }
        fn try_next(&mut self) -> Option<Happened> {
            None
        }
    }
    let Claim::First(run) = bench.claim("body") else {
        panic!("still known");
    };
    let (_, error) = read(run.start(Panics)).await;
    assert!(matches!(error, Some(CallError::Internal(_))), "{error:?}");
    assert!(matches!(bench.claim("body"), Claim::First(_)));
}

#[tokio::test(start_paused = true)]
async fn with_no_room_a_request_is_served_as_without_a_key() {
    let bench = Bench::with(IdempotencyOptions {
        bytes: 0,
        ..IdempotencyOptions::default()
    });
    assert!(matches!(bench.claim("body"), Claim::Crowded));
}

#[tokio::test(start_paused = true)]
async fn answers_of_many_sizes_never_exceed_the_memory() {
    let bench = Bench::with(IdempotencyOptions {
        bytes: 20_000,
        ..IdempotencyOptions::default()
    });
    for n in 0..50_usize {
        let (call, stream) = Call::new();
        let Claim::First(run) = bench.idempotency.claim(
            Keyed {
                key: Key {
                    tenant: None,
                    key: n.to_string(),
                },
                endpoint: "/x",
                body: b"",
                identity: &Identity::new(uuid::Uuid::now_v7(), 0, "m"),
                deadline: Instant::now() + Duration::from_secs(9),
                choices: 128,
                behind: crate::limits::STREAM_BUFFER,
            },
            Instant::now(),
        ) else {
            panic!("known");
        };
        let reader = spawn("reader", read(run.start(stream)));
        for _ in 0..n {
            call.text(&"x".repeat(n)).await;
        }
        call.finish().await;
        assert_eq!(reader.await.unwrap().0.len(), n * n + 1);
        assert!(bench.idempotency.store().bytes() <= 20_000);
    }
    assert!(!bench.idempotency.store().is_empty());
}
