//! A call whose answer is kept: it is gathered on its way to the client, and is in its place before
//! the client hears that it is complete. So whoever has read an answer to its end can build on it,
//! at whichever gateway.

use std::pin::Pin;

use serde_json::value::RawValue;
use tokenbus_api::Identity;
use tokenbus_api::answer::{Collect, Form as _};
use tokenbus_api::responses::Shape;
use tokenbus_api::responses::kept::Kept;
use tokenbus_protocol::Finish;

use crate::call::{CallError, CallStream, Output};
use crate::responses_store::ResponsesStore;

/// Keeps one response.
pub(crate) struct Keeper {
    pub(crate) store: ResponsesStore,
    pub(crate) tenant: Option<String>,
    /// Is told when it could not be kept.
    pub(crate) shape: Shape,
    /// What the response answers.
    pub(crate) items: Vec<Box<RawValue>>,
}

impl Keeper {
    async fn keep(self, answer: Box<dyn Collect>, finish: Finish, identity: Identity) {
        let kept = match answer
            .finish(&finish)
            .map(|response| Kept::new(&response, self.items, &identity))
        {
            Ok(Ok(kept)) => kept.encode(),
            Ok(Err(error)) => Err(error),
            // The client is told of it by the same words.
            Err(_) => return,
        };
        let result = match kept {
            Ok(kept) => {
                let put = self.store.put(self.tenant.as_deref(), &identity.id, kept).await;
                put.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = result {
            self.shape.not_kept();
            tracing::warn!(response = identity.id, error, "a response could not be kept");
        }
    }
}

/// The call, and what there is of its answer.
pub(crate) struct Keeping<S: CallStream> {
    stream: S,
    /// Until the answer is complete, or turns out to be none.
    keeper: Option<(Keeper, Box<dyn Collect>, Identity)>,
    /// Until it is in its place.
    saving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    finish: Option<Output>,
}

impl<S: CallStream> Keeping<S> {
    pub(crate) fn new(stream: S, keeper: Keeper, answer: Box<dyn Collect>, identity: Identity) -> Self {
        Self {
            stream,
            keeper: Some((keeper, answer, identity)),
            saving: None,
            finish: None,
        }
    }

    /// Looks at what the client is about to hear. Holds the finish back, and begins to save.
    fn pass(&mut self, output: Output) -> Option<Output> {
        match &output {
            Output::Accepted { .. } => {}
            Output::Anew => {
                if let Some((keeper, answer, identity)) = &mut self.keeper {
                    *answer = keeper.shape.collector(identity.clone());
                }
            }
            // Only who asks for it is given it, and who keeps an answer needs its deltas.
            Output::Written(_) => {
                if let Some((keeper, _, _)) = self.keeper.take() {
                    keeper.shape.not_kept();
                }
            }
            Output::Delta(delta) => {
                // What is no answer, or too large for one, ends with an error for the client.
                if let Some((_, answer, _)) = &mut self.keeper
                    && answer.delta(delta).is_err()
                {
                    self.keeper = None;
                }
            }
            Output::Finish(finish) => {
                if let Some((keeper, answer, identity)) = self.keeper.take() {
                    self.saving = Some(Box::pin(keeper.keep(answer, finish.clone(), identity)));
                    self.finish = Some(output);
                    return None;
                }
            }
        }
        Some(output)
    }
}

impl<S: CallStream> CallStream for Keeping<S> {
    async fn next(&mut self) -> Option<Result<Output, CallError>> {
        if self.saving.is_none() {
            match self.stream.next().await? {
                Ok(output) => {
                    if let Some(output) = self.pass(output) {
                        return Some(Ok(output));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
        // Dropped in between, it goes on with the next call.
        if let Some(saving) = &mut self.saving {
            saving.await;
            self.saving = None;
        }
        self.finish.take().map(Ok)
    }

    fn try_next(&mut self) -> Option<Result<Output, CallError>> {
        if self.saving.is_some() {
            return None;
        }
        match self.stream.try_next()? {
            Ok(output) => self.pass(output).map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}
