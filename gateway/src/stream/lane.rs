//! The straight way of plain text from a worker's message to its client's bytes.
//!
//! Nearly every frame is text of the run that a stream is in, next in sequence. Such a frame means
//! the same whatever else there is: deliver it. While a stream's lane is open, the demultiplexer
//! does that on the spot: the text goes, escaped, between the two halves of a template, and the
//! stream's reader finds bytes that are ready to be written. Everything else closes the lane and
//! takes the long way, through the state machine, which is told of what passed before it looks at
//! anything else. So the state machine decides all that is to be decided, and the lane nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokenbus_api::answer::Template;
use tokenbus_protocol::{Body, Delta, Frame, Name};
use tokio::time::Instant;

use crate::limits::TEXT_KEPT;

/// Where text can leave at once, past the reader.
pub trait Outlet: Send + Sync + std::fmt::Debug {
    /// Sends `events` with `tokens` tokens in them, `gap` after what was sent before. `scratch` is
    /// room to put them together in.
    fn send(&self, events: &[u8], tokens: u64, gap: Duration, scratch: &mut Vec<u8>) -> Sent;
}

/// What became of bytes that were to be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They left.
    All,
    /// They will leave before anything else, when the reader drives its connection on.
    Kept,
    /// Something else has to leave first; nothing was sent.
    NotNow,
    /// Nothing can be sent any more.
    Broken,
}

/// How a stream's reader lets plain text be treated.
#[derive(Debug, Clone)]
pub struct Splice {
    /// What the text is written into.
    pub template: Arc<Template>,
    /// Where it may leave, past the reader.
    pub outlet: Option<Arc<dyn Outlet>>,
}

/// Which frames pass: those of one run, from its next one on.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The run's attempt.
    pub attempt: u32,
    /// Its worker.
    pub worker: Name,
    /// The number of the next frame.
    pub next_seq: u32,
    /// Whether the text itself is kept, for a `resume`.
    pub keep_text: bool,
    /// What becomes of the text.
    pub splice: Splice,
    /// When text was sent before.
    pub last: Instant,
}

/// What has passed since the reader last looked.
#[derive(Debug, Default)]
pub struct Passed {
    /// Frames.
    pub frames: u32,
    /// Completion tokens that were sent already.
    pub sent: u64,
    /// When the last of them left.
    pub sent_at: Option<Instant>,
    /// Completion tokens that wait; a delta of which its engine did not count any is one.
    pub tokens: u64,
    /// The text of all of them, where it is kept.
    pub text: String,
    /// What waits, as the client is to get it.
    pub written: BytesMut,
    /// When the last frame came.
    pub heard: Option<Instant>,
}

impl Passed {
    /// Bytes that wait.
    pub fn weight(&self) -> usize {
        self.written.len()
    }

    /// Throws away what waits.
    pub fn shed(&mut self) {
        self.tokens = 0;
        self.text = String::new();
        self.written = BytesMut::new();
    }

    /// Sends what waits where `lane` leads; false when the reader has to look after it.
    pub fn send(&mut self, lane: &mut Lane, now: Instant, scratch: &mut Vec<u8>) -> bool {
        let Some(outlet) = &lane.splice.outlet else {
            return false;
        };
        let gap = now.saturating_duration_since(lane.last);
        let sent = outlet.send(&self.written, self.tokens, gap, scratch);
        match sent {
            Sent::NotNow => return false,
            Sent::All | Sent::Kept => {
                self.sent += std::mem::take(&mut self.tokens);
                self.sent_at = Some(now);
                lane.last = now;
                self.written.clear();
            }
            Sent::Broken => self.shed(),
        }
        sent == Sent::All && self.text.len() < TEXT_KEPT
    }
}

impl Lane {
    /// Lets `frame` pass if it is of the kind that may; otherwise nothing was done.
    pub fn pass(&mut self, worker: &Name, frame: &Frame<'_>, now: Instant, passed: &mut Passed) -> bool {
        let Some(delta) = text_alone(frame) else { return false };
        if frame.attempt != self.attempt || frame.seq != self.next_seq || *worker != self.worker {
            return false;
        }
        self.next_seq = self.next_seq.wrapping_add(1);
        passed.frames += 1;
        passed.tokens += u64::from(delta.tokens).max(u64::from(!delta.text.is_empty()));
        passed.heard = Some(now);
        if self.keep_text {
            passed.text.push_str(&delta.text);
        }
        if !delta.text.is_empty() {
            self.splice.template.write(&delta.text, &mut passed.written);
        }
        true
    }
}

/// The delta of a frame that is text of the first choice and nothing else.
fn text_alone<'f>(frame: &'f Frame<'_>) -> Option<&'f Delta<'f>> {
    match &frame.body {
        Body::Delta(delta)
            if delta.choice == 0
                && delta.extra.is_none()
                && delta.finish_reason.is_none()
                && delta.token_ids.is_empty() =>
        {
            Some(delta)
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane {
            attempt: 2,
            worker: Name::new("w").unwrap(),
            next_seq: 7,
            keep_text: true,
            splice: Splice {
                template: Arc::new(Template::new("<", ">")),
                outlet: None,
            },
            last: Instant::now(),
        }
    }

    fn frame(attempt: u32, seq: u32, delta: Delta<'static>) -> Frame<'static> {
        Frame {
            stream: 1,
            attempt,
            seq,
            body: Body::Delta(delta),
        }
    }

    fn text(text: &'static str, tokens: u32) -> Delta<'static> {
        Delta {
            text: text.into(),
            tokens,
            ..Delta::default()
        }
    }

    #[test]
    fn text_in_sequence_is_written_kept_and_counted() {
        let (mut lane, mut passed) = (lane(), Passed::default());
        let (worker, now) = (lane.worker.clone(), Instant::now());
        assert!(lane.pass(&worker, &frame(2, 7, text("a\"b", 2)), now, &mut passed));
        assert!(lane.pass(&worker, &frame(2, 8, text("c", 0)), now, &mut passed));
        assert!(lane.pass(&worker, &frame(2, 9, text("", 0)), now, &mut passed));
        assert_eq!(&passed.written[..], b"<a\\\"b><c>");
        assert_eq!((passed.text.as_str(), passed.frames, passed.tokens), ("a\"bc", 3, 3));
        assert_eq!((passed.heard, lane.next_seq), (Some(now), 10));
    }

    #[test]
    fn everything_else_takes_the_long_way() {
        let worker = Name::new("w").unwrap();
        let other = Name::new("v").unwrap();
        let ended = Delta {
            finish_reason: Some("stop".to_owned()),
            ..text("x", 1)
        };
        let second = Delta {
            choice: 1,
            ..text("x", 1)
        };
        let ids = Delta {
            token_ids: vec![1],
            ..text("x", 1)
        };
        let rich = Delta {
            extra: Some(Box::default()),
            ..text("x", 1)
        };
        let alive = Frame {
            body: Body::Alive(tokenbus_protocol::Alive::default()),
            ..frame(2, 7, text("", 0))
        };
        let long_ways = [
            (&worker, frame(1, 7, text("x", 1)), "an attempt that was left"),
            (&worker, frame(3, 7, text("x", 1)), "an attempt that is not taken"),
            (&worker, frame(2, 6, text("x", 1)), "a duplicate"),
            (&worker, frame(2, 8, text("x", 1)), "a hole"),
            (&other, frame(2, 7, text("x", 1)), "another worker"),
            (&worker, frame(2, 7, ended), "an end"),
            (&worker, frame(2, 7, second), "another choice"),
            (&worker, frame(2, 7, ids), "token ids"),
            (&worker, frame(2, 7, rich), "more than text"),
            (&worker, alive, "no delta"),
        ];
        for (worker, frame, what) in long_ways {
            let (mut lane, mut passed) = (lane(), Passed::default());
            assert!(
                !lane.pass(worker, &frame, Instant::now(), &mut passed),
                "{what} must not pass"
            );
            assert_eq!((passed.frames, passed.weight(), lane.next_seq), (0, 0, 7), "{what}");
        }
    }
}
