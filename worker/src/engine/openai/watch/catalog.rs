//! The models that an engine serves: what the operator named and what the server lists, as one.

use std::collections::HashMap;

use tokenbus_protocol::{Feature, MAX_MODEL_NAME, ModelInfo, RequestKind, SlotsFrom};

use super::discover::FoundModel;
use super::probe::Discovery;
use super::question::Topic;
use super::slots::Found;
use super::traits::Traits;
use crate::engine::Overrides;
use crate::engine::openai::options::ModelSpec;
use crate::engine::openai::target::{ServerKind, Target};

/// Models by the names that clients use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Catalog {
    /// What kind of server it is.
    pub(crate) kind: ServerKind,
    /// Slots where the operator does not say.
    pub(crate) slots: u32,
    /// How those were found.
    pub(crate) slots_from: SlotsFrom,
    /// As told to the cluster.
    pub(crate) models: Vec<ModelInfo>,
    targets: HashMap<String, Target>,
}

impl Catalog {
    /// Before anything is known of the server: the named models are announced, so that the cluster
    /// knows what is being started.
    pub(crate) fn unknown(named: &[ModelSpec], overrides: Overrides) -> Self {
        Self::new(
            named,
            overrides,
            &Discovery {
                kind: ServerKind::Unknown,
                models: Vec::new(),
                slots: None,
                slots_from: SlotsFrom::Engine,
            },
        )
    }

    /// The named models, or all that the server lists when none is named.
    pub(crate) fn new(named: &[ModelSpec], overrides: Overrides, found: &Discovery) -> Self {
        let mut catalog = Self {
            kind: found.kind,
            slots: found.slots.unwrap_or_else(|| found.kind.default_slots()),
            slots_from: found.slots.map_or(SlotsFrom::Default, |_| found.slots_from),
            models: Vec::new(),
            targets: HashMap::new(),
        };
        for spec in named {
            let known = found.models.iter().find(|model| is_called(model, &spec.upstream));
            catalog.add(&spec.name, &spec.upstream, known, overrides);
        }
        if named.is_empty() {
            for model in found
                .models
                .iter()
                .filter(|model| model.id.len() <= MAX_MODEL_NAME && !model.id.is_empty())
            {
                catalog.add(&model.id, &model.id, Some(model), overrides);
            }
        }
        catalog
    }

    /// How to ask the server for a model.
    pub(crate) fn target(&self, name: &str) -> Option<&Target> {
        self.targets.get(name)
    }

    /// A model that generates, to ask the server about.
    pub(crate) fn any_generating(&self) -> Option<Topic> {
        let model = self
            .models
            .iter()
            .find(|model| model.capabilities.chat || model.capabilities.completion)?;
        Some(Topic {
            kind: RequestKind::Completion,
            upstream: self.target(&model.name)?.upstream.clone(),
        })
    }

    /// Named models that the server does not list. It may serve them all the same.
    pub(crate) fn unlisted<'a>(named: &'a [ModelSpec], found: &Discovery) -> Vec<&'a str> {
        if found.models.is_empty() {
            return Vec::new();
        }
        let listed = |spec: &&ModelSpec| found.models.iter().any(|model| is_called(model, &spec.upstream));
        named
            .iter()
            .filter(|spec| !listed(spec))
            .map(|spec| spec.upstream.as_str())
            .collect()
    }

    fn add(&mut self, name: &str, upstream: &str, found: Option<&FoundModel>, overrides: Overrides) {
        let traits = found.map_or_else(|| Traits::of(self.kind, upstream), |model| model.traits);
        let traits = traits.overruled(overrides);
        let info = ModelInfo {
            name: name.to_owned(),
            context_length: found.and_then(|model| model.context),
            capabilities: traits.capabilities(),
        };
        let target = Target {
            upstream: upstream.to_owned(),
            kind: self.kind,
            context: info.context_length,
            continuation: traits.continuation,
            tools: traits.told(Feature::Tools),
            vision: traits.told(Feature::Vision),
        };
        if self.targets.insert(name.to_owned(), target).is_none() {
            self.models.push(info);
        }
    }
}

/// Ollama takes `name` for `name:latest`.
fn is_called(model: &FoundModel, name: &str) -> bool {
    model.id == name
        || model.aliases.iter().any(|alias| alias == name)
        || model.id.strip_suffix(":latest").is_some_and(|short| short == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn found(kind: ServerKind, ids: &[&str]) -> Discovery {
        let model = |id: &&str| FoundModel {
            id: (*id).to_owned(),
            context: Some(4096),
            aliases: vec![format!("{id}-alias")],
            traits: Traits::of(kind, id),
        };
        Discovery {
            kind,
            models: ids.iter().map(model).collect(),
            slots: None,
            slots_from: SlotsFrom::Engine,
        }
    }

    fn names(catalog: &Catalog) -> Vec<&str> {
        catalog.models.iter().map(|model| model.name.as_str()).collect()
    }

    #[test]
    fn all_listed_models_are_served_when_none_is_named() {
        let catalog = Catalog::new(
            &[],
            Overrides::default(),
            &found(ServerKind::Vllm, &["a", "b", "", &"x".repeat(300)]),
        );
        assert_eq!(names(&catalog), ["a", "b"]);
        assert_eq!(catalog.target("a").unwrap().upstream, "a");
        assert_eq!(catalog.models[0].context_length, Some(4096));
        assert!(catalog.target("c").is_none());
    }

    #[test]
    fn named_models_are_served_under_their_name_and_no_others() {
        let named = [
            "small=a".parse().unwrap(),
            "b-alias".parse().unwrap(),
            "gone".parse().unwrap(),
        ];
        let found = found(ServerKind::Vllm, &["a", "b", "c"]);
        let catalog = Catalog::new(&named, Overrides::default(), &found);
        assert_eq!(names(&catalog), ["small", "b-alias", "gone"]);
        assert_eq!(catalog.target("small").unwrap().upstream, "a");
        assert_eq!(
            catalog.models.iter().map(|m| m.context_length).collect::<Vec<_>>(),
            [Some(4096), Some(4096), None]
        );
        assert_eq!(Catalog::unlisted(&named, &found), ["gone"]);
    }

    #[test]
    fn a_server_that_lists_nothing_serves_what_was_named() {
        let named = ["a".parse().unwrap()];
        let catalog = Catalog::unknown(&named, Overrides::default());
        assert_eq!(names(&catalog), ["a"]);
        assert!(Catalog::unlisted(&named, &found(ServerKind::Unknown, &[])).is_empty());
        assert!(Catalog::unknown(&[], Overrides::default()).models.is_empty());
    }

    #[test]
    fn slots_are_what_is_told_or_the_default() {
        assert_eq!(
            Catalog::new(&[], Overrides::default(), &found(ServerKind::Ollama, &[])).slots,
            1
        );
        let told = Discovery {
            slots: Some(7),
            ..found(ServerKind::Vllm, &[])
        };
        assert_eq!(Catalog::new(&[], Overrides::default(), &told).slots, 7);
    }

    #[test]
    fn ollamas_latest_needs_no_tag_and_names_are_unique() {
        let named = ["llama3".parse().unwrap()];
        assert!(Catalog::unlisted(&named, &found(ServerKind::Ollama, &["llama3:latest"])).is_empty());
        assert_eq!(
            names(&Catalog::new(
                &[],
                Overrides::default(),
                &found(ServerKind::Vllm, &["a", "a"])
            )),
            ["a"]
        );
    }
}
