//! What one keyed call has said so far, pure: a log that any number of readers read, each at its own
//! place.
//!
//! While the answer is to be kept the log holds all of it. Once it is not (it has grown too large)
//! the log is a window over its newest outputs, and a reader that falls out of it is too slow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokenbus_protocol::{EngineError, ErrorCode};
use tokio::time::Instant;

use crate::call::{CallError, Output};

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// With its `Finish`, which is in the log.
    Finished,
    /// With an error.
    Failed(CallError),
    /// Without a word, which no core does.
    Silent,
    /// Nobody waited for it any more.
    Abandoned,
}

/// What a reader finds at its place.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// The next output.
    Output(Arc<Output>),
    /// Nothing yet.
    Wait,
    /// The call has failed.
    Failed(CallError),
    /// Nothing follows.
    Ended,
}

/// What one call has said so far.
#[derive(Debug)]
pub struct Log {
    outputs: VecDeque<Arc<Output>>,
    /// Place of the first output that is still here.
    first: usize,
    bytes: usize,
    bounds: Bounds,
    whole: bool,
    answered: bool,
    end: Option<End>,
    readers: usize,
    alone_since: Option<Instant>,
}

/// What a log may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of an answer that is kept.
    pub answer: usize,
    /// Bytes that a reader may be behind in an answer that is not kept.
    pub window: usize,
    /// Choices that its API knows.
    pub choices: u32,
}

impl Log {
    /// The log of a call that begins, with one reader.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            outputs: VecDeque::new(),
            first: 0,
            bytes: 0,
            bounds,
            whole: true,
            answered: false,
            end: None,
            readers: 1,
            alone_since: None,
        }
    }

    /// The call said something; returns its bytes.
    pub fn push(&mut self, output: Output) -> usize {
        let weight = weight(&output);
        match &output {
            // No client can be told of a choice beyond the API's bound.
            Output::Delta(delta) if delta.choice >= self.bounds.choices => self.release(),
            Output::Delta(_) => self.answered = true,
            // Only who asks for it is given it, and a recording does not.
            Output::Written(_) => self.release(),
            Output::Accepted { .. } | Output::Anew => {}
            Output::Finish(_) => self.end = Some(End::Finished),
        }
        self.bytes += weight;
        self.outputs.push_back(Arc::new(output));
        if self.whole && self.bytes > self.bounds.answer {
            self.release();
        }
        self.trim();
        weight
    }

    /// The call ended otherwise; its first end counts.
    pub fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The answer will not be kept.
    pub fn release(&mut self) {
        self.whole = false;
        self.trim();
    }

    fn trim(&mut self) {
        while !self.whole && self.bytes > self.bounds.window {
            let Some(oldest) = self.outputs.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(weight(&oldest));
            self.first += 1;
        }
    }

    /// What is at `place`, counted from the call's beginning.
    pub fn read(&self, place: usize) -> Read {
        let Some(index) = place.checked_sub(self.first) else {
            return Read::Failed(CallError::SlowClient);
        };
        match (self.outputs.get(index), &self.end) {
            (Some(output), _) => Read::Output(Arc::clone(output)),
            (None, None) => Read::Wait,
            (None, Some(End::Failed(error))) => Read::Failed(error.clone()),
            (None, Some(End::Finished | End::Silent | End::Abandoned)) => Read::Ended,
        }
    }

    /// Whether all that was said is still here and will be kept if the call ends well.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether the call has ended.
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether a repeat gets this answer, as far as it has come: it is whole and has not failed in a
    /// way that another try may mend.
    pub fn is_repeatable(&self) -> bool {
        self.whole
            && match &self.end {
                None => true,
                Some(End::Finished) => self.answered,
                Some(End::Failed(error)) => is_lasting(error),
                Some(End::Silent | End::Abandoned) => false,
            }
    }

    /// One more reader; `false` when a repeat must run anew.
    pub fn attach(&mut self) -> bool {
        let joins = self.is_repeatable();
        if joins {
            self.readers += 1;
            self.alone_since = None;
        }
        joins
    }

    /// One reader less, at `now`.
    pub fn detach(&mut self, now: Instant) {
        self.readers = self.readers.saturating_sub(1);
        if self.readers == 0 {
            self.alone_since = Some(now);
        }
    }

    /// When the call is to be cancelled because nobody waits for it; `None` while somebody does. A
    /// call that no repeat can find, because of `closing` or because it is not kept, has no time
    /// beyond its last reader.
    pub fn cancel_at(&self, linger: Duration, closing: bool) -> Option<Instant> {
        let since = self.alone_since?;
        let linger = if closing || !self.whole { Duration::ZERO } else { linger };
        Some(since + linger)
    }

    /// Ends the call because nobody waits for it; `false` when somebody does after all.
    pub fn abandon(&mut self) -> bool {
        let alone = self.readers == 0;
        if alone {
            self.end(End::Abandoned);
        }
        alone
    }
}

/// Whether another try would fail in the same way: the engine has looked at the request and refused
/// it for what it is. Everything else may pass.
fn is_lasting(error: &CallError) -> bool {
    let CallError::Engine(EngineError { code, retryable, .. }) = error else {
        return false;
    };
    !retryable
        && matches!(
            code,
            ErrorCode::BadRequest | ErrorCode::ContextLengthExceeded | ErrorCode::ContentFilter | ErrorCode::TooLarge
        )
}

/// Bytes that an output costs in a log.
fn weight(output: &Output) -> usize {
    // The output itself with its counts, and its place in the queue.
    const FIXED: usize = size_of::<Output>() + 3 * size_of::<usize>();
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let heap = match output {
        Output::Accepted { worker, .. } => worker.as_str().len(),
        Output::Anew => 0,
        Output::Written(written) => written.events.len(),
        Output::Delta(delta) => {
            let extra = delta.extra.as_deref().map_or(0, |extra| {
                size_of_val(extra) + extra.weight() + text(&extra.fingerprint)
            });
            delta.text.len() + size_of_val(delta.token_ids.as_slice()) + text(&delta.finish_reason) + extra
        }
        Output::Finish(finish) => {
            let raw = [&finish.usage, &finish.chunk];
            raw.into_iter().flatten().map(|json| json.get().len()).sum()
        }
    };
    FIXED + heap
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
