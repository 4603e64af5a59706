//! What an operator says of an engine's features.

use tokenbus_protocol::{Feature, Features};

/// It overrules what the engine tells, or what is assumed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    can: Features,
    cannot: Features,
}

/// The features are no overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverridesError {
    /// One is said to be possible and impossible.
    #[error("{0} cannot be both there and not there")]
    Both(Features),
    /// Whether an answer can be continued is known of the engine, or it is not.
    #[error("continuation can only be denied: how a partial answer is continued differs from server to server")]
    Continuation,
}

impl Overrides {
    /// The engine can do the one and not the other.
    ///
    /// # Errors
    /// [`OverridesError`] when that is a contradiction, or more than can be granted.
    pub fn new(can: Features, cannot: Features) -> Result<Self, OverridesError> {
        let both = can.and(cannot);
        if !both.is_empty() {
            Err(OverridesError::Both(both))
        } else if can.has(Feature::Continuation) {
            Err(OverridesError::Continuation)
        } else {
            Ok(Self { can, cannot })
        }
    }

    /// What is said of `feature`, if anything.
    pub fn told(self, feature: Feature) -> Option<bool> {
        match (self.can.has(feature), self.cannot.has(feature)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// `features` as they are overruled.
    pub fn apply(self, features: Features) -> Features {
        features.or(self.can).minus(self.cannot)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let (tools, vision) = (Features::from(Feature::Tools), Features::from(Feature::Vision));
        assert_eq!(Overrides::new(tools, tools), Err(OverridesError::Both(tools)));
        let continues = Overrides::new(Feature::Continuation.into(), Features::NONE);
        assert_eq!(continues, Err(OverridesError::Continuation));
        let fine = Overrides::new(tools, vision.with(Feature::Continuation)).unwrap();
        assert_eq!(
            (fine.told(Feature::Tools), fine.told(Feature::Vision)),
            (Some(true), Some(false))
        );
        assert_eq!(fine.told(Feature::Audio), None);
        assert_eq!(fine.apply(vision.with(Feature::Chat)), tools.with(Feature::Chat));
    }
}
