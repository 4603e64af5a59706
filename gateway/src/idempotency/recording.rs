//! One keyed call as its readers see it: the log behind a lock, and who is woken when.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokenbus_api::Identity;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::log::{Bounds, End, Log, Read};
use crate::call::{CallError, Output, Stage};

/// A call that several requests read.
#[derive(Debug)]
pub struct Recording {
    identity: Identity,
    log: Mutex<Log>,
    /// Something was said.
    said: Notify,
    /// A reader came or went, or what it means for the call has changed.
    audience: Notify,
}

impl Recording {
    /// The recording of a call that begins, and its first reader.
    pub(super) fn new(identity: Identity, bounds: Bounds) -> (Arc<Self>, Reader) {
        let recording = Arc::new(Self {
            identity,
            log: Mutex::new(Log::new(bounds)),
            said: Notify::new(),
            audience: Notify::new(),
        });
        let first = Reader::of(&recording, None);
        (recording, first)
    }

    /// The log. Hold it for one look or change; the store is never locked meanwhile.
    // A panic while the lock is held cannot leave the log half-changed.
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the readers.
    pub(super) fn wake(&self) {
        self.said.notify_waiters();
    }

    /// One more reader, which waits until `deadline` at most; `None` when a repeat must run anew.
    pub(super) fn attach(self: &Arc<Self>, deadline: Instant) -> Option<Reader> {
        if !self.log().attach() {
            return None;
        }
        self.audience.notify_waiters();
        Some(Reader::of(self, Some(deadline)))
    }

    /// The answer will not be kept.
    pub(super) fn release(&self) {
        self.log().release();
        self.audience.notify_waiters();
    }

    /// Ends the recording; its first end counts.
    pub(super) fn end(&self, end: End) {
        self.log().end(end);
        self.wake();
    }

    /// Waits until nobody has waited for the call for `linger`; see [`Log::cancel_at`].
    pub(super) async fn abandoned(&self, linger: Duration, closing: &CancellationToken) {
        loop {
            let mut changed = pin!(self.audience.notified());
            changed.as_mut().enable();
            let closed = closing.is_cancelled();
            let at = self.log().cancel_at(linger, closed);
            match at {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    () = changed => {}
                    () = closing.cancelled(), if !closed => {}
                },
            }
        }
    }
}

/// One request's view of a recording, from the beginning. Dropped, it waits no longer.
#[derive(Debug)]
pub struct Reader {
    recording: Arc<Recording>,
    place: usize,
    deadline: Option<Instant>,
    stage: Stage,
    ended: bool,
}

impl Reader {
    fn of(recording: &Arc<Recording>, deadline: Option<Instant>) -> Self {
        Self {
            recording: Arc::clone(recording),
            place: 0,
            deadline,
            stage: Stage::FirstToken,
            ended: false,
        }
    }

    /// The members that are the same in every answer made of this recording.
    pub fn identity(&self) -> &Identity {
        &self.recording.identity
    }

    /// The next thing that was said; waits for it, and for no longer than the reader's own deadline.
    /// `None` after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Arc<Output>, CallError>> {
        loop {
            let recording = Arc::clone(&self.recording);
            let mut said = pin!(recording.said.notified());
            said.as_mut().enable();
            if self.ended {
                return None;
            }
            if let Some(found) = self.look() {
                return found;
            }
            let Some(deadline) = self.deadline else {
                said.await;
                continue;
            };
            if timeout_at(deadline, said).await.is_err() {
                self.ended = true;
                return Some(Err(CallError::Deadline { stage: self.stage }));
            }
        }
    }

    /// The next thing that was said, if there is one.
    pub fn try_next(&mut self) -> Option<Result<Arc<Output>, CallError>> {
        if self.ended { None } else { self.look().flatten() }
    }

    /// What is there now; the outer `None` when that is nothing yet.
    #[allow(clippy::option_option)] // nothing yet, and nothing ever
    fn look(&mut self) -> Option<Option<Result<Arc<Output>, CallError>>> {
        let read = self.recording.log().read(self.place);
        match read {
            Read::Wait => None,
            Read::Output(output) => {
                self.place += 1;
                if matches!(*output, Output::Delta(_)) {
                    self.stage = Stage::Generation;
                }
                self.ended = matches!(*output, Output::Finish(_));
                Some(Some(Ok(output)))
            }
            Read::Failed(error) => {
                self.ended = true;
                Some(Some(Err(error)))
            }
            Read::Ended => {
                self.ended = true;
                Some(None)
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.recording.log().detach(Instant::now());
        self.recording.audience.notify_waiters();
    }
}
