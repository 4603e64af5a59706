//! A prompt as a chain of hashes: each stands for everything up to its cut, so two prompts that agree in a hash agree in
//! all before it.
//!
//! Cuts are where prompts branch: at the end of each message, and inside a long one at growing distances.

use twox_hash::XxHash3_64;

use crate::limits::{ATTACHMENT_TOKENS, BYTES_PER_TOKEN, FIRST_CUTS, FIRST_STEPS, MAX_CUTS, STEP};

/// Bytes of a cut in a request.
const CUT_BYTES: usize = 16;

/// A place in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cut {
    /// The hash of everything before it, with the model.
    pub hash: u64,
    /// Bytes of text before it.
    pub bytes: u32,
    /// Estimated tokens before it.
    pub tokens: u32,
}

/// The cuts of one prompt, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    cuts: Vec<Cut>,
    seed: u64,
}

impl Prompt {
    /// The cuts, the shortest prefix first.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Estimated tokens of the whole prompt.
    pub fn tokens(&self) -> u32 {
        self.cuts.last().map_or(0, |cut| cut.tokens)
    }

    /// Lets the hashes stand for a prompt to `model`. Different models share no prefix.
    pub fn set_model(&mut self, model: &str) {
        let seed = XxHash3_64::oneshot_with_seed(1, model.as_bytes());
        let change = std::mem::replace(&mut self.seed, seed) ^ seed;
        for cut in &mut self.cuts {
            cut.hash ^= change;
        }
    }

    /// The cuts as they travel in a request.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.cuts.len() * CUT_BYTES);
        for cut in &self.cuts {
            bytes.extend_from_slice(&cut.hash.to_le_bytes());
            bytes.extend_from_slice(&cut.bytes.to_le_bytes());
            bytes.extend_from_slice(&cut.tokens.to_le_bytes());
        }
        bytes
    }

    /// The cuts from a request. Those beyond [`MAX_CUTS`], and those whose positions do not grow, are left out.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut cuts: Vec<Cut> = Vec::with_capacity((bytes.len() / CUT_BYTES).min(MAX_CUTS));
        for chunk in bytes.as_chunks::<CUT_BYTES>().0.iter().take(MAX_CUTS) {
            let whole = u128::from_le_bytes(*chunk);
            #[allow(clippy::cast_possible_truncation, reason = "each part is cut out of the whole")]
            let cut = Cut {
                hash: whole as u64,
                bytes: (whole >> 64) as u32,
                tokens: (whole >> 96) as u32,
            };
            if cuts.last().is_none_or(|last| last.tokens <= cut.tokens) {
                cuts.push(cut);
            }
        }
        Self { cuts, seed: 0 }
    }
}

impl FromIterator<Cut> for Prompt {
    fn from_iter<I: IntoIterator<Item = Cut>>(cuts: I) -> Self {
        let cuts = cuts.into_iter().collect();
        Self { cuts, seed: 0 }
    }
}

/// A hash of what names a session, the same at every gateway.
pub fn session_hash(name: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(2, name)
}

/// Makes the chain of a prompt from its pieces.
#[derive(Debug)]
pub struct Chain {
    state: u64,
    bytes: u64,
    tokens: u64,
    /// Bytes of text that are no whole token yet.
    rest: u64,
    /// Bytes of text since the message began.
    in_message: usize,
    cuts: Vec<Cut>,
}

impl Chain {
    /// An empty prompt. Prompts with different salts share no prefix.
    pub fn new(salt: &str) -> Self {
        Self {
            state: XxHash3_64::oneshot_with_seed(0, salt.as_bytes()),
            bytes: 0,
            tokens: 0,
            rest: 0,
            in_message: 0,
            cuts: Vec::new(),
        }
    }

    /// Text of the present message.
    pub fn text(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let left = next_cut(self.in_message) - self.in_message;
            let Some((piece, after)) = text.split_at_checked(left) else {
                self.take(text);
                return;
            };
            self.take(piece);
            self.cut();
            text = after;
        }
    }

    /// An image or a sound in the present message, by its bytes. It has a cut behind it.
    pub fn attachment(&mut self, data: &[u8]) {
        self.state = XxHash3_64::oneshot_with_seed(self.state, data);
        self.bytes += data.len() as u64;
        self.tokens += ATTACHMENT_TOKENS;
        self.cut();
    }

    /// The present message ends.
    pub fn end_message(&mut self) {
        self.in_message = 0;
        self.cut();
    }

    /// The prompt is complete.
    pub fn finish(mut self) -> Prompt {
        self.cut();
        let too_many = self.cuts.len().saturating_sub(MAX_CUTS);
        if too_many > 0 {
            self.cuts.drain(FIRST_CUTS..FIRST_CUTS + too_many);
        }
        Prompt {
            cuts: self.cuts,
            seed: 0,
        }
    }

    fn take(&mut self, piece: &[u8]) {
        self.state = XxHash3_64::oneshot_with_seed(self.state, piece);
        self.in_message += piece.len();
        self.bytes += piece.len() as u64;
        self.rest += piece.len() as u64;
        self.tokens += self.rest / BYTES_PER_TOKEN;
        self.rest %= BYTES_PER_TOKEN;
    }

    fn cut(&mut self) {
        let clip = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (bytes, tokens) = (clip(self.bytes), clip(self.tokens));
        if bytes > self.cuts.last().map_or(0, |last| last.bytes) {
            let hash = self.state;
            self.cuts.push(Cut { hash, bytes, tokens });
        }
    }
}

/// The first cut inside a message beyond this position.
fn next_cut(position: usize) -> usize {
    let first = FIRST_STEPS.into_iter().find(|step| *step > position);
    first.unwrap_or_else(|| (position / STEP + 1) * STEP)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
