//! Defaults and time-outs of the llama.cpp engine, each with its unit and its reason.

use std::time::Duration;

/// Tokens of context per request. Enough for a conversation; the KV cache of four such slots is
/// about 2 GiB for a model of 8 billion parameters.
pub(super) const DEFAULT_CONTEXT: u32 = 4096;

/// Prompts in the host cache that are remembered, 1 KiB each. For a model of 8 billion parameters 8 GiB hold some 30 of
/// 2,000 tokens; of a small model's more, the oldest are not looked for.
pub(super) const SAVED_PROMPTS: usize = 128;

/// How long the server may take to load its model before it is started again. A few GiB from a
/// slow disk take minutes.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Slots for a number of cores: a CPU decodes a batch of sequences for little more than the price
/// of one, so two per core, but not so many that each becomes too slow to read along.
pub(super) fn default_slots(cores: usize) -> u32 {
    u32::try_from(cores.saturating_mul(2)).unwrap_or(u32::MAX).clamp(2, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_cores_within_bounds() {
        assert_eq!([0, 1, 2, 3, 4, 64].map(default_slots), [2, 2, 4, 6, 8, 8]);
        assert_eq!(default_slots(usize::MAX), 8);
    }
}
