//! A call for a name with several models: it tries one after another until one takes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use uuid::Uuid;

use super::aliases::Target;
use super::model_table::Route;
use super::splice::Defaults;
use crate::call::{Backend, Call, CallError, CallStream, Output};
use crate::fast_path::splice::Splice;
use crate::limits::NO_WORKER_RETRY;

/// The model that a call went to last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served(Arc<Mutex<Option<String>>>);

impl Served {
    /// The model, once the call is open.
    pub(crate) fn model(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, model: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(model.to_owned());
    }
}

/// A call and the models that are left to try.
pub(crate) struct Routed<C: Backend> {
    backend: C,
    /// As the client sent it, with the model name of its request.
    call: Call,
    /// The name is an alias.
    alias: bool,
    rest: VecDeque<Target>,
    stream: Option<C::Stream>,
    /// A worker took the call, so no other model is tried.
    taken: bool,
    /// The least severe error so far, with its severity.
    error: Option<(u8, CallError)>,
    served: Served,
}

impl<C: Backend> Routed<C> {
    /// Opens `call` at the model of `route` that can take it soonest, as far as is known.
    pub(crate) fn open(backend: C, call: Call, route: &Route, served: Served) -> Self {
        let mut targets: Vec<Target> = route.targets.clone();
        if targets.len() > 1 {
            // The sort is stable, so equals keep the configured order.
            targets.sort_by_cached_key(|target| {
                let labels = call.labels.or(&target.require);
                backend.prospect(&target.model, call.all_needs(), &labels)
            });
        }
        let mut routed = Self {
            backend,
            alias: !targets.iter().all(|target| target.model == call.model),
            call,
            rest: targets.into(),
            stream: None,
            taken: false,
            error: None,
            served,
        };
        routed.advance();
        routed
    }

    /// Opens the call at the next model; false if none is left.
    fn advance(&mut self) -> bool {
        // The call before ends first.
        self.stream = None;
        let Some(target) = self.rest.pop_front() else {
            return false;
        };
        let mut call = self.call.clone();
        call.body = match filled(&call, &target) {
            Ok(body) => body,
            Err(error) => {
                self.error = Some((0, error));
                return false;
            }
        };
        if self.error.is_some() {
            // Workers remember the ids that they refused.
            call.id = Uuid::now_v7();
            tracing::debug!(call = %self.call.id, again = %call.id, model = target.model, "trying the next model");
        }
        self.served.set(&target.model);
        if !target.require.is_empty() {
            call.labels = call.labels.or(&target.require);
        }
        call.set_model(target.model);
        self.stream = Some(self.backend.open(call));
        true
    }

    /// Decides what to do with an output or error; `None` if the next model is being tried.
    fn judge(&mut self, happened: Option<Result<Output, CallError>>) -> Option<Option<Result<Output, CallError>>> {
        match happened {
            Some(Err(error)) if !self.taken => {
                let Some(severity) = severity(&error) else {
                    return Some(Some(Err(error)));
                };
                if self.error.as_ref().is_none_or(|(least, _)| severity < *least) {
                    self.error = Some((severity, self.renamed(error)));
                }
                if self.advance() {
                    return None;
                }
                Some(self.failure())
            }
            Some(Ok(output)) => {
                self.taken = true;
                Some(Some(Ok(output)))
            }
            other => Some(other),
        }
    }

    fn failure(&mut self) -> Option<Result<Output, CallError>> {
        self.error.take().map(|(_, error)| Err(error))
    }

    /// The error, with the model name that the client used.
    fn renamed(&self, error: CallError) -> CallError {
        let model = self.call.model.clone();
        match error {
            // The name exists, because it is configured.
            CallError::UnknownModel { .. } if self.alias => CallError::NoWorker {
                model,
                retry_after: NO_WORKER_RETRY,
            },
            CallError::NoWorker { retry_after, .. } => CallError::NoWorker { model, retry_after },
            CallError::Full { retry_after, .. } => CallError::Full { model, retry_after },
            CallError::WaitTooLong { wait, retry_after, .. } => CallError::WaitTooLong {
                model,
                wait,
                retry_after,
            },
            CallError::Unsupported { missing, .. } => CallError::Unsupported { model, missing },
            other => other,
        }
    }
}

/// The request's body for `target`; the client's own if nothing changes.
fn filled(call: &Call, target: &Target) -> Result<Bytes, CallError> {
    // Defaults are for generated answers. Other kinds of requests have other members.
    let none = Defaults::default();
    let defaults = if call.kind.is_generated() {
        &target.defaults
    } else {
        &none
    };
    if defaults.is_empty() && target.model == call.model {
        return Ok(call.body.clone());
    }
    let filled = defaults.fill(&call.body, &target.model);
    filled.map_err(|error| CallError::Internal(format!("the defaults of a model cannot be filled in: {error}")))
}

/// How far a model was from taking the call, for errors after which the next one is tried. The client gets the least
/// severe error.
fn severity(error: &CallError) -> Option<u8> {
    match error {
        CallError::Full { .. } | CallError::WaitTooLong { .. } => Some(0),
        CallError::NoWorker { .. } => Some(1),
        CallError::Unsupported { .. } => Some(2),
        CallError::UnknownModel { .. } => Some(3),
        _ => None,
    }
}

impl<C: Backend> CallStream for Routed<C> {
    async fn next(&mut self) -> Option<Result<Output, CallError>> {
        loop {
            let happened = match &mut self.stream {
                Some(stream) => stream.next().await,
                None => return self.failure(),
            };
            if let Some(happened) = self.judge(happened) {
                return happened;
            }
        }
    }

    fn try_next(&mut self) -> Option<Result<Output, CallError>> {
        loop {
            let happened = match &mut self.stream {
                Some(stream) => stream.try_next(),
                None => return self.failure(),
            };
            // `None` means that nothing is ready, not the end.
            let happened = happened?;
            if let Some(happened) = self.judge(Some(happened)) {
                return happened;
            }
        }
    }

    fn splice(&mut self, splice: Option<Splice>) {
        if let Some(stream) = &mut self.stream {
            stream.splice(splice);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "routed_tests.rs"]
mod tests;
