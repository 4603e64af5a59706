//! What the engine reads of prompts: what it holds of them afterwards, how much it has still to read, and how fast it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_bytes::ByteBuf;
use tokenbus_placement::{Held, PrefillRate, Prompt};
use tokenbus_protocol::{Finish, ModelPace, WorkerNews};
use tokio::sync::Notify;

use crate::limits;
use crate::sync::lock;

/// What the engine reads and holds, shared by all streams.
#[derive(Debug)]
pub(crate) struct Readings {
    state: Mutex<State>,
    /// Prompts that were begun and have no output yet. Each batch asks, and nearly always there is none.
    open: AtomicUsize,
    /// Much more or much less is to be read than was told.
    surprise: Notify,
    /// When times began to count.
    origin: Instant,
}

#[derive(Debug)]
struct State {
    held: Held,
    models: BTreeMap<String, Pace>,
    /// Somebody has missed a part of what is held.
    asked: bool,
    /// Changes that were told.
    told: u64,
    /// Tokens that were told to be unread, and when.
    told_pending: (f32, f64),
}

/// How fast the engine is with one model.
#[derive(Debug, Default)]
struct Pace {
    prefill: PrefillRate,
    /// Tokens of its prompts that were begun and have no output yet.
    pending: f32,
    service_ms: Option<f64>,
}

/// The members of an engine's `usage` that tell of its cache.
#[derive(Deserialize)]
struct Usage {
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl Readings {
    /// Nothing was read. `epoch` is a number of this life of the worker.
    pub(crate) fn new(epoch: u64, now: Instant) -> Arc<Self> {
        let state = State {
            held: Held::new(limits::HELD_TOKENS, limits::HELD_CUTS, epoch),
            models: BTreeMap::new(),
            asked: false,
            told: 0,
            told_pending: (0.0, 0.0),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            open: AtomicUsize::new(0),
            surprise: Notify::new(),
            origin: now,
        })
    }

    /// The engine can hold so many tokens; `None` if nobody knows.
    pub(crate) fn set_room(&self, tokens: Option<u64>) {
        lock(&self.state).held.set_room(tokens.unwrap_or(limits::HELD_TOKENS));
    }

    /// The engine was restarted, and holds nothing.
    pub(crate) fn clear(&self) {
        let state = &mut *lock(&self.state);
        state.held.clear();
        state.told = 0;
    }

    /// All that is held is to be told.
    pub(crate) fn ask(&self) {
        lock(&self.state).asked = true;
    }

    /// The engine begins with a prompt.
    pub(crate) fn begin(self: &Arc<Self>, model: &str, prompt: &Prompt, now: Instant) -> Reading {
        let state = &mut *lock(&self.state);
        let expected = state.held.holds(prompt);
        state.held.read(prompt);
        let uncached = prompt.tokens().saturating_sub(expected);
        let at = self.ms(now);
        if !state.models.contains_key(model) {
            state.models.insert(model.to_owned(), Pace::default());
        }
        if let Some(pace) = state.models.get_mut(model) {
            pace.prefill.began(at);
            pace.pending += tokens(uncached);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        self.look(state, at);
        Reading {
            readings: Arc::clone(self),
            model: model.to_owned(),
            tokens: prompt.tokens(),
            expected,
            began: now,
            took: None,
            counted: false,
        }
    }

    /// What is new since the last news, with at most `at_most` cuts.
    pub(crate) fn news(&self, at_most: usize, now: Instant) -> WorkerNews {
        let at = self.ms(now);
        let state = &mut *lock(&self.state);
        let all = std::mem::take(&mut state.asked);
        let changes = state
            .held
            .news(state.told)
            .filter(|news| !all && news.changes.len() / 5 <= at_most);
        let news = changes.unwrap_or_else(|| state.held.all(at_most));
        state.told = state.held.changes();
        state.held.forget_changes(state.told);
        let pending = state.unread(at);
        state.told_pending = (pending, at);
        let paces = state.models.iter_mut().map(|(model, pace)| ModelPace {
            model: model.clone(),
            prefill: pace.prefill.per_ms(),
            base_ms: pace.prefill.base_ms(),
            #[allow(clippy::cast_possible_truncation, reason = "a time needs no more digits")]
            service_ms: pace.service_ms.map(|ms| ms as f32),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of 1")]
            busy: (pace.prefill.busy(at) * 100.0) as u8,
        });
        WorkerNews {
            epoch: news.epoch,
            from: news.from,
            full: news.full,
            changes: ByteBuf::from(news.changes),
            pending: u64::from(whole(pending)),
            paces: paces.collect(),
        }
    }

    /// Tokens that the engine has still to read.
    pub(crate) fn pending(&self) -> u32 {
        if self.open.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let now = Instant::now();
        whole(lock(&self.state).unread(self.ms(now)))
    }

    /// Waits until much more or much less is to be read than gateways can know.
    pub(crate) async fn surprise(&self) {
        self.surprise.notified().await;
    }

    fn look(&self, state: &State, at: f64) {
        if state.is_surprising(at) {
            self.surprise.notify_one();
        }
    }

    fn ms(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.origin).as_secs_f64() * 1e3
    }
}

impl State {
    fn unread(&self, at: f64) -> f32 {
        let models = self.models.values();
        models.map(|pace| pace.prefill.unread(pace.pending, at)).sum()
    }

    /// Whether what is unread differs from what gateways believe: what they were told, less what was read since.
    #[allow(clippy::cast_possible_truncation, reason = "an estimate needs no more digits")]
    fn is_surprising(&self, at: f64) -> bool {
        let (told, since) = self.told_pending;
        let rates = self.models.values().filter_map(|pace| pace.prefill.per_ms());
        let rate = rates.fold(0.0, f32::max);
        let believed = (told - rate * (at - since) as f32).max(0.0);
        (self.unread(at) - believed).abs() >= limits::NEWS_TOKENS
    }
}

#[allow(clippy::cast_precision_loss, reason = "token counts of prompts are far below 2^24")]
fn tokens(count: u32) -> f32 {
    count as f32
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates"
)]
fn whole(tokens: f32) -> u32 {
    tokens as u32
}

/// One prompt that the engine reads, or has read. Dropping it before its first output means that it was given up.
#[derive(Debug)]
pub(crate) struct Reading {
    readings: Arc<Readings>,
    model: String,
    tokens: u32,
    /// Tokens that were expected in the cache.
    expected: u32,
    began: Instant,
    /// The time to its first output.
    took: Option<Duration>,
    /// It has ended as it should.
    counted: bool,
}

impl Reading {
    /// The first output is here: the prompt was read.
    pub(crate) fn first_output(&mut self, now: Instant) {
        if self.took.is_none() {
            self.took = Some(now.saturating_duration_since(self.began));
            self.over(now);
        }
    }

    /// The answer is complete, and the engine may tell what it had in its cache.
    pub(crate) fn finished(&mut self, finish: &Finish, now: Instant) {
        self.first_output(now);
        self.counted = true;
        let found = found(finish, self.tokens);
        let state = &mut *lock(&self.readings.state);
        if let Some(found) = found {
            state.held.found(self.expected, found);
        }
        let Some(pace) = state.models.get_mut(&self.model) else {
            return;
        };
        let read = self.tokens.saturating_sub(found.unwrap_or(self.expected));
        let took = self.took.unwrap_or_default().as_secs_f64() * 1e3;
        pace.prefill.read(read, took);
        // From the first output on: the time to it is that of reading, which is counted for itself.
        let service = now.saturating_duration_since(self.began).as_secs_f64() * 1e3 - took;
        let mean = pace.service_ms.get_or_insert(service);
        *mean += (service - *mean) / 16.0;
    }

    fn over(&self, now: Instant) {
        let at = self.readings.ms(now);
        let state = &mut *lock(&self.readings.state);
        if let Some(pace) = state.models.get_mut(&self.model) {
            let uncached = tokens(self.tokens.saturating_sub(self.expected));
            pace.pending = (pace.pending - uncached).max(0.0);
            pace.prefill.left(at);
        }
        self.readings.open.fetch_sub(1, Ordering::Relaxed);
        self.readings.look(state, at);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.took.is_none() {
            self.over(Instant::now());
        }
    }
}

/// Tokens of the prompt that the engine found in its cache, if it counts them.
pub(crate) fn cached(finish: &Finish) -> Option<u64> {
    let usage: Usage = serde_json::from_str(finish.usage.as_ref()?.get()).ok()?;
    usage.prompt_tokens_details?.cached_tokens
}

/// Tokens that the engine found in its cache, in the measure in which the prompt has `tokens`.
fn found(finish: &Finish, tokens: u32) -> Option<u32> {
    let cached = cached(finish)?;
    let all = finish.prompt_tokens.filter(|all| *all > 0)?;
    let part = cached.min(all).saturating_mul(u64::from(tokens)) / all;
    u32::try_from(part).ok()
}

#[cfg(test)]
#[path = "reading_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
