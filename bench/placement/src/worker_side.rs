//! What a worker of tokenbus keeps of its engine, and tells the gateways.

use std::collections::VecDeque;

use tokenbus_placement::{Held, News, PrefillRate};

use crate::cuts;
use crate::engine::EngineSpec;
use crate::prompt::Request;
use crate::reporter::{Report, Reporter, Told};
use crate::time::{Nanos, seconds};

/// Most cuts that the memory of a worker holds.
const MOST_CUTS: usize = 100_000;

/// Statuses that news reach back: a gateway that missed fewer needs not ask for everything.
const KEPT: usize = 4;

/// Everything is told in each of so many statuses, in place of the question that a gateway would ask.
const FULL_EVERY: u32 = 8;

/// Part of a measured time that a new one counts.
const NEW: f32 = 1.0 / 32.0;

/// The worker.
#[derive(Debug)]
pub struct WorkerSide {
    held: Held,
    rate: PrefillRate,
    /// Requests whose prompt is not read yet. The id of the answer stands for the request.
    reading: Vec<Reading>,
    running: Vec<Running>,
    service_ms: Option<f32>,
    token_ms: Option<f32>,
    told: VecDeque<u64>,
    statuses: u32,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    id: u64,
    accepted: Nanos,
    expected: u32,
    uncached: u32,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    id: u64,
    first: Nanos,
}

fn ms(nanos: Nanos) -> f64 {
    seconds(nanos) * 1e3
}

#[expect(clippy::cast_possible_truncation, reason = "a mean needs no more digits")]
fn average(mean: &mut Option<f32>, value: f64) {
    let mean = mean.get_or_insert(value as f32);
    *mean += (value as f32 - *mean) * NEW;
}

impl WorkerSide {
    /// Of an engine.
    pub fn boxed(engine: &EngineSpec) -> Box<dyn Reporter> {
        Box::new(Self {
            held: Held::new(u64::from(engine.cache_tokens), MOST_CUTS, 1),
            rate: PrefillRate::default(),
            reading: Vec::new(),
            running: Vec::new(),
            service_ms: None,
            token_ms: None,
            told: VecDeque::new(),
            statuses: 0,
        })
    }

    fn take(&mut self, id: u64) -> Option<Reading> {
        let place = self.reading.iter().position(|reading| reading.id == id)?;
        Some(self.reading.swap_remove(place))
    }
}

impl Reporter for WorkerSide {
    fn accepted(&mut self, request: &Request, now: Nanos) {
        let prompt = cuts::of(&request.prompt);
        let expected = self.held.holds(&prompt);
        self.held.read(&prompt);
        self.rate.began(ms(now));
        self.reading.push(Reading {
            id: request.answer.id,
            accepted: now,
            expected,
            uncached: prompt.tokens().saturating_sub(expected),
        });
    }

    fn first_token(&mut self, request: &Request, cached: u32, _took: Nanos, now: Nanos) {
        let Some(reading) = self.take(request.answer.id) else {
            return;
        };
        self.held.found(reading.expected, cached);
        let read = request.prompt_tokens().saturating_sub(cached);
        self.rate.ended(read, ms(now - reading.accepted), ms(now));
        self.running.push(Running {
            id: request.answer.id,
            first: now,
        });
    }

    fn ended(&mut self, request: &Request, now: Nanos) {
        let Some(place) = self.running.iter().position(|running| running.id == request.answer.id) else {
            return;
        };
        let Running { first, .. } = self.running.swap_remove(place);
        average(&mut self.service_ms, ms(now - first));
        if request.answer.tokens > 1 {
            average(
                &mut self.token_ms,
                ms(now - first) / f64::from(request.answer.tokens - 1),
            );
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "tokens of a few prompts")]
    fn pending(&self, now: Nanos) -> f32 {
        let all: f32 = self.reading.iter().map(|reading| reading.uncached as f32).sum();
        self.rate.unread(all, ms(now))
    }

    fn report(&mut self, report: &mut Report, regular: bool) {
        let oldest = self.told.front().copied().unwrap_or(0);
        let mut news: Vec<News> = Vec::new();
        // What is new since an earlier status: those that missed the last ones need it, the others pass over it.
        news.extend(self.held.news(oldest));
        self.statuses += u32::from(regular);
        if regular && self.statuses.is_multiple_of(FULL_EVERY) {
            news.push(self.held.all(MOST_CUTS));
        }
        self.told.push_back(self.held.changes());
        if self.told.len() > KEPT {
            self.told.pop_front();
        }
        report.told = Some(std::rc::Rc::new(Told {
            pending: self.pending(report.at),
            busy: self.rate.busy(ms(report.at)),
            prefill: self.rate.per_ms(),
            base_ms: self.rate.base_ms(),
            service_ms: self.service_ms,
            token_ms: self.token_ms,
            news,
        }));
    }
}
