//! How fast a worker's engine reads prompts: measured over the time in which it reads at least one.

/// Milliseconds of reading after which older measurements count half.
const WINDOW_MS: f64 = 10_000.0;

/// Tokens of a prompt that says something of the time without any.
const SHORT: u32 = 64;

/// Tokens that must have been read before the rate counts.
const ENOUGH: f64 = 1_000.0;

/// Least part of the measured time that counts as reading.
const LEAST_PART: f64 = 0.1;

/// Milliseconds over which the busy part of the time is averaged.
const BUSY_WINDOW_MS: f64 = 8_000.0;

/// The measured rate. Times are milliseconds of any clock that does not go back.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrefillRate {
    reading: u32,
    /// Nothing has been read to its end since the engine was idle: the next to end waited for nothing.
    fresh: bool,
    since_ms: f64,
    busy_ms: f64,
    tokens: f64,
    prompts: f64,
    base_ms: Option<f64>,
    /// The end of the last prompt, or the beginning of the first after none.
    began_ms: f64,
    /// Milliseconds of reading since the busy part was asked for, and when that was.
    read_ms: f64,
    asked_ms: f64,
    busy: f64,
}

impl PrefillRate {
    /// The engine begins to read a prompt.
    pub fn began(&mut self, now_ms: f64) {
        self.pass(now_ms);
        if self.reading == 0 {
            self.fresh = true;
            self.began_ms = now_ms;
        }
        self.reading += 1;
    }

    /// It has read one of `tokens` in `took_ms`, from which its first token came.
    pub fn ended(&mut self, tokens: u32, took_ms: f64, now_ms: f64) {
        self.left(now_ms);
        self.read(tokens, took_ms);
    }

    /// It had `tokens` to read of a prompt that it left with the first token, after `took_ms`.
    pub fn read(&mut self, tokens: u32, took_ms: f64) {
        self.tokens += f64::from(tokens);
        self.prompts += 1.0;
        // Behind others, the time is that of their prompts.
        if std::mem::take(&mut self.fresh) && tokens < SHORT {
            let base = self.base_ms.get_or_insert(took_ms);
            *base += (took_ms - *base) / 8.0;
        }
        if self.busy_ms > WINDOW_MS {
            self.busy_ms /= 2.0;
            self.tokens /= 2.0;
            self.prompts /= 2.0;
        }
    }

    /// It has stopped reading one.
    pub fn left(&mut self, now_ms: f64) {
        self.pass(now_ms);
        self.began_ms = now_ms;
        self.reading = self.reading.saturating_sub(1);
    }

    /// Tokens per millisecond; `None` until enough was read.
    #[allow(clippy::cast_possible_truncation, reason = "a rate needs no more digits")]
    pub fn per_ms(&self) -> Option<f32> {
        let reading = self.busy_ms - self.base_ms.unwrap_or(0.0) * self.prompts;
        let reading = reading.max(self.busy_ms * LEAST_PART);
        (self.tokens >= ENOUGH && reading > 0.0).then(|| (self.tokens / reading) as f32)
    }

    /// Milliseconds to the first token of a prompt without tokens to read, if such prompts came.
    #[allow(clippy::cast_possible_truncation, reason = "a time needs no more digits")]
    pub fn base_ms(&self) -> Option<f32> {
        self.base_ms.map(|base| base as f32)
    }

    /// The part of the last seconds in which it read prompts, 0 to 1.
    #[allow(clippy::cast_possible_truncation, reason = "a part needs no more digits")]
    pub fn busy(&mut self, now_ms: f64) -> f32 {
        self.pass(now_ms);
        let passed = now_ms - self.asked_ms;
        if passed > 0.0 {
            let part = (self.read_ms / passed).min(1.0);
            self.busy += (part - self.busy) * (1.0 - (-passed / BUSY_WINDOW_MS).exp());
            (self.read_ms, self.asked_ms) = (0.0, now_ms);
        }
        self.busy as f32
    }

    /// What is left of `accepted` tokens that were not read when the last prompt ended.
    #[allow(clippy::cast_possible_truncation, reason = "a time needs no more digits")]
    pub fn unread(&self, accepted: f32, now_ms: f64) -> f32 {
        let since = if self.reading > 0 {
            (now_ms - self.began_ms).max(0.0)
        } else {
            0.0
        };
        (accepted - self.per_ms().unwrap_or(0.0) * since as f32).max(0.0)
    }

    fn pass(&mut self, now_ms: f64) {
        if self.reading > 0 {
            let passed = (now_ms - self.since_ms).max(0.0);
            self.busy_ms += passed;
            self.read_ms += passed;
        }
        self.since_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: Option<f32>, wanted: f32) -> bool {
        value.is_some_and(|value| (value - wanted).abs() < wanted * 0.1)
    }

    #[test]
    fn one_after_the_other_and_all_at_once_are_the_same_rate() {
        let (mut one, mut all) = (PrefillRate::default(), PrefillRate::default());
        for n in 0..10_u32 {
            let now = f64::from(n) * 1000.0;
            one.began(now);
            one.ended(1000, 100.0, now + 100.0);
            all.began(0.0);
        }
        for n in 1..=10 {
            all.ended(1000, f64::from(n) * 100.0, f64::from(n) * 100.0);
        }
        assert!(near(one.per_ms(), 10.0) && near(all.per_ms(), 10.0), "{one:?} {all:?}");
    }

    #[test]
    fn short_prompts_and_cancelled_ones_do_not_spoil_it() {
        let mut rate = PrefillRate::default();
        assert_eq!((rate.per_ms(), rate.base_ms()), (None, None));
        let mut now = 0.0;
        for _ in 0..50 {
            for (tokens, took) in [(10, 30.0), (10, 30.0), (10, 30.0), (5000, 530.0)] {
                rate.began(now);
                now += took;
                rate.ended(tokens, took, now);
            }
            rate.began(now);
            rate.left(now);
        }
        assert!(near(rate.per_ms(), 10.0), "{rate:?}");
        assert!(near(rate.base_ms(), 30.0));
    }

    #[test]
    fn short_prompts_in_a_queue_do_not_count_the_time_of_those_before_them() {
        let mut rate = PrefillRate::default();
        let mut now = 0.0;
        rate.began(now);
        for _ in 0..200 {
            // A long one is always waiting: each short one is read behind it.
            rate.began(now);
            rate.began(now);
            rate.ended(5000, 500.0, now + 500.0);
            rate.ended(10, 501.0, now + 501.0);
            now += 501.0;
        }
        assert!(near(rate.per_ms(), 10.0), "{rate:?}");
        assert_eq!(rate.base_ms(), None);
    }

    #[test]
    fn it_knows_how_busy_it_is_and_what_is_left() {
        let mut rate = PrefillRate::default();
        let mut now = 0.0;
        for _ in 0..60 {
            rate.began(now);
            rate.ended(7_500, 750.0, now + 750.0);
            now += 1000.0;
            rate.busy(now);
        }
        assert!(near(Some(rate.busy(now)), 0.75), "{rate:?}");
        rate.began(now);
        assert!(near(Some(rate.unread(7_500.0, now + 500.0)), 2_500.0));
        assert!(rate.unread(7_500.0, now + 5000.0).abs() < 1e-3);
    }

    #[test]
    fn a_change_is_followed() {
        let mut rate = PrefillRate::default();
        let mut now = 0.0;
        for n in 0..400 {
            let took = if n < 200 { 100.0 } else { 400.0 };
            rate.began(now);
            now += took;
            rate.ended(1000, took, now);
        }
        assert!(near(rate.per_ms(), 2.5), "{rate:?}");
    }
}
