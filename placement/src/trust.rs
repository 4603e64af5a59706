//! How far a worker's claims of what it holds can be relied on, by what its answers report.

use crate::limits::{SPILLED_TOKENS, TRUST_STEP};

/// The part of a claim that counts, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trust(f32);

impl Default for Trust {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Trust {
    /// A prompt was placed for `claimed` tokens, and `found` were in the cache. Small claims say nothing.
    #[allow(clippy::cast_precision_loss, reason = "a ratio needs no more digits")]
    pub fn observe(&mut self, claimed: u32, found: u32) {
        if claimed >= SPILLED_TOKENS / 4 {
            let part = (found as f32 / claimed as f32).min(1.0);
            self.0 += (part - self.0) * TRUST_STEP;
        }
    }

    /// The tokens of a claim that count.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub fn counted(self, claimed: u32) -> u32 {
        match self.0 {
            // Nearly full trust is full: estimates are never exact.
            trust if trust > 0.9 => claimed,
            trust if trust < 0.1 => 0,
            trust => (claimed as f32 * trust) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_promises_too_much_is_believed_less_and_can_win_it_back() {
        let mut trust = Trust::default();
        trust.observe(1000, 970);
        trust.observe(10, 0);
        assert_eq!(trust.counted(1000), 1000);
        for _ in 0..20 {
            trust.observe(1000, 0);
        }
        assert_eq!(trust.counted(1000), 0, "{trust:?}");
        for _ in 0..20 {
            trust.observe(1000, 5000);
        }
        assert_eq!(trust.counted(1000), 1000);
    }
}
