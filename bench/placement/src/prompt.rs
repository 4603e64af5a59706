//! Requests as the simulation sees them: a prompt is a path of segments, each of which stands for all before it.

use crate::random::mix;
use crate::time::Nanos;

/// Tokens of one block of an engine's cache.
pub const BLOCK: u32 = 16;

/// A piece of a prompt that other prompts have as a whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Stands for this text and for all text before it.
    pub id: u64,
    /// Its length.
    pub tokens: u32,
    /// Whether a message begins with it.
    pub opens_message: bool,
}

/// One request of a workload.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it arrives.
    pub at: Nanos,
    /// The prompt.
    pub prompt: Vec<Segment>,
    /// What the engine generates.
    pub answer: Segment,
    /// The conversation that it belongs to.
    pub session: u64,
}

impl Request {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt.iter().map(|segment| segment.tokens).sum()
    }
}

/// The id of the segment `text` behind the path that ends with `before`.
pub fn chain(before: u64, text: u64) -> u64 {
    mix(before.rotate_left(17) ^ mix(text))
}

/// Whole blocks that end within a segment of `tokens` tokens behind `before` tokens.
pub fn blocks(before: u32, tokens: u32) -> u32 {
    (before + tokens) / BLOCK - before / BLOCK
}

/// A prompt under construction: a conversation that grows.
#[derive(Debug, Clone, Default)]
pub struct Path {
    segments: Vec<Segment>,
}

impl Path {
    /// The id at its end.
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.id)
    }

    /// Its tokens.
    pub fn tokens(&self) -> u32 {
        self.segments.iter().map(|segment| segment.tokens).sum()
    }

    /// Adds a message that is one segment.
    pub fn message(&mut self, text: u64, tokens: u32) {
        let id = chain(self.end(), text);
        self.segments.push(Segment {
            id,
            tokens,
            opens_message: true,
        });
    }

    /// Adds a message in segments of `piece` tokens.
    pub fn message_in_pieces(&mut self, text: u64, tokens: u32, piece: u32) {
        let mut left = tokens;
        while left > 0 {
            let now = left.min(piece);
            let id = chain(self.end(), text ^ u64::from(left));
            self.segments.push(Segment {
                id,
                tokens: now,
                opens_message: left == tokens,
            });
            left -= now;
        }
    }

    /// The request that asks this, answered with `tokens` tokens, which are then part of the path.
    pub fn ask(&mut self, at: Nanos, session: u64, text: u64, tokens: u32) -> Request {
        let prompt = self.segments.clone();
        self.message(text, tokens.max(1));
        let answer = self.segments.last().copied();
        Request {
            at,
            prompt,
            answer: answer.unwrap_or(Segment {
                id: 0,
                tokens: 1,
                opens_message: true,
            }),
            session,
        }
    }
}
