//! The simulated engine's text: the n-th token of an answer is `t{n} ` (t0 t1 t2 …).

/// Compares text that arrives in pieces with the expected text.
#[derive(Debug)]
pub(crate) struct SimText {
    /// The expected token: `t`, the number, a space.
    due: Vec<u8>,
    /// Bytes of it that have arrived.
    at: usize,
    /// Whole tokens before it.
    tokens: u64,
}

impl Default for SimText {
    fn default() -> Self {
        Self {
            due: b"t0 ".to_vec(),
            at: 0,
            tokens: 0,
        }
    }
}

impl SimText {
    /// Starts again at the first token.
    pub(crate) fn reset(&mut self) {
        self.due.clear();
        self.due.extend_from_slice(b"t0 ");
        self.at = 0;
        self.tokens = 0;
    }

    /// Whole tokens that have arrived.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Whether the text ends where a token ends.
    pub(crate) fn is_whole(&self) -> bool {
        self.at == 0
    }

    /// The expected rest of the token.
    pub(crate) fn due(&self) -> &[u8] {
        self.due.get(self.at..).unwrap_or_default()
    }

    /// Compares the next piece of text; false if it differs.
    pub(crate) fn accept(&mut self, mut text: &[u8]) -> bool {
        while !text.is_empty() {
            let due = self.due();
            if let Some(rest) = text.strip_prefix(due) {
                text = rest;
                self.next();
            } else if due.starts_with(text) {
                self.at += text.len();
                return true;
            } else {
                return false;
            }
        }
        true
    }

    fn next(&mut self) {
        self.at = 0;
        self.tokens += 1;
        // The number counts up in place, so that no token formats one.
        for digit in self.due.iter_mut().rev().filter(|b| b.is_ascii_digit()) {
            if *digit == b'9' {
                *digit = b'0';
            } else {
                *digit += 1;
                return;
            }
        }
        self.due.insert(1, b'1');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(tokens: u64) -> String {
        (0..tokens).map(|n| format!("t{n} ")).collect()
    }

    #[test]
    fn counts_over_every_new_digit() {
        let mut sim = SimText::default();
        assert!(sim.accept(text(12_001).as_bytes()));
        assert_eq!((sim.tokens(), sim.due()), (12_001, b"t12001 ".as_slice()));
        sim.reset();
        assert_eq!((sim.tokens(), sim.due()), (0, b"t0 ".as_slice()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_any_change_is_seen(
            tokens in 1_u64..130,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            change in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut whole = text(tokens).into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(whole.len() + 1)).collect();
            at.extend([0, whole.len()]);
            at.sort_unstable();
            let run = |whole: &[u8]| {
                let mut sim = SimText::default();
                let ok = at.windows(2).all(|w| sim.accept(&whole[w[0]..w[1]]));
                (ok, sim.tokens(), sim.is_whole())
            };
            prop_assert_eq!(run(&whole), (true, tokens, true));
            let at = change.index(whole.len());
            prop_assume!(whole[at] != byte);
            whole[at] = byte;
            prop_assert!(!run(&whole).0);
        }
    }
}
