//! A simulated engine: slots, a prefill that takes one prompt after the other, and decoding that slows as it fills.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;

use crate::cache::{Hold, PrefixCache};
use crate::prompt::{Request, Segment};
use crate::time::{Nanos, from_seconds, seconds};

/// The number of a request in its workload.
pub type Number = usize;

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineSpec {
    /// Requests that run at once.
    pub slots: u32,
    /// Tokens per second that it reads of prompts.
    pub prefill_rate: f64,
    /// Seconds of a decoding step with one sequence.
    pub step: f64,
    /// Seconds that each further sequence adds to a step.
    pub step_per_sequence: f64,
    /// Part of its speed that decoding keeps while a prompt is read.
    pub decode_beside_prefill: f64,
    /// Tokens that its cache holds, those of running requests among them.
    pub cache_tokens: u32,
}

impl EngineSpec {
    /// The same engine on a machine that is `factor` times as fast.
    #[must_use]
    pub fn faster(self, factor: f64) -> Self {
        Self {
            prefill_rate: self.prefill_rate * factor,
            step: self.step / factor,
            step_per_sequence: self.step_per_sequence / factor,
            ..self
        }
    }

    /// Tokens per second of each of `sequences` that decode at once.
    pub fn decode_rate(&self, sequences: usize, beside_prefill: bool) -> f64 {
        let others = sequences.saturating_sub(1);
        #[expect(clippy::cast_precision_loss, reason = "slots are few")]
        let rate = 1.0 / (self.step + self.step_per_sequence * others as f64);
        if beside_prefill {
            rate * self.decode_beside_prefill
        } else {
            rate
        }
    }
}

/// What happened at an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A prompt was read and the first token generated.
    FirstToken {
        /// The request.
        number: Number,
        /// Tokens of its prompt that were cached.
        cached: u32,
        /// How long the prompt was read.
        took: Nanos,
    },
    /// A request has its last token.
    Ended(Number),
}

#[derive(Debug)]
struct Waiting {
    number: Number,
    /// Tokens that seemed uncached when it came.
    uncached: u32,
}

#[derive(Debug)]
struct Prefill {
    number: Number,
    cached: u32,
    hold: Hold,
    began: Nanos,
    ends: Nanos,
}

#[derive(Debug)]
struct Decoding {
    /// Where the count of tokens per sequence stands when it ends.
    until: f64,
    number: Number,
    hold: Hold,
}

impl PartialEq for Decoding {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decoding {}

impl PartialOrd for Decoding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decoding {
    /// Reversed, because the heap gives out its largest entry first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.until.total_cmp(&self.until).then(other.number.cmp(&self.number))
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    spec: EngineSpec,
    /// Its prefix cache.
    pub cache: PrefixCache,
    waiting: VecDeque<Waiting>,
    waiting_tokens: u64,
    /// Segments that requests bring whose prompt is not read yet, each with how many of them do.
    promised: FxHashMap<u64, u32>,
    prefill: Option<Prefill>,
    decoding: BinaryHeap<Decoding>,
    /// Tokens that a sequence would have by now that had decoded from the start of the run.
    progress: f64,
    progress_at: Nanos,
}

impl Engine {
    /// An idle engine with an empty cache.
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            spec,
            cache: PrefixCache::new(spec.cache_tokens),
            waiting: VecDeque::new(),
            waiting_tokens: 0,
            promised: FxHashMap::default(),
            prefill: None,
            decoding: BinaryHeap::new(),
            progress: 0.0,
            progress_at: 0,
        }
    }

    /// What it can do.
    pub fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// Requests in slots.
    pub fn running(&self) -> usize {
        self.decoding.len() + usize::from(self.prefill.is_some())
    }

    /// Requests that wait or run.
    pub fn active(&self) -> usize {
        self.waiting.len() + self.running()
    }

    /// Blocks of the cache that running requests hold.
    pub fn held_blocks(&self) -> f64 {
        f64::from(self.cache.pinned())
    }

    /// Tokens of prompts that are still to be read.
    pub fn pending_tokens(&self, now: Nanos) -> f64 {
        let current = self
            .prefill
            .as_ref()
            .map_or(0, |prefill| prefill.ends.saturating_sub(now));
        #[expect(clippy::cast_precision_loss, reason = "thousands of prompts")]
        let waiting = self.waiting_tokens as f64;
        waiting + seconds(current) * self.spec.prefill_rate
    }

    /// Tokens of `prompt` that will be cached once all that wait have been read.
    pub fn will_match(&self, prompt: &[Segment]) -> u32 {
        let cached = self.cache.matched(prompt);
        if self.promised.is_empty() {
            return cached;
        }
        let promised = |segment: &&Segment| self.promised.contains_key(&segment.id) || self.cache.holds(segment.id);
        cached.max(prompt.iter().take_while(promised).map(|segment| segment.tokens).sum())
    }

    /// Seconds until a request that came now would have a slot, prefill aside.
    pub fn slot_wait(&self, now: Nanos) -> f64 {
        let free = (self.spec.slots as usize).saturating_sub(self.running());
        if self.waiting.len() < free {
            return 0.0;
        }
        let place = self.waiting.len() - free;
        let rate = self.rate();
        let progress = self.progress + seconds(now.saturating_sub(self.progress_at)) * rate;
        let mut ends: Vec<f64> = self.decoding.iter().map(|sequence| sequence.until).collect();
        ends.sort_unstable_by(f64::total_cmp);
        // Behind more requests than run now, each generation of slots takes about as long as the last of these.
        let (Some(until), Some(last)) = (ends.get(place % ends.len().max(1)), ends.last()) else {
            return 0.0;
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let generations = (place / ends.len()) as f64;
        ((until - progress).max(0.0) + generations * (last - progress).max(0.0)) / rate
    }

    /// A request arrives at `now`, after all steps up to `now` were taken.
    pub fn enqueue(&mut self, now: Nanos, number: Number, requests: &[Request]) {
        let request = &requests[number];
        let uncached = request
            .prompt_tokens()
            .saturating_sub(self.will_match(&request.prompt))
            .max(1);
        self.waiting_tokens += u64::from(uncached);
        for segment in &request.prompt {
            *self.promised.entry(segment.id).or_default() += 1;
        }
        self.waiting.push_back(Waiting { number, uncached });
        self.start_next(now, requests);
    }

    /// When the next step happens, if nothing else arrives before.
    pub fn next(&self) -> Option<Nanos> {
        let prefill = self.prefill.as_ref().map(|prefill| prefill.ends);
        let decoded = self.decoding.peek().map(|first| {
            let left = (first.until - self.progress).max(0.0) / self.rate();
            self.progress_at + from_seconds(left)
        });
        match (prefill, decoded) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Takes the steps that are due at `now`, which is not later than [`Engine::next`].
    pub fn advance(&mut self, now: Nanos, requests: &[Request], steps: &mut Vec<Step>) {
        while self.next().is_some_and(|next| next <= now) {
            self.catch_up(now);
            let before = steps.len();
            self.end_prefill(now, requests, steps);
            while self
                .decoding
                .peek()
                .is_some_and(|first| first.until <= self.progress + 1e-6)
            {
                self.end_one(requests, steps);
            }
            if steps.len() == before {
                // The next sequence ends within a nanosecond: rounding must not stop the clock.
                self.end_one(requests, steps);
            }
            self.start_next(now, requests);
        }
    }

    /// Loses everything: the requests that it held.
    pub fn kill(&mut self) -> Vec<Number> {
        let mut lost: Vec<Number> = self.waiting.iter().map(|waiting| waiting.number).collect();
        lost.extend(self.prefill.as_ref().map(|prefill| prefill.number));
        lost.extend(self.decoding.iter().map(|sequence| sequence.number));
        lost.sort_unstable();
        *self = Self::new(self.spec);
        lost
    }

    fn rate(&self) -> f64 {
        self.spec.decode_rate(self.decoding.len(), self.prefill.is_some())
    }

    fn catch_up(&mut self, now: Nanos) {
        self.progress += seconds(now.saturating_sub(self.progress_at)) * self.rate();
        self.progress_at = now;
    }

    fn end_prefill(&mut self, now: Nanos, requests: &[Request], steps: &mut Vec<Step>) {
        let Some(mut prefill) = self.prefill.take_if(|prefill| prefill.ends <= now) else {
            return;
        };
        let request = &requests[prefill.number];
        self.cache.computed(&request.prompt, &mut prefill.hold);
        self.keep_promises(request);
        steps.push(Step::FirstToken {
            number: prefill.number,
            cached: prefill.cached,
            took: now - prefill.began,
        });
        self.decoding.push(Decoding {
            until: self.progress + f64::from(request.answer.tokens.saturating_sub(1)),
            number: prefill.number,
            hold: prefill.hold,
        });
    }

    fn keep_promises(&mut self, request: &Request) {
        for segment in &request.prompt {
            if let Some(count) = self.promised.get_mut(&segment.id) {
                *count -= 1;
                if *count == 0 {
                    self.promised.remove(&segment.id);
                }
            }
        }
    }

    fn end_one(&mut self, requests: &[Request], steps: &mut Vec<Step>) {
        let Some(Decoding { number, hold, .. }) = self.decoding.pop() else {
            return;
        };
        let request = &requests[number];
        self.cache.ended(&request.prompt, request.answer, hold);
        steps.push(Step::Ended(number));
    }

    /// Begins to read the next prompt if a slot, the reader and the cache's space are free.
    fn start_next(&mut self, now: Nanos, requests: &[Request]) {
        if self.prefill.is_some() || self.running() >= self.spec.slots as usize {
            return;
        }
        let Some(&Waiting {
            number,
            uncached: expected,
        }) = self.waiting.front()
        else {
            return;
        };
        let request = &requests[number];
        let Some((cached, hold)) = self.cache.start(&request.prompt, request.answer.tokens) else {
            return;
        };
        self.catch_up(now);
        let uncached = request.prompt_tokens().saturating_sub(cached).max(1);
        self.prefill = Some(Prefill {
            number,
            cached,
            hold,
            began: now,
            ends: now + from_seconds(f64::from(uncached) / self.spec.prefill_rate).max(1),
        });
        self.waiting_tokens -= u64::from(expected);
        self.waiting.pop_front();
    }
}

/// Whether the engine can hold the request at all.
pub fn fits(spec: &EngineSpec, request: &Request) -> bool {
    request.prompt_tokens() + request.answer.tokens + 16 <= spec.cache_tokens
}
