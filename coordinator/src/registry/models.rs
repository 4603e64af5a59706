//! The listed models, and the number of ready workers of each.

use std::collections::BTreeMap;
use std::time::Instant;

use tokenbus_protocol::{Capabilities, EventKind, ModelInfo, Name, Status, WorkerState};

use super::Happening;
use crate::limits::{MAX_MODELS, MAX_UNNAMED_PER_WORKER, MODEL_LISTED_FOR};

/// The models that workers have named, by name.
#[derive(Debug, Default)]
pub(crate) struct Models {
    listed: BTreeMap<String, Model>,
}

/// One listed model.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Ready workers that serve it.
    pub(super) ready: u32,
    /// Workers that name it, in any state.
    pub(super) named: u32,
    /// Since when no worker names it.
    pub(super) unnamed_since: Option<Instant>,
    /// The worker that named it last, once none does.
    unnamed_by: Option<Name>,
    /// The context length from its last ready worker.
    pub(crate) context_length: Option<u64>,
    /// The capabilities from its last ready worker.
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

    /// Removes those models from `status` for which there is no room. A model that never enters need not leave.
    pub(super) fn clip(&self, status: &mut Status) {
        let mut room = MAX_MODELS.saturating_sub(self.listed.len());
        status.report.models.retain(|info| {
            if self.is_listed(&info.name) {
                return true;
            }
            let fits = room > 0;
            room = room.saturating_sub(1);
            fits
        });
    }

    /// A worker's status changed from `old` to `new`; `None` means that the worker is absent. Returns the models
    /// that appeared or vanished.
    pub(super) fn change(&mut self, old: Option<&Status>, new: Option<&Status>, now: Instant) -> Vec<Happening> {
        if let (Some(old), Some(new)) = (old, new)
            && old.report.models == new.report.models
            && is_ready(old) == is_ready(new)
            && old.report.slots == new.report.slots
        {
            return Vec::new();
        }
        // Additions come before removals, so that a worker that only changes does not make a model vanish in
        // between. Only the states before and after are compared.
        let mut touched: BTreeMap<String, bool> = BTreeMap::new();
        for info in models_of(old).chain(models_of(new)) {
            let before = self.listed.get(&info.name).is_some_and(|model| model.ready > 0);
            touched.entry(info.name.clone()).or_insert(before);
        }
        if let Some(new) = new {
            new.report.models.iter().for_each(|info| self.add(info, new));
        }
        if let Some(old) = old {
            old.report.models.iter().for_each(|info| self.remove(info, old, now));
            self.forget_some_of(&old.report.worker);
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
        model.unnamed_by = None;
        if is_ready(worker) {
            model.ready += 1;
        }
        if is_ready(worker) || model.ready == 0 {
            model.context_length = info.context_length;
            model.capabilities = info.capabilities;
            model.slots_per_worker = worker.report.slots;
        }
    }

    fn remove(&mut self, info: &ModelInfo, worker: &Status, now: Instant) {
        let Some(model) = self.listed.get_mut(&info.name) else {
            return;
        };
        model.named = model.named.saturating_sub(1);
        if is_ready(worker) {
            model.ready = model.ready.saturating_sub(1);
        }
        if model.named == 0 {
            model.unnamed_since = Some(now);
            model.unnamed_by = Some(worker.report.worker.clone());
        }
    }

    /// Forgets the oldest models that `worker` left without a worker, if there are too many: one that names ever new
    /// models must not fill the list.
    fn forget_some_of(&mut self, worker: &Name) {
        let mut left: Vec<(Option<Instant>, String)> = self
            .listed
            .iter()
            .filter(|(_, model)| model.unnamed_by.as_ref() == Some(worker))
            .map(|(name, model)| (model.unnamed_since, name.clone()))
            .collect();
        let too_many = left.len().saturating_sub(MAX_UNNAMED_PER_WORKER);
        left.sort_unstable();
        for (_, name) in left.into_iter().take(too_many) {
            self.listed.remove(&name);
        }
    }

    /// Forgets models that no worker has named for [`MODEL_LISTED_FOR`]. Returns whether there were any.
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
    status.into_iter().flat_map(|status| &status.report.models)
}

fn is_ready(status: &Status) -> bool {
    status.report.state == WorkerState::Ready
}
