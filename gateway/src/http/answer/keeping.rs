//! Stores an answer on its way to the client. The finish is held back until the answer is stored: so a client that has
//! read an answer to its end can continue from it, at any gateway.

use std::pin::Pin;

use serde_json::value::RawValue;
use tokenbus_api::{Collect, Form as _, Identity, KeptResponse, ResponseForm};
use tokenbus_protocol::Finish;

use crate::call::{CallError, CallStream, Output};
use crate::responses_store::ResponsesStore;

/// Stores one response.
pub(crate) struct Keeper {
    pub(crate) store: ResponsesStore,
    pub(crate) tenant: Option<String>,
    /// Learns if the response could not be stored.
    pub(crate) shape: ResponseForm,
    /// The input items that the response answers.
    pub(crate) items: Vec<Box<RawValue>>,
}

impl Gathering {
    async fn keep(self, finish: Finish) {
        let Self {
            keeper,
            answer,
            identity,
        } = self;
        let kept = match answer
            .finish(&finish)
            .map(|response| KeptResponse::new(&response, keeper.items, &identity))
        {
            Ok(Ok(kept)) => kept.encode(),
            Ok(Err(error)) => Err(error),
            // The client gets the same error.
            Err(_) => return,
        };
        let result = match kept {
            Ok(kept) => {
                let put = keeper.store.put(keeper.tenant.as_deref(), &identity.id, kept).await;
                put.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = result {
            keeper.shape.not_kept();
            tracing::warn!(response = identity.id, error, "a response could not be stored");
        }
    }
}

/// A call whose answer is stored.
pub(crate) struct Keeping<S: CallStream> {
    stream: S,
    /// `None` once the answer is complete or cannot be stored.
    gathering: Option<Gathering>,
    /// Stores the answer; `None` before and after.
    saving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    finish: Option<Output>,
}

/// An answer that is being gathered.
struct Gathering {
    keeper: Keeper,
    answer: Box<dyn Collect>,
    identity: Identity,
}

impl<S: CallStream> Keeping<S> {
    pub(crate) fn new(stream: S, keeper: Keeper, answer: Box<dyn Collect>, identity: Identity) -> Self {
        Self {
            stream,
            gathering: Some(Gathering {
                keeper,
                answer,
                identity,
            }),
            saving: None,
            finish: None,
        }
    }

    /// Gathers an output on its way to the client. Holds the finish back and begins to store the answer.
    fn pass(&mut self, output: Output) -> Option<Output> {
        match &output {
            Output::Accepted { .. } => {}
            Output::Anew => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.answer = gathering.keeper.shape.collector(gathering.identity.clone());
                }
            }
            // Comes only if asked for, and this needs the deltas.
            Output::Written(_) => {
                if let Some(gathering) = self.gathering.take() {
                    gathering.keeper.shape.not_kept();
                }
            }
            Output::Delta(delta) => {
                // If the answer is invalid or too large, the client gets an error.
                if let Some(gathering) = &mut self.gathering
                    && gathering.answer.delta(delta).is_err()
                {
                    self.gathering = None;
                }
            }
            Output::Finish(finish) => {
                if let Some(gathering) = self.gathering.take() {
                    self.saving = Some(Box::pin(gathering.keep(finish.clone())));
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
        // A caller that drops this future continues with the next call.
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
