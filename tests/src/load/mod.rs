//! A load of many concurrent streams, each checked token by token as it comes.
//!
//! A [`Load`] keeps a number of streams running: when one has ended, the next begins at the next gateway. Like any
//! HTTP client behind a load balancer, a client tries another gateway only when its own did not answer at all, and
//! it obeys Retry-After. The [`Report`] has the outcome of every stream.

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

/// Silence after which a stream counts as hanging. Far beyond the longest outage of a fault test (20 s).
pub const HANG: Duration = Duration::from_secs(60);

/// Words in the prompt of every stream; the simulated engine counts words.
pub const PROMPT_WORDS: u64 = 7;

/// One in this many requests asks for its answer in one piece.
const UNARY_EVERY: usize = 10;

/// Most tries of a stream that no gateway answers. [`RETRY_PAUSE`] spreads them over time.
const REFUSED_TRIES: usize = 40;

/// Pause before a client that every gateway refused tries them again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The requests, their gateways, and how many streams run at once.
#[derive(Debug, Clone)]
pub struct Load {
    gateways: Vec<SocketAddr>,
    model: String,
    streams: usize,
    tokens: u64,
    text: Arc<str>,
    greedy: bool,
}

/// A running load. Dropping it closes all of its connections.
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
    /// Streams with a first token so far, and requested answers in one piece.
    begun: watch::Sender<usize>,
}

impl Load {
    /// `streams` concurrent streams for `model`, at these gateways in turn, of up to 200 tokens each.
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

    /// Streams of between `tokens / 2` and `tokens` tokens, so that they begin and end at different times.
    #[must_use]
    pub fn tokens(mut self, tokens: u64) -> Self {
        self.tokens = tokens;
        self.text = sim_text(tokens).into();
        self
    }

    /// Uses temperature 0, at which the same request has the same answer.
    #[must_use]
    pub fn greedy(self) -> Self {
        Self { greedy: true, ..self }
    }

    /// Starts the load.
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
    /// Waits until as many further streams as run at once have had their first token. Then the load is up, with
    /// streams at every stage.
    ///
    /// # Panics
    /// When they do not within [`HANG`].
    pub async fn flowing(&self) {
        let mut begun = self.shared.begun.subscribe();
        let have = *begun.borrow();
        // The first round may have begun already. It is not awaited twice, because long streams never end.
        let goal = if have < self.streams {
            self.streams
        } else {
            have + self.streams
        };
        let what = format!("{goal} streams to begin");
        let seen = within_time(HANG, &what, begun.wait_for(|begun| *begun >= goal)).await;
        drop(seen.expect("the load is kept by this value"));
    }

    /// Starts no further streams and waits for the end of those that run.
    ///
    /// # Panics
    /// When a task of the load panicked. No stream can hang, because each has its own limit.
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

/// Runs one stream at the first gateway that answers.
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
