//! The limits of one key over all gateways, pure.

use std::collections::HashMap;

use tokenbus_protocol::{Amount, KeyConsumption, Name};
use tokio::time::Instant;

use super::budget::Told;
use super::key_table::Limits;
use super::leaky_bucket::{LeakyBucket, Rate};
use super::limits::REFRESH;
use super::refusal::{Refusal, Remaining, RemainingLimits};

/// What one gateway has consumed since its start, and its running requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Consumed {
    requests: u64,
    tokens: i64,
    streams: u32,
    /// For the key's budgets.
    pub(super) budget: Told,
}

/// What a request was charged on admission.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Charge {
    tokens: u64,
    /// The level of the key's tokens right after the charge.
    level: f64,
    at: Instant,
    /// What it is expected to use of the key's budgets.
    pub(super) expected: Amount,
}

/// The state of one key.
#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) limits: Limits,
    requests: LeakyBucket,
    tokens: LeakyBucket,
    pub(super) own: Consumed,
    pub(super) told: Consumed,
    others: HashMap<Name, Consumed>,
}

// Counts above 2^53 do not occur: a million requests per second would take 285 years.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss)]
fn signed(count: i64) -> f64 {
    count as f64
}

/// Turns a reported level into a possible one.
fn sound(level: f64, rate: Rate) -> f64 {
    if level.is_finite() {
        level.clamp(0.0, rate.limit)
    } else {
        0.0
    }
}

impl KeyState {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            requests: LeakyBucket::new(now),
            tokens: LeakyBucket::new(now),
            own: Consumed::default(),
            told: Consumed::default(),
            others: HashMap::new(),
        }
    }

    fn request_rate(&self) -> Option<Rate> {
        let limit = self.limits.requests?;
        Some(Rate {
            limit: limit.get().into(),
        })
    }

    fn token_rate(&self) -> Option<Rate> {
        let limit = self.limits.tokens?;
        Some(Rate {
            limit: float(limit.get()),
        })
    }

    fn streams(&self) -> u32 {
        let others = self.others.values().map(|other| other.streams);
        others.fold(self.own.streams, u32::saturating_add)
    }

    /// What the other gateways have told for the key's budgets.
    pub(super) fn others_budget(&self) -> Told {
        let others = self.others.values().map(|other| other.budget);
        others.fold(Told::default(), Told::plus)
    }

    /// Whether the limit of concurrent requests is reached.
    pub(super) fn is_full(&self) -> bool {
        self.limits.streams.is_some_and(|limit| self.streams() >= limit.get())
    }

    /// Admits a request by what is known before its body: one more running request, and one more request.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Charge, Refusal> {
        if let Some(limit) = self.limits.streams
            && self.is_full()
        {
            return Err(Refusal::Streams {
                limit: limit.get().into(),
            });
        }
        if let (Some(rate), Some(limit)) = (self.request_rate(), self.limits.requests) {
            if let Some(after) = self.requests.wait(1.0, rate, now) {
                return Err(Refusal::Requests {
                    limit: limit.get().into(),
                    after,
                });
            }
            self.requests.add(1.0, rate, now);
        }
        self.own.requests += 1;
        self.own.streams = self.own.streams.saturating_add(1);
        Ok(Charge {
            tokens: 0,
            level: 0.0,
            at: now,
            expected: Amount::default(),
        })
    }

    /// Charges an admitted request for the tokens that it will probably use.
    pub(super) fn charge(&mut self, charge: &mut Charge, asked: u64, now: Instant) -> Result<(), Refusal> {
        let (Some(rate), Some(limit)) = (self.token_rate(), self.limits.tokens) else {
            return Ok(());
        };
        // A request above the whole limit may go when the limit is untouched; otherwise it could never go.
        let tokens = asked.min(limit.get());
        if let Some(after) = self.tokens.wait(float(tokens), rate, now) {
            let limit = limit.get();
            return Err(Refusal::Tokens { limit, asked, after });
        }
        self.tokens.add(float(tokens), rate, now);
        self.own.tokens = self.own.tokens.saturating_add_unsigned(tokens);
        let level = self.tokens.level(rate, now);
        *charge = Charge {
            tokens,
            level,
            at: now,
            ..*charge
        };
        Ok(())
    }

    /// Charges usage beyond the estimate, or gives back the unused part. It gives back only what has not leaked yet,
    /// because leaked units have admitted others.
    pub(super) fn settle(&mut self, charge: &Charge, used: u64, now: Instant) {
        self.own.streams = self.own.streams.saturating_sub(1);
        let Some(rate) = self.token_rate() else { return };
        let more = i64::try_from(used).unwrap_or(i64::MAX);
        let mut more = more.saturating_sub_unsigned(charge.tokens);
        if more < 0 {
            let left = charge.level - rate.leak(now.saturating_duration_since(charge.at));
            // Rounds towards giving back less. A cast saturates.
            #[allow(clippy::cast_possible_truncation)]
            let left = left.max(0.0) as i64;
            more = more.max(-left);
        }
        self.own.tokens = self.own.tokens.saturating_add(more);
        self.tokens.add(signed(more), rate, now);
    }

    /// Whether the others should hear of it now. If each of them had as much untold consumption, they might together
    /// use up half of what is left.
    pub(super) fn is_urgent(&self, gateways: usize, now: Instant) -> bool {
        let share = |untold: f64, left: f64| untold > 0.0 && untold * 2.0 * float(gateways as u64) >= left;
        let requests = self.request_rate().is_some_and(|rate| {
            let untold = float(self.own.requests.saturating_sub(self.told.requests));
            share(untold, rate.limit - self.requests.level(rate, now))
        });
        let tokens = self.token_rate().is_some_and(|rate| {
            let untold = signed(self.own.tokens.saturating_sub(self.told.tokens));
            share(untold, rate.limit - self.tokens.level(rate, now))
        });
        let streams = self.limits.streams.is_some_and(|limit| {
            let untold = self.own.streams.saturating_sub(self.told.streams);
            share(untold.into(), limit.get().saturating_sub(self.streams()).into())
        });
        requests || tokens || streams
    }

    pub(super) fn remaining(&self, limits: Limits, now: Instant) -> RemainingLimits {
        let left = |bucket: &LeakyBucket, limit: u64| {
            let rate = Rate { limit: float(limit) };
            let level = bucket.level(rate, now);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let remaining = (rate.limit - level + 1e-6).max(0.0) as u64;
            Remaining {
                limit,
                remaining,
                reset: rate.time(level),
            }
        };
        RemainingLimits {
            requests: limits.requests.map(|limit| left(&self.requests, limit.get().into())),
            tokens: limits.tokens.map(|limit| left(&self.tokens, limit.get())),
            budgets: [None; 4],
        }
    }

    /// Whether this gateway has told of it.
    pub(super) fn knows(&self, gateway: &Name) -> bool {
        self.others.contains_key(gateway)
    }

    /// How many gateways have told of it.
    pub(super) fn told_by(&self) -> usize {
        self.others.len()
    }

    /// Applies another gateway's report.
    pub(super) fn hear(&mut self, gateway: &Name, told: &KeyConsumption, complete: bool, now: Instant) {
        let news = Consumed {
            requests: told.requests,
            tokens: told.tokens,
            streams: told.streams,
            budget: Told {
                expected: told.expected,
                unsaved: told.unsaved,
            },
        };
        let old = self.others.insert(gateway.clone(), news);
        let (request_rate, token_rate) = (self.request_rate(), self.token_rate());
        match old {
            Some(old) if told.requests >= old.requests => {
                if let Some(rate) = request_rate {
                    self.requests.add(float(told.requests - old.requests), rate, now);
                }
                if let Some(rate) = token_rate {
                    self.tokens
                        .add(signed(told.tokens.saturating_sub(old.tokens)), rate, now);
                }
            }
            // All of it is new: the key was idle there, or its counts started over after an absence. But no more can be
            // left than the reported level and what has leaked since.
            _ if complete || old.is_some() => {
                if let Some(rate) = request_rate {
                    let most = sound(told.requests_level, rate) + rate.leak(REFRESH);
                    self.requests.add(float(told.requests).min(most), rate, now);
                }
                if let Some(rate) = token_rate {
                    let most = sound(told.tokens_level, rate) + rate.leak(REFRESH);
                    self.tokens.add(signed(told.tokens).clamp(0.0, most), rate, now);
                }
            }
            // How much of the counts is new is unknown. The sender's level of all gateways is a lower bound.
            _ => {
                if let Some(rate) = request_rate {
                    self.requests.raise(sound(told.requests_level, rate), rate, now);
                }
                if let Some(rate) = token_rate {
                    self.tokens.raise(sound(told.tokens_level, rate), rate, now);
                }
            }
        }
    }

    pub(super) fn has_news(&self) -> bool {
        self.own != self.told
    }

    pub(super) fn tell(&mut self, name: &Name, now: Instant) -> KeyConsumption {
        self.told = self.own;
        let level = |bucket: &LeakyBucket, rate: Option<Rate>| rate.map_or(0.0, |rate| bucket.level(rate, now));
        KeyConsumption {
            key: name.as_str().to_owned(),
            requests: self.own.requests,
            tokens: self.own.tokens,
            streams: self.own.streams,
            requests_level: level(&self.requests, self.request_rate()),
            tokens_level: level(&self.tokens, self.token_rate()),
            expected: self.own.budget.expected,
            unsaved: self.own.budget.unsaved,
        }
    }

    pub(super) fn forget(&mut self, gateways: &[Name]) {
        for gateway in gateways {
            self.others.remove(gateway);
        }
    }

    /// Nothing runs, everything has leaked, and all gateways know.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let empty = |bucket: &LeakyBucket, rate: Option<Rate>| rate.is_none_or(|rate| bucket.level(rate, now) <= 0.0);
        !self.has_news()
            && self.streams() == 0
            && self.own.budget == Told::default()
            && empty(&self.requests, self.request_rate())
            && empty(&self.tokens, self.token_rate())
    }
}
