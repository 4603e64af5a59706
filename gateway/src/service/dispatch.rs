//! The cluster behind NATS, as the HTTP edge sees it.

use std::sync::Arc;

use tokenbus_api::ListedModel;
use tokenbus_protocol::{Features, Labels};
use tokio::time::Instant;

use crate::call::{Backend, Call, Prospect};
use crate::placement::Overview;
use crate::placement::able::Able;
use crate::shared::Shared;
use crate::stream::driver::Driver;

/// Refused subjects that `/readyz` names.
const SHOWN: usize = 4;

/// Opens calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dispatch(Arc<Shared>);

impl Dispatch {
    /// A dispatcher over the state that the gateway's streams share.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Backend for Dispatch {
    type Stream = Box<Driver>;

    fn open(&self, call: Call) -> Box<Driver> {
        Box::new(Driver::new(Arc::clone(&self.0), call))
    }

    fn prospect(&self, model: &str, needs: Features, labels: &Labels) -> Prospect {
        let waiting = self.0.waiting(model);
        let mut view = self.0.view();
        let needs = needs.or(view.require(labels));
        let live = view.is_live(model);
        let known = live || view.models().contains_key(model);
        let now = Instant::now();
        match view.able(model, needs) {
            _ if !known => Prospect::Unknown,
            Able::None(missing) if missing.unmarked().is_empty() || view.was_able(model, needs, now) => {
                Prospect::NoWorker
            }
            Able::None(_) => Prospect::Cannot,
            _ if view.starting(model, now).is_some() => Prospect::Starting,
            // Without a fresh snapshot, free slots and new workers are unknown.
            _ if !view.is_fresh(now) => Prospect::Room,
            _ if !live => Prospect::NoWorker,
            _ if waiting > 0 || view.free(model, needs) == 0 => Prospect::Full,
            _ => Prospect::Room,
        }
    }

    fn models(&self) -> Vec<ListedModel> {
        let view = self.0.view();
        let listed = view.models().iter().map(|(name, model)| ListedModel {
            name: name.to_string(),
            created: model.created,
            context_length: model.context_length,
            capabilities: model.capabilities,
            live: model.live || view.is_live(name),
        });
        listed.collect()
    }

    fn overview(&self) -> Overview {
        self.0.view().overview(&self.0.gateway, Instant::now())
    }

    fn readiness(&self) -> Result<(), String> {
        let link = self.0.bus.link();
        let link = link.borrow();
        if link.connected {
            return self.0.refused().map_or(Ok(()), Err);
        }
        // More stands in the log: strangers may read this, and the reason names addresses.
        let kind = if link.login_refused {
            "NATS refuses the login (authorization violation)"
        } else {
            "NATS is not reachable"
        };
        Err(kind.to_owned())
    }

    fn concern(&self) -> Option<String> {
        let refusals = self.0.bus.refusals();
        let refusals = refusals.borrow();
        let refused: Vec<&str> = refusals
            .subscriptions()
            .chain(refusals.publishes())
            .take(SHOWN)
            .collect();
        (!refused.is_empty()).then(|| format!("NATS refuses {}", refused.join(", ")))
    }
}
