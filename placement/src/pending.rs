//! Tokens of prompts that a worker has still to read, as one gateway knows it between two reports of the worker.

/// What is pending at one worker. Times are milliseconds of any clock that does not go back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pending {
    /// Tokens that came from others, when the worker reported.
    others: f32,
    reported_ms: u64,
    /// Tokens of this gateway's requests there that have no output yet.
    own: f32,
}

impl Pending {
    /// The worker reports `tokens` of all gateways.
    pub fn reported(&mut self, tokens: f32, now_ms: u64) {
        self.others = if tokens.is_finite() {
            (tokens - self.own).max(0.0)
        } else {
            0.0
        };
        self.reported_ms = now_ms;
    }

    /// A request of this gateway was placed there, with so many tokens to read.
    pub fn placed(&mut self, tokens: u32) {
        self.own += as_float(tokens);
    }

    /// That request has its first output, or has ended.
    pub fn over(&mut self, tokens: u32) {
        self.own = (self.own - as_float(tokens)).max(0.0);
    }

    /// Tokens that are pending now, if the worker reads `per_ms`.
    pub fn tokens(&self, per_ms: f32, now_ms: u64) -> f32 {
        let passed = u16::try_from(now_ms.saturating_sub(self.reported_ms)).unwrap_or(u16::MAX);
        self.own + (self.others - per_ms.max(0.0) * f32::from(passed)).max(0.0)
    }
}

#[allow(clippy::cast_precision_loss, reason = "token counts of prompts are far below 2^24")]
fn as_float(tokens: u32) -> f32 {
    tokens as f32
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    #[test]
    fn own_requests_count_until_their_first_output_and_others_as_they_are_read() {
        let mut pending = Pending::default();
        pending.placed(1000);
        assert_eq!(pending.tokens(1.0, 0), 1000.0);
        pending.reported(3000.0, 100);
        assert_eq!(pending.tokens(1.0, 100), 3000.0);
        assert_eq!(pending.tokens(1.0, 1100), 2000.0);
        assert_eq!(pending.tokens(1.0, u64::MAX), 1000.0);
        pending.over(1000);
        assert_eq!(pending.tokens(1.0, 1100), 1000.0);
        pending.reported(f32::NAN, 2000);
        assert_eq!(pending.tokens(1.0, 2000), 0.0);
    }
}
