//! Which models are listed, and how many ready workers serve each.

use std::collections::BTreeMap;
use std::time::Instant;

use tokenbus_protocol::event::EventKind;
use tokenbus_protocol::{Capabilities, ModelInfo, Status, WorkerState};

use super::Happening;
use crate::limits::{MAX_MODELS, MODEL_LISTED_FOR};

/// The models that workers have told of, by name.
#[derive(Debug, Default)]
pub(crate) struct Models {
    listed: BTreeMap<String, Model>,
}

/// One listed model.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Ready workers that serve it.
    pub(super) ready: u32,
    /// Workers that name it, in whatever state.
    pub(super) named: u32,
    /// Since when nobody names it.
    pub(super) unnamed_since: Option<Instant>,
    /// What its last ready worker said of it.
    pub(crate) context_length: Option<u64>,
    /// See `context_length`.
    pub(crate) capabilities: Capabilities,
    /// Slots of its last ready worker.
    pub(crate) slots_per_worker: u32,
}

impl Models {
    /// All listed models, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.listed.iter().map(|(name, model)| (name.as_str(), model))
    }

    /// Whether this model is listed.
    pub(crate) fn is_listed(&self, name: &str) -> bool {
        self.listed.contains_key(name)
    }

    /// Takes the models out of `status` for which there is no room any more. What is never taken
    /// in need not be counted out.
    pub(super) fn clip(&self, status: &mut Status) {
        let mut room = MAX_MODELS.saturating_sub(self.listed.len());
        status.models.retain(|info| {
            if self.is_listed(&info.name) {
                return true;
            }
            let fits = room > 0;
            room = room.saturating_sub(1);
            fits
        });
    }

    /// A worker went from `old` to `new` (`None`: it was, or is, not there). Tells which models
    /// appeared or vanished by it.
    pub(super) fn change(&mut self, old: Option<&Status>, new: Option<&Status>, now: Instant) -> Vec<Happening> {
        if let (Some(old), Some(new)) = (old, new)
            && old.models == new.models
            && is_ready(old) == is_ready(new)
            && old.slots == new.slots
        {
            return Vec::new();
        }
        // First what comes, then what goes, so that a worker that only changes makes no model
        // vanish in between. What is compared is before and after.
        let mut touched: BTreeMap<String, bool> = BTreeMap::new();
        for info in models_of(old).chain(models_of(new)) {
            let before = self.listed.get(&info.name).is_some_and(|model| model.ready > 0);
            touched.entry(info.name.clone()).or_insert(before);
        }
        if let Some(new) = new {
            new.models.iter().for_each(|info| self.add(info, new));
        }
        if let Some(old) = old {
            old.models.iter().for_each(|info| self.remove(info, is_ready(old), now));
        }
        touched
            .into_iter()
            .filter_map(|(name, before)| self.happening(name, before))
            .collect()
    }

    fn happening(&self, name: String, before: bool) -> Option<Happening> {
        let after = self.listed.get(&name).is_some_and(|model| model.ready > 0);
        let kind = match (before, after) {
            (false, true) => EventKind::ModelAppeared,
            (true, false) => EventKind::ModelVanished,
            _ => return None,
        };
        Some(Happening {
            kind,
            worker: None,
            model: Some(name),
        })
    }

    fn add(&mut self, info: &ModelInfo, worker: &Status) {
        let model = self.listed.entry(info.name.clone()).or_default();
        model.named += 1;
        model.unnamed_since = None;
        if is_ready(worker) {
            model.ready += 1;
        }
        if is_ready(worker) || model.ready == 0 {
            model.context_length = info.context_length;
            model.capabilities = info.capabilities;
            model.slots_per_worker = worker.slots;
        }
    }

    fn remove(&mut self, info: &ModelInfo, was_ready: bool, now: Instant) {
        let Some(model) = self.listed.get_mut(&info.name) else {
            return;
        };
        model.named = model.named.saturating_sub(1);
        if was_ready {
            model.ready = model.ready.saturating_sub(1);
        }
        if model.named == 0 {
            model.unnamed_since = Some(now);
        }
    }

    /// Forgets models that nobody has named for [`MODEL_LISTED_FOR`]; tells whether there were any.
    pub(super) fn forget(&mut self, now: Instant) -> bool {
        let before = self.listed.len();
        self.listed.retain(|_, model| {
            model
                .unnamed_since
                .is_none_or(|since| now.saturating_duration_since(since) < MODEL_LISTED_FOR)
        });
        self.listed.len() != before
    }
}

fn models_of(status: Option<&Status>) -> impl Iterator<Item = &ModelInfo> {
    status.into_iter().flat_map(|status| &status.models)
}

fn is_ready(status: &Status) -> bool {
    status.state == WorkerState::Ready
}
