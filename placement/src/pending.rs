//! Tokens of prompts that a worker has still to read, as one gateway knows it between two reports of the worker.

/// What is pending at one worker. Times are milliseconds of any clock that does not go back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pending {
    /// Tokens that came from all gateways, when the worker reported last; `None` if it never did.
    reported: Option<(f32, u64)>,
    /// Tokens of this gateway's requests that were placed there since.
    own: f32,
}

impl Pending {
    /// The worker reports `tokens` of all gateways, this one's among them.
    pub fn reported(&mut self, tokens: f32, now_ms: u64) {
        let tokens = if tokens.is_finite() { tokens.max(0.0) } else { 0.0 };
        self.reported = Some((tokens, now_ms));
        self.own = 0.0;
    }

    /// A request of this gateway was placed there, with so many tokens to read.
    pub fn placed(&mut self, tokens: u32) {
        self.own += as_float(tokens);
    }

    /// That request has its first output, or has ended. It says nothing of a worker that reports: its next report will.
    pub fn over(&mut self, tokens: u32) {
        if self.reported.is_none() {
            self.own = (self.own - as_float(tokens)).max(0.0);
        }
    }

    /// Tokens that are pending now, if the worker reads `per_ms`.
    pub fn tokens(&self, per_ms: f32, now_ms: u64) -> f32 {
        let (tokens, at) = self.reported.unwrap_or((0.0, now_ms));
        let passed = u16::try_from(now_ms.saturating_sub(at)).unwrap_or(u16::MAX);
        self.own + (tokens - per_ms.max(0.0) * f32::from(passed)).max(0.0)
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
    fn what_was_reported_is_read_as_time_passes_and_own_requests_come_on_top() {
        let mut pending = Pending::default();
        pending.reported(3000.0, 100);
        pending.placed(1000);
        assert_eq!(pending.tokens(1.0, 100), 4000.0);
        assert_eq!(pending.tokens(1.0, 1100), 3000.0);
        assert_eq!(pending.tokens(1.0, u64::MAX), 1000.0);
        pending.over(1000);
        assert_eq!(
            pending.tokens(1.0, 1100),
            3000.0,
            "only a report tells how much is left"
        );
        pending.reported(500.0, 1200);
        assert_eq!(pending.tokens(1.0, 1200), 500.0);
        pending.reported(f32::NAN, 2000);
        assert_eq!(pending.tokens(1.0, 2000), 0.0);
    }

    #[test]
    fn at_a_worker_that_never_reports_own_requests_count_until_their_first_output() {
        let mut pending = Pending::default();
        pending.placed(1000);
        pending.placed(300);
        pending.over(1000);
        assert_eq!(pending.tokens(1.0, 5000), 300.0);
    }
}
