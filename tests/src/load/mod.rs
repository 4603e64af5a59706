//! A load of many concurrent streams, each checked token by token as it comes.
//!
//! A [`Load`] keeps a number of streams going: the moment one has ended the next begins, on the
//! same gateway in turn. A client goes to another gateway only when its own has answered nothing
//! at all, as any HTTP client behind a load balancer may, and obeys Retry-After. What came of every stream is in the
//! [`Report`].

mod check;
mod client;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use check::{Check, Expected, Failure};
pub use client::{exchange, unary};
pub use report::{Quantiles, Report, Sample};

use crate::ask::sim_text;
use crate::wait::within_time;

/// Longest silence on one stream before it counts as hanging. Far beyond the longest outage that
/// a fault test makes (20 s), and the same for every stream.
pub const HANG: Duration = Duration::from_secs(60);

/// Words of the prompt of every stream; the simulated engine counts words.
pub const PROMPT_WORDS: u64 = 7;

/// One request of so many asks for its answer in one piece, without a stream.
const UNARY_EVERY: usize = 10;

/// Tries of one stream that no gateway answered. They are spread over time by [`RETRY_PAUSE`].
const REFUSED_TRIES: usize = 40;

/// Pause before a client that every gateway refused goes round again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What is asked, of whom, and by how many at once.
#[derive(Debug, Clone)]
pub struct Load {
    gateways: Vec<SocketAddr>,
    model: String,
    streams: usize,
    tokens: u64,
    text: Arc<str>,
    greedy: bool,
}

/// A load that runs. Dropping it closes all of its connections.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<Vec<Sample>>,
    streams: usize,
}

#[derive(Debug)]
struct Shared {
    load: Load,
    stop: AtomicBool,
    next: AtomicUsize,
    /// Streams whose first token has come, since the start, and answers in one piece asked for.
    begun: watch::Sender<usize>,
}

impl Load {
    /// `streams` at once for `model` at these gateways, in turn, of up to 200 tokens each.
    pub fn new(gateways: &[SocketAddr], model: &str, streams: usize) -> Self {
        Self {
            gateways: gateways.to_vec(),
            model: model.to_owned(),
            streams,
            tokens: 200,
            text: sim_text(200).into(),
            greedy: false,
        }
    }

    /// Streams of half as many up to `tokens` tokens: they end and begin at all times.
    #[must_use]
    pub fn tokens(mut self, tokens: u64) -> Self {
        self.tokens = tokens;
        self.text = sim_text(tokens).into();
        self
    }

    /// At temperature 0, where the same request has the same answer.
    #[must_use]
    pub fn greedy(self) -> Self {
        Self { greedy: true, ..self }
    }

    /// Begins.
    pub fn start(self) -> Running {
        let streams = self.streams;
        let shared = Arc::new(Shared {
            load: self,
            stop: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            begun: watch::Sender::default(),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            tasks.spawn(keep_going(Arc::clone(&shared)));
        }
        Running { shared, tasks, streams }
    }

    fn expected(&self, number: usize) -> Expected {
        let half = self.tokens / 2;
        // A step that is coprime to most lengths spreads the ends evenly.
        let tokens = half + (number as u64 * 37) % (self.tokens - half) + 1;
        let mut expected = Expected::sim(&self.text, tokens, PROMPT_WORDS);
        expected.greedy = self.greedy;
        expected
    }
}

impl Running {
    /// Waits until as many further streams as run at once have had their first token: then the
    /// load is up, and streams are at every place between their begin and end.
    ///
    /// # Panics
    /// When they do not within [`HANG`].
    pub async fn flowing(&self) {
        let mut begun = self.shared.begun.subscribe();
        let have = *begun.borrow();
        // The first round may have begun already; it is not waited for twice, long streams never end.
        let goal = if have < self.streams {
            self.streams
        } else {
            have + self.streams
        };
        let what = format!("{goal} streams to begin");
        let seen = within_time(HANG, &what, begun.wait_for(|begun| *begun >= goal)).await;
        drop(seen.expect("the load is kept by this value"));
    }

    /// Begins no further stream, and waits until all that run have ended.
    ///
    /// # Panics
    /// When a task of the load panicked. No stream can hang: each has its own limit.
    pub async fn finish(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            samples.extend(ended.expect("a task of the load"));
        }
        Report::new(samples)
    }
}

async fn keep_going(shared: Arc<Shared>) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let sample = one(&shared, number).await;
        let pause = sample.retry_after();
        samples.push(sample);
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    samples
}

/// One stream, at the first gateway that answers anything.
async fn one(shared: &Shared, number: usize) -> Sample {
    let load = &shared.load;
    let expected = load.expected(number);
    let began = std::time::Instant::now();
    let mut tries = 0;
    loop {
        let gateway = load.gateways[(number + tries) % load.gateways.len()];
        let begun = || shared.begun.send_modify(|begun| *begun += 1);
        let mut sample = if number % UNARY_EVERY == UNARY_EVERY - 1 {
            begun();
            unary(gateway, &load.model, &expected, HANG).await
        } else {
            exchange(gateway, &load.model, &expected, HANG, begun).await
        };
        tries += 1;
        let refused = matches!(sample.result, Err(Failure::Refused(_)));
        if !refused || tries >= REFUSED_TRIES {
            sample.waited_since(began);
            sample.tries = tries;
            return sample;
        }
        if tries.is_multiple_of(load.gateways.len()) {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
