//! All engines of a simulated cluster, and what is true of them.

use crate::engine::{Engine, EngineSpec, Number, Step};
use crate::holders::Holders;
use crate::prompt::{BLOCK, Request, Segment};
use crate::reporter::{MakeReporter, Report, Reporter};
use crate::time::Nanos;

/// The engines.
#[derive(Debug)]
pub struct Fleet {
    engines: Vec<Engine>,
    alive: Vec<bool>,
    holders: Holders,
    reporters: Vec<Box<dyn Reporter>>,
}

impl Fleet {
    /// Idle engines, each with a reporter if the policy needs one.
    pub fn new(specs: &[EngineSpec], reporter: Option<MakeReporter>) -> Self {
        Self {
            engines: specs.iter().map(|spec| Engine::new(*spec)).collect(),
            alive: vec![true; specs.len()],
            holders: Holders::default(),
            reporters: reporter.map_or_else(Vec::new, |make| specs.iter().map(make).collect()),
        }
    }

    /// How many engines there are, dead ones among them.
    pub fn len(&self) -> usize {
        self.engines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.engines.is_empty()
    }

    /// One of them.
    pub fn engine(&self, worker: usize) -> &Engine {
        &self.engines[worker]
    }

    /// Whether it lives.
    pub fn lives(&self, worker: usize) -> bool {
        self.alive[worker]
    }

    /// The living ones.
    pub fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.engines.len()).filter(|worker| self.alive[*worker])
    }

    /// Tokens of `prompt` that each worker has cached now, written into `cached`.
    pub fn cached(&self, prompt: &[Segment], cached: &mut Vec<u32>) {
        cached.clear();
        cached.resize(self.engines.len(), 0);
        let mut before = vec![0];
        for segment in prompt {
            before.push(before[before.len() - 1] + segment.tokens);
        }
        self.holders.depths(prompt, |worker, depth| {
            let last = self.engines[worker].cache.resident(prompt[depth - 1].id);
            cached[worker] = (before[depth - 1] / BLOCK + last) * BLOCK;
        });
    }

    /// A request arrives at a worker.
    pub fn enqueue(&mut self, worker: usize, now: Nanos, number: Number, requests: &[Request]) {
        if let Some(reporter) = self.reporters.get_mut(worker) {
            reporter.accepted(&requests[number], now);
        }
        self.engines[worker].enqueue(now, number, requests);
        self.learn(worker);
    }

    /// The steps of a worker that are due.
    pub fn advance(&mut self, worker: usize, now: Nanos, requests: &[Request], steps: &mut Vec<Step>) {
        let before = steps.len();
        self.engines[worker].advance(now, requests, steps);
        self.learn(worker);
        let Some(reporter) = self.reporters.get_mut(worker) else {
            return;
        };
        for step in &steps[before..] {
            match *step {
                Step::FirstToken { number, cached, took } => {
                    reporter.first_token(&requests[number], cached, took, now);
                }
                Step::Ended(number) => reporter.ended(&requests[number], now),
            }
        }
    }

    /// Tokens of prompts that a worker has still to read, as its reporter counts them.
    pub fn pending(&self, worker: usize, now: Nanos) -> Option<f32> {
        self.reporters.get(worker).map(|reporter| reporter.pending(now))
    }

    /// The status of a worker.
    pub fn report(&mut self, worker: usize, now: Nanos, regular: bool) -> Report {
        let mut report = Report {
            active: u32::try_from(self.engines[worker].active()).unwrap_or(u32::MAX),
            free: 0,
            at: now,
            told: None,
        };
        if let Some(reporter) = self.reporters.get_mut(worker) {
            reporter.report(&mut report, regular);
        }
        report
    }

    /// A worker dies, with the requests that it held.
    pub fn kill(&mut self, worker: usize) -> Vec<Number> {
        self.alive[worker] = false;
        self.holders.forget(worker);
        self.engines[worker].kill()
    }

    fn learn(&mut self, worker: usize) {
        let changes = self.engines[worker].cache.take_changes();
        self.holders.apply(worker, &changes);
    }
}
