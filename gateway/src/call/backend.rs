//! The cluster as the HTTP edge sees it: a trait, so that tests drive the edge with a scripted cluster and without a
//! bus.

use std::future::Future;

use tokenbus_api::ListedModel;
use tokenbus_protocol::{Features, Labels};

use super::error::CallError;
use super::output::Output;
use super::request::Call;
use crate::fast_path::splice::Splice;
use crate::placement::Overview;

/// Places calls and knows the models.
pub trait Backend: Clone + Send + Sync + 'static {
    /// One running call.
    type Stream: CallStream;

    /// Starts a call. Dropping the returned stream cancels it.
    fn open(&self, call: Call) -> Self::Stream;

    /// What would happen to a call for `model` with these needs, which goes only to workers with these labels, as far as
    /// is known now.
    fn prospect(&self, model: &str, needs: Features, labels: &Labels) -> Prospect;

    /// The models to list, in any order.
    fn models(&self) -> Vec<ListedModel>;

    /// The workers and models, for display.
    fn overview(&self) -> Overview;

    /// Whether requests can be served now.
    ///
    /// # Errors
    /// Why the gateway is not ready, for a human.
    fn readiness(&self) -> Result<(), String>;

    /// What is wrong although requests are served, for a human.
    fn concern(&self) -> Option<String> {
        None
    }
}

/// What would happen to a call, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prospect {
    /// A worker would take it at once, or nothing better is known.
    Room,
    /// It would wait for a slot.
    Full,
    /// It would wait until a worker has been started for it.
    Starting,
    /// The model is known, but no live worker serves it.
    NoWorker,
    /// No worker of the model has the features that the call needs.
    Cannot,
    /// No worker has announced the model.
    Unknown,
}

/// One running call: any number of outputs, then `Finish` or one error, then nothing.
pub trait CallStream: Send + 'static {
    /// Waits for the next output. `None` after `Finish` or an error. Cancel-safe: a dropped future loses no output.
    fn next(&mut self) -> impl Future<Output = Option<Result<Output, CallError>>> + Send;

    /// The next output that is ready now. The edge writes all ready outputs at once.
    fn try_next(&mut self) -> Option<Result<Output, CallError>>;

    /// From now on, plain text of the first choice may come as [`Output::Written`], made with this template, or go
    /// straight to this outlet and be reported later. `None` ends that.
    fn splice(&mut self, _splice: Option<Splice>) {}
}

// Boxed, so that futures pass a pointer to each other.
impl<S: CallStream> CallStream for Box<S> {
    fn next(&mut self) -> impl Future<Output = Option<Result<Output, CallError>>> + Send {
        S::next(self)
    }

    fn try_next(&mut self) -> Option<Result<Output, CallError>> {
        S::try_next(self)
    }

    fn splice(&mut self, splice: Option<Splice>) {
        S::splice(self, splice);
    }
}
