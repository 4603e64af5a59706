//! What the HTTP edge needs of the core, as a trait, so that the edge is tested against a scripted
//! core and knows nothing of the bus.

use std::future::Future;

use tokenbus_api::models::ListedModel;
use tokenbus_protocol::Features;

use crate::call::{Call, CallError, Output};
use crate::fast_path::splice::Splice;
use crate::placement::view::Overview;

/// The gateway's core: places calls and knows the models.
pub trait Core: Clone + Send + Sync + 'static {
    /// One running call.
    type Stream: CallStream;

    /// Starts a call. Dropping the returned stream cancels it.
    fn open(&self, call: Call) -> Self::Stream;

    /// What would become of a call for `model` that needs this, as far as is known now.
    fn prospect(&self, model: &str, needs: Features) -> Prospect;

    /// The models that are listed, in any order.
    fn models(&self) -> Vec<ListedModel>;

    /// The workers and models, for people to look at.
    fn overview(&self) -> Overview;

    /// Whether requests can be served now.
    ///
    /// # Errors
    /// Why the gateway is not ready, for a human.
    fn readiness(&self) -> Result<(), String>;
}

/// What would become of a call; the better, the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prospect {
    /// It would be taken at once, or nobody knows better.
    Room,
    /// It would wait for a slot.
    Full,
    /// The model is known, but no live worker serves it.
    NoWorker,
    /// No worker of the model can do what it needs.
    Cannot,
    /// Nobody has announced the model.
    Unknown,
}

/// What happens to one call: any number of outputs, then `Finish` or one error, then nothing.
pub trait CallStream: Send + 'static {
    /// The next thing that happened; waits for it. `None` after `Finish` or an error. Cancel-safe:
    /// a dropped future has taken nothing.
    fn next(&mut self) -> impl Future<Output = Option<Result<Output, CallError>>> + Send;

    /// The next thing that is ready now, without waiting: what is ready leaves in one write.
    fn try_next(&mut self) -> Option<Result<Output, CallError>>;

    /// From now on, text of the first choice and nothing else may come as [`Output::Written`], made
    /// by this template, or be sent to this outlet and told of later; `None` ends that.
    fn splice(&mut self, _splice: Option<Splice>) {}
}

// In a box, so that what is handed from future to future is a pointer.
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
