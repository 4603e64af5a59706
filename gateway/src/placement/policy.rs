//! The order in which a model's requests use its workers, by labels and tiers, as the model's configuration says; pure.

use std::str::FromStr;

use serde::Deserialize;
use tokenbus_protocol::{Label, LabelError, Labels};
use tokio::time::Duration;

use crate::limits::PREFERRED_MS;

/// Tiers of a model that are avoided come after all others.
const AVOIDED: u32 = 1 << 16;

/// Workers with a label, or with any of a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Selector {
    /// `name=value`.
    Label(Label),
    /// `name=*`: a label of this name, whatever its value.
    Named(String),
}

impl Selector {
    /// Whether a worker with these labels is meant.
    pub fn selects(&self, labels: &Labels) -> bool {
        match self {
            Self::Label(label) => labels.has(label),
            Self::Named(name) => labels.iter().any(|label| label.name() == name),
        }
    }
}

impl FromStr for Selector {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let Some(name) = text.strip_suffix("=*") else {
            return text.parse().map(Self::Label);
        };
        // Any value will do to check the name.
        let checked: Result<Label, LabelError> = format!("{name}=x").parse();
        checked.map_err(|_| LabelError::Form(text.to_owned()))?;
        Ok(Self::Named(name.to_owned()))
    }
}

impl TryFrom<String> for Selector {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

/// The workers of one tier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "a tier is a label such as \"site=own\" or \"provider=*\", or the number of a tier"
)]
pub enum Tier {
    /// Those that were started with this tier.
    Own(u32),
    /// Those with this label.
    Labelled(Selector),
}

/// How a model's requests use its workers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// The tiers in order; a worker is of the first that means it, or of one more after the last. Without any, workers
    /// are of the tier with which they were started.
    pub tiers: Vec<Tier>,
    /// Workers that lack one of these count as slower.
    pub prefer: Vec<Selector>,
    /// Workers with one of these are of further tiers, after all others.
    pub avoid: Vec<Selector>,
    /// A longer wait sends requests to the next tier; without it, that of the gateway counts.
    pub tier_wait: Option<Duration>,
}

/// Where a worker stands among those of a model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    /// Its tier; those of a lower one come first.
    pub tier: u32,
    /// Milliseconds by which it counts as slower than it is.
    pub handicap_ms: f32,
}

impl Standing {
    /// Its tier as it was configured, whether it is avoided or not.
    pub fn configured_tier(self) -> u32 {
        self.tier % AVOIDED
    }
}

impl Policy {
    /// Where a worker with these labels stands that was started with the tier `own`.
    #[allow(clippy::cast_precision_loss, reason = "there are few labels")]
    pub fn standing(&self, labels: &Labels, own: u32) -> Standing {
        let means = |tier: &Tier| match tier {
            Tier::Own(tier) => *tier == own,
            Tier::Labelled(selector) => selector.selects(labels),
        };
        let tier = if self.tiers.is_empty() {
            own
        } else {
            let place = self.tiers.iter().position(means).unwrap_or(self.tiers.len());
            u32::try_from(place).unwrap_or(u32::MAX)
        };
        let tier = tier.min(AVOIDED - 1);
        let avoided = self.avoid.iter().any(|selector| selector.selects(labels));
        let lacks = self.prefer.iter().filter(|selector| !selector.selects(labels)).count();
        Standing {
            tier: if avoided { tier + AVOIDED } else { tier },
            handicap_ms: PREFERRED_MS * lacks as f32 / self.prefer.len().max(1) as f32,
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Labels {
        Labels::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    fn selectors(texts: &[&str]) -> Vec<Selector> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_selector_is_a_label_or_all_of_a_name() {
        let any: Selector = "gpu=*".parse().unwrap();
        assert!(any.selects(&labels(&["gpu=a100"])) && !any.selects(&labels(&["gpus=a100"])));
        let one: Selector = "gpu=a100".parse().unwrap();
        assert!(one.selects(&labels(&["gpu=a100", "x=y"])) && !one.selects(&labels(&["gpu=h100"])));
        for wrong in ["gpu", "=*", "*=*", "gpu=a*", "gpu=", "g u=*"] {
            assert_eq!(wrong.parse::<Selector>(), Err(LabelError::Form(wrong.to_owned())));
        }
    }

    #[test]
    fn a_worker_is_of_the_first_tier_that_means_it_and_otherwise_comes_last() {
        let policy = Policy {
            tiers: vec![
                Tier::Labelled("site=own".parse().unwrap()),
                Tier::Own(1),
                Tier::Labelled("provider=*".parse().unwrap()),
            ],
            ..Policy::default()
        };
        let tier = |texts: &[&str], own| policy.standing(&labels(texts), own).tier;
        assert_eq!(tier(&["site=own", "provider=a"], 1), 0);
        assert_eq!((tier(&["provider=a"], 1), tier(&["provider=a"], 0)), (1, 2));
        assert_eq!((tier(&[], 0), tier(&["site=other"], 7)), (3, 3));
        assert_eq!(
            Policy::default().standing(&labels(&[]), 7).tier,
            7,
            "its own without any"
        );
    }

    #[test]
    fn what_is_avoided_comes_after_all_tiers_and_what_is_not_preferred_is_slower() {
        let policy = Policy {
            prefer: selectors(&["gpu=h100", "zone=a"]),
            avoid: selectors(&["spot=*"]),
            ..Policy::default()
        };
        let standing = |texts: &[&str], own| policy.standing(&labels(texts), own);
        let (avoided, reserve) = (standing(&["spot=yes"], 0), standing(&[], u32::MAX));
        assert!(avoided.tier > reserve.tier);
        assert!(standing(&["spot=yes"], 1).tier > avoided.tier);
        assert_eq!(standing(&["spot=yes"], 1).configured_tier(), 1);
        let slower = |texts: &[&str]| standing(texts, 0).handicap_ms / PREFERRED_MS;
        assert_eq!(
            [slower(&["gpu=h100", "zone=a"]), slower(&["zone=a"]), slower(&[])],
            [0.0, 0.5, 1.0]
        );
    }
}
