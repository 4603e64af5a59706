//! Who of a model's workers can do what a request needs: pure functions over what they declare.
//!
//! A worker that declares nothing at all is one of which nothing is known: it counts as able, and
//! says itself what it cannot.

use tokenbus_protocol::Features;
use tokio::time::Instant;

use crate::limits::{ABLE_MEMORY, ABLE_SETS};

/// What is known of the workers that serve a model, about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Able {
    /// Nobody is known to serve the model.
    Nobody,
    /// Whoever serves it can, as far as is known.
    All,
    /// Some can, and others are known not to.
    Some,
    /// All are known not to; this is missing where the least is.
    None(Features),
}

/// Whether an engine of these features does for `needs`.
pub fn does(features: Features, needs: Features) -> bool {
    features.is_empty() || needs.minus(features).is_empty()
}

/// Judges the features of all workers that serve a model.
pub fn judge(workers: impl Iterator<Item = Features>, needs: Features) -> Able {
    let (mut can, mut least): (bool, Option<Features>) = (false, None);
    for features in workers {
        let missing = needs.minus(features);
        if does(features, needs) {
            can = true;
        } else if least.is_none_or(|least| missing.count() < least.count()) {
            least = Some(missing);
        }
    }
    match (can, least) {
        (false, None) => Able::Nobody,
        (true, None) => Able::All,
        (true, Some(_)) => Able::Some,
        (false, Some(missing)) => Able::None(missing),
    }
}

/// What of `needs` tells the workers of a model apart: requests that differ in nothing of it can wait
/// in one line.
pub fn telling(workers: impl Iterator<Item = Features>, needs: Features) -> Features {
    workers.fold(Features::NONE, |telling, features| {
        if features.is_empty() {
            telling
        } else {
            telling.or(needs.minus(features))
        }
    })
}

/// What ready workers of a model could do lately: one that is started again must not turn a
/// request of which it is capable into a wrong one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory(Vec<(Features, Instant)>);

impl Memory {
    /// A ready worker with these features was seen.
    pub fn saw(&mut self, features: Features, now: Instant) {
        match self.0.iter_mut().find(|(known, _)| *known == features) {
            Some((_, at)) => *at = now,
            None => {
                self.0.retain(|(_, at)| now < *at + ABLE_MEMORY);
                if self.0.len() < ABLE_SETS {
                    self.0.push((features, now));
                }
            }
        }
    }

    /// Whether one that does for `needs` was there lately.
    pub fn had(&self, needs: Features, now: Instant) -> bool {
        self.0
            .iter()
            .any(|(features, at)| now < *at + ABLE_MEMORY && does(*features, needs))
    }
}

#[cfg(test)]
mod tests {
    use tokenbus_protocol::Feature::{Chat, Embeddings, Tools, Vision};

    use super::*;

    fn set(features: &[tokenbus_protocol::Feature]) -> Features {
        features.iter().copied().collect()
    }

    #[test]
    fn workers_are_judged_together() {
        let (plain, tools) = (set(&[Chat]), set(&[Chat, Tools]));
        let of = |workers: &[Features], needs: &[_]| judge(workers.iter().copied(), set(needs));
        assert_eq!(of(&[], &[Chat]), Able::Nobody);
        assert_eq!(of(&[plain, tools], &[Chat]), Able::All);
        assert_eq!(of(&[plain, tools], &[Chat, Tools]), Able::Some);
        assert_eq!(of(&[plain], &[Chat, Tools]), Able::None(Tools.into()));
        assert_eq!(of(&[plain], &[Embeddings]), Able::None(Embeddings.into()));
        assert_eq!(
            of(&[set(&[Embeddings]), set(&[Chat, Vision])], &[Chat, Tools, Vision]),
            Able::None(Tools.into()),
            "what is missing at the best of them"
        );
    }

    #[test]
    fn a_worker_that_declares_nothing_may_be_able() {
        assert_eq!(judge([Features::NONE].into_iter(), set(&[Tools])), Able::All);
        assert_eq!(
            judge([Features::NONE, set(&[Chat])].into_iter(), set(&[Tools])),
            Able::Some
        );
    }

    #[test]
    fn only_what_tells_workers_apart_makes_a_line_of_its_own() {
        let (plain, tools) = (set(&[Chat]), set(&[Chat, Tools]));
        let of = |workers: &[Features], needs: &[_]| telling(workers.iter().copied(), set(needs));
        assert_eq!(of(&[tools, tools], &[Chat, Tools]), Features::NONE);
        assert_eq!(of(&[tools, plain], &[Chat, Tools]), Tools.into());
        assert_eq!(of(&[tools, plain], &[Chat]), Features::NONE);
        assert_eq!(of(&[tools, Features::NONE], &[Chat, Tools]), Features::NONE);
        assert_eq!(of(&[], &[Chat]), Features::NONE);
    }

    #[test]
    fn what_was_there_lately_is_remembered_for_a_while() {
        let now = Instant::now();
        let mut memory = Memory::default();
        assert!(!memory.had(set(&[Tools]), now));
        memory.saw(set(&[Chat, Tools]), now);
        memory.saw(set(&[Chat]), now + ABLE_MEMORY / 2);
        assert!(memory.had(set(&[Tools]), now + ABLE_MEMORY / 2));
        assert!(!memory.had(set(&[Tools]), now + ABLE_MEMORY));
        assert!(memory.had(set(&[Chat]), now + ABLE_MEMORY));
        assert!(!memory.had(set(&[Vision]), now));
        memory.saw(Features::NONE, now);
        assert!(memory.had(set(&[Vision]), now), "who knows what it could");
    }
}
