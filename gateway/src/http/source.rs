//! What an answer is made of, one output after the other: a call's own stream, or the recording of a
//! keyed one.

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;

use crate::call::{CallError, Output, Written};
use crate::core::CallStream;
use crate::idempotency::Reader;
use crate::stream::lane::Splice;

/// A call as its client sees it; see [`CallStream`] for the rules.
pub(super) trait Source: Send + 'static {
    /// An output, or a share in one that others read as well.
    type Said: Borrow<Output> + Send;

    /// The next thing that happened; waits for it. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Said, CallError>>> + Send;

    /// The next thing that is ready now.
    fn try_next(&mut self) -> Option<Result<Self::Said, CallError>>;

    /// See [`CallStream::splice`]; a source that others read as well never does it.
    fn splice(&mut self, _splice: Option<Splice>) {}

    /// The events in it, when it is text that was written as it came.
    ///
    /// # Errors
    /// What it is otherwise.
    fn written(said: Self::Said) -> Result<Written, Self::Said> {
        Err(said)
    }
}

impl<S: CallStream> Source for S {
    type Said = Output;

    fn next(&mut self) -> impl Future<Output = Option<Result<Output, CallError>>> + Send {
        CallStream::next(self)
    }

    fn try_next(&mut self) -> Option<Result<Output, CallError>> {
        CallStream::try_next(self)
    }

    fn splice(&mut self, splice: Option<Splice>) {
        CallStream::splice(self, splice);
    }

    fn written(said: Output) -> Result<Written, Output> {
        match said {
            Output::Written(written) => Ok(written),
            other => Err(other),
        }
    }
}

impl Source for Reader {
    type Said = Arc<Output>;

    fn next(&mut self) -> impl Future<Output = Option<Result<Arc<Output>, CallError>>> + Send {
        Self::next(self)
    }

    fn try_next(&mut self) -> Option<Result<Arc<Output>, CallError>> {
        Self::try_next(self)
    }
}
