//! Tokens of prompts that a worker has still to read, as one gateway knows it between two reports of the worker.

/// What is pending at one worker. Times are milliseconds of any clock that does not go back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pending {
    /// Tokens that came from all gateways, when the worker reported last; `None` if it never did.
    reported: Option<(f32, u64)>,
    /// It reports with each of its answers, so with the one that says that it took a request too.
    with_answers: bool,
    /// Tokens of this gateway's requests that it was sent and has not taken yet: no report knows of them.
    sent: f32,
    /// Tokens of those that it has taken since its last report.
    taken: f32,
}

impl Pending {
    /// The worker reports `tokens` of all gateways, this one's among them; `with_answer`, in the message of an answer.
    pub fn reported(&mut self, tokens: f32, with_answer: bool, now_ms: u64) {
        let tokens = if tokens.is_finite() { tokens.max(0.0) } else { 0.0 };
        self.reported = Some((tokens, now_ms));
        self.with_answers |= with_answer;
        self.taken = 0.0;
    }

    /// A request of this gateway was sent there, with so many tokens to read.
    pub fn sent(&mut self, tokens: u32) {
        self.sent += as_float(tokens);
    }

    /// The worker took that request.
    pub fn taken(&mut self, tokens: u32) {
        self.unsent(tokens);
        if !self.with_answers {
            self.taken += as_float(tokens);
        }
    }

    /// It did not take it.
    pub fn unsent(&mut self, tokens: u32) {
        self.sent = (self.sent - as_float(tokens)).max(0.0);
    }

    /// A request that it took has its first output, or has ended. What waits behind it was reported since, or will be.
    pub fn read(&mut self, tokens: u32) {
        self.taken = (self.taken - as_float(tokens)).max(0.0);
    }

    /// Tokens that are pending now, if the worker reads `per_ms`.
    pub fn tokens(&self, per_ms: f32, now_ms: u64) -> f32 {
        let (tokens, at) = self.reported.unwrap_or((0.0, now_ms));
        let passed = u16::try_from(now_ms.saturating_sub(at)).unwrap_or(u16::MAX);
        self.sent + self.taken + (tokens - per_ms.max(0.0) * f32::from(passed)).max(0.0)
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
    fn what_was_reported_is_read_as_time_passes_and_what_is_on_its_way_comes_on_top() {
        let mut pending = Pending::default();
        pending.reported(3000.0, true, 100);
        pending.sent(1000);
        assert_eq!(pending.tokens(1.0, 100), 4000.0);
        assert_eq!(pending.tokens(1.0, 1100), 3000.0);
        assert_eq!(pending.tokens(1.0, u64::MAX), 1000.0);
        pending.reported(500.0, true, 1200);
        assert_eq!(pending.tokens(1.0, 1200), 1500.0, "no report knows of it yet");
        pending.reported(1500.0, true, 1300);
        pending.taken(1000);
        assert_eq!(pending.tokens(1.0, 1300), 1500.0, "the answer that took it reported it");
        pending.sent(700);
        pending.unsent(700);
        assert_eq!(pending.tokens(1.0, 1300), 1500.0);
        pending.reported(f32::NAN, true, 2000);
        assert_eq!(pending.tokens(1.0, 2000), 0.0);
    }

    #[test]
    fn what_has_been_read_is_not_pending_until_the_next_report() {
        for reports in [false, true] {
            let mut pending = Pending::default();
            if reports {
                pending.reported(0.0, false, 0);
            }
            pending.sent(1000);
            pending.taken(1000);
            pending.sent(300);
            pending.taken(300);
            pending.read(1000);
            assert_eq!(pending.tokens(1.0, 0), 300.0);
            pending.reported(200.0, false, 0);
            pending.read(300);
            assert_eq!(pending.tokens(1.0, 0), 200.0);
        }
    }
}
