//! The lane of one stream: which frames pass the state machine, and what has passed.
//!
//! While the lane is open, the demultiplexer writes the text of such frames, escaped, into a template; the stream's
//! reader finds bytes that are ready to send. Every other frame closes the lane and goes through the state machine.

use bytes::BytesMut;
use tokenbus_protocol::{Body, Delta, Frame, Name};
use tokio::time::Instant;

use crate::fast_path::splice::{Sent, Splice};
use crate::limits::TEXT_KEPT;

/// Lets the frames of one run pass, from its next one on.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The run's attempt.
    pub attempt: u32,
    /// The run's worker.
    pub worker: Name,
    /// The number of the next frame.
    pub next_seq: u32,
    /// Whether the text is kept for a `resume`.
    pub keep_text: bool,
    /// Where the text goes.
    pub splice: Splice,
    /// When text was last sent.
    pub last: Instant,
}

/// What has passed since the reader last looked.
#[derive(Debug, Default)]
pub struct Passed {
    /// The number of frames.
    pub frames: u32,
    /// Completion tokens that the outlet has sent.
    pub sent: u64,
    /// When the last of them left.
    pub sent_at: Option<Instant>,
    /// Completion tokens that wait. A delta whose tokens its engine did not count is one.
    pub tokens: u64,
    /// The text of all frames, if it is kept.
    pub text: String,
    /// The events that wait, as the client gets them.
    pub written: BytesMut,
    /// When the last frame came.
    pub heard: Option<Instant>,
}

impl Passed {
    /// Bytes that wait.
    pub fn weight(&self) -> usize {
        self.written.len()
    }

    /// Throws the waiting text away.
    pub fn shed(&mut self) {
        self.tokens = 0;
        self.text = String::new();
        self.written = BytesMut::new();
    }

    /// Sends the waiting events to `lane`'s outlet; false if the reader must be woken.
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
    /// Lets `frame` pass, or returns false and does nothing.
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

/// The delta of a frame that holds only text of the first choice.
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
    use std::sync::Arc;

    use tokenbus_api::Template;

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
