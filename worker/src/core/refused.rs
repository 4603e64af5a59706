//! What NATS does not let the worker hear or say, and what is left of a model then.

use std::collections::BTreeSet;

use tokenbus_protocol::{Capabilities, Family, ModelInfo};

use crate::core::intake::Interest;

/// What NATS refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Subjects of the worker that it cannot hear.
    pub(crate) interests: BTreeSet<Interest>,
    /// Its frames do not reach gateways, or it hears no answers of its own.
    pub(crate) is_mute: bool,
}

impl Refused {
    /// Whether no request can be served.
    pub(crate) fn is_everything(&self) -> bool {
        self.is_mute || self.interests.contains(&Interest::Control)
    }

    fn takes(&self, family: Family, model: &str) -> bool {
        let is = |interest: Interest| self.interests.contains(&interest);
        is(Interest::Direct(family, model.to_owned())) || is(Interest::Queue(family, model.to_owned()))
    }

    /// What is left of `model`; `None` if nothing is.
    pub(crate) fn rest(&self, model: &ModelInfo) -> Option<ModelInfo> {
        let families = model.capabilities.families();
        let taken: Vec<Family> = families.filter(|family| self.takes(*family, &model.name)).collect();
        if taken.is_empty() {
            return Some(model.clone());
        }
        let assumed = model.capabilities.assumed;
        let mut features = model.capabilities.features();
        for family in taken {
            features = features.minus(family.features());
        }
        let mut rest = model.clone();
        rest.capabilities = Capabilities::from(features).assuming(assumed.and(features));
        rest.capabilities.families().next().is_some().then_some(rest)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_refused_family_is_taken_from_its_model_alone() {
        let model = |name: &str, tokenize| ModelInfo {
            name: name.to_owned(),
            capabilities: Capabilities {
                chat: true,
                completion: true,
                tokenize,
                ..Capabilities::default()
            },
            context_length: None,
        };
        let interests = [
            Interest::Direct(Family::Tokens, "a".to_owned()),
            Interest::Queue(Family::Generate, "b".to_owned()),
        ];
        let refused = Refused {
            interests: interests.into(),
            is_mute: false,
        };
        assert_eq!(refused.rest(&model("a", true)), Some(model("a", false)));
        assert_eq!(refused.rest(&model("b", false)), None);
        assert_eq!(refused.rest(&model("c", true)), Some(model("c", true)));
    }
}
