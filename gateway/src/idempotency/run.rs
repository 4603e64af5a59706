//! The loop of one keyed call: it drives the call, whoever reads, and cancels it when nobody does.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::log::End;
use super::recording::{Reader, Recording};
use super::store::Key;
use super::{Idempotency, limits};
use crate::call::{CallError, Output};
use crate::core::CallStream;

/// A keyed request that is the first of its kind: its call is still to be opened.
#[derive(Debug)]
pub struct Run {
    driver: Driver,
    first: Reader,
}

impl Run {
    /// The run `id` of `key`, which the store knows; `first` reads `recording`.
    pub(super) fn new(
        idempotency: Idempotency,
        key: Arc<Key>,
        id: u64,
        recording: Arc<Recording>,
        first: Reader,
    ) -> Self {
        let driver = Driver {
            idempotency,
            key,
            id,
            recording,
            unpaid: 0,
            known: true,
        };
        Self { driver, first }
    }

    /// Lets `call` run in a task of its own; the reader is for the request that began it.
    pub fn start(self, call: impl CallStream) -> Reader {
        // The task ends with its call: at the latest when the call's deadline is over, and at once
        // when nobody reads it any more while the gateway closes.
        drop(tokenbus_bus::task::spawn("keyed call", self.driver.run(call)));
        self.first
    }
}

#[derive(Debug)]
struct Driver {
    idempotency: Idempotency,
    key: Arc<Key>,
    id: u64,
    recording: Arc<Recording>,
    /// Bytes of the log that the store has not been told of.
    unpaid: usize,
    /// Whether the store still holds this run.
    known: bool,
}

impl Driver {
    async fn run(mut self, mut call: impl CallStream) {
        let recording = Arc::clone(&self.recording);
        let idempotency = self.idempotency.clone();
        let abandoned = || recording.abandoned(idempotency.options().linger, idempotency.closing());
        let mut nobody = pin!(abandoned());
        loop {
            tokio::select! {
                biased;
                happened = call.next() => {
                    self.take(happened);
                    while !recording.log().is_ended() && let Some(more) = call.try_next() {
                        self.take(Some(more));
                    }
                    self.settle();
                    recording.wake();
                }
                () = nobody.as_mut() => {
                    if recording.log().abandon() {
                        tracing::debug!(key = self.key.key, "nobody repeated a keyed request, cancelling it");
                    } else {
                        nobody.set(abandoned());
                    }
                }
            }
            if recording.log().is_ended() {
                return;
            }
        }
    }

    fn take(&mut self, happened: Option<Result<Output, CallError>>) {
        let mut log = self.recording.log();
        match happened {
            Some(Ok(output)) => self.unpaid += log.push(output),
            Some(Err(error)) => log.end(End::Failed(error)),
            None => log.end(End::Silent),
        }
    }

    /// Tells the store how much there is by now, in steps, and what has become of the call.
    fn settle(&mut self) {
        let (repeatable, ended) = {
            let log = self.recording.log();
            (log.is_repeatable(), log.is_ended())
        };
        if !self.known || repeatable && !ended && self.unpaid < limits::STEP {
            return;
        }
        let mut store = self.idempotency.store();
        self.known = repeatable && store.grow(&self.key, self.id, std::mem::take(&mut self.unpaid));
        if self.known && ended {
            store.answered(&self.key, self.id, Instant::now());
        } else if !self.known {
            store.forget(&self.key, self.id);
        }
        drop(store);
        if !self.known && !ended {
            self.recording.release();
        }
    }
}

impl Drop for Driver {
    /// However the task ends, its readers are told, and no repeat waits for it. (An answer that the
    /// store has is not touched by this.)
    fn drop(&mut self) {
        self.idempotency.store().forget(&self.key, self.id);
        let ended = End::Failed(CallError::Internal("the task of a keyed call ended".to_owned()));
        self.recording.end(ended);
    }
}
