//! Which of a model's workers have the features that a request needs: pure functions over what the workers declare.
//!
//! A worker that declares no features at all is unknown: it counts as able, and rejects what it cannot do.

use tokenbus_protocol::Features;
use tokio::time::Instant;

use crate::limits::{ABLE_MEMORY, ABLE_SETS};

/// What is known of a model's workers, with regard to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Able {
    /// No known worker serves the model.
    Nobody,
    /// All workers that serve it are able, as far as is known.
    All,
    /// Some are able, and some are known not to be.
    Some,
    /// All are known not to be able. The features are those that the best worker lacks.
    None(Features),
}

/// What a worker with these features lacks of `needs`. One that declares nothing may have every feature, but no mark: it
/// has the labels that it tells, and no others.
fn missing(features: Features, needs: Features) -> Features {
    let missing = needs.minus(features);
    if features.unmarked().is_empty() {
        missing.marks()
    } else {
        missing
    }
}

/// Whether an engine with these features can serve `needs`.
pub(crate) fn does(features: Features, needs: Features) -> bool {
    missing(features, needs).is_empty()
}

/// Judges the features of all workers that serve a model.
pub(crate) fn judge(workers: impl Iterator<Item = Features>, needs: Features) -> Able {
    let (mut can, mut least): (bool, Option<Features>) = (false, None);
    for features in workers {
        let missing = missing(features, needs);
        if missing.is_empty() {
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

/// The part of `needs` that some workers of the model lack. Requests that agree in it can wait in one line.
pub(crate) fn distinguishing(workers: impl Iterator<Item = Features>, needs: Features) -> Features {
    workers.fold(Features::NONE, |found, features| found.or(missing(features, needs)))
}

/// What ready workers of a model could do lately. While an able worker restarts, a request that needs it must not count
/// as invalid.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct SeenFeatures(Vec<(Features, Instant)>);

impl SeenFeatures {
    /// Records a ready worker with these features.
    pub(crate) fn saw(&mut self, features: Features, now: Instant) {
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

    /// Whether a worker that can serve `needs` was there lately.
    pub(crate) fn had(&self, needs: Features, now: Instant) -> bool {
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
    fn a_mark_is_had_or_not_whatever_else_is_unknown() {
        let (eu, chat) = (Features::mark(0), set(&[Chat]));
        assert!(
            !does(Features::NONE, eu) && does(eu, eu.or(chat)),
            "features are unknown, labels are not"
        );
        assert!(!does(chat, eu.or(chat)) && does(chat.or(eu), eu.or(chat)));
        assert_eq!(judge([Features::NONE, chat].into_iter(), eu.or(chat)), Able::None(eu));
        assert_eq!(
            distinguishing([Features::NONE, chat.or(eu)].into_iter(), eu.or(chat)),
            eu
        );
    }

    #[test]
    fn only_what_tells_workers_apart_makes_a_line_of_its_own() {
        let (plain, tools) = (set(&[Chat]), set(&[Chat, Tools]));
        let of = |workers: &[Features], needs: &[_]| distinguishing(workers.iter().copied(), set(needs));
        assert_eq!(of(&[tools, tools], &[Chat, Tools]), Features::NONE);
        assert_eq!(of(&[tools, plain], &[Chat, Tools]), Tools.into());
        assert_eq!(of(&[tools, plain], &[Chat]), Features::NONE);
        assert_eq!(of(&[tools, Features::NONE], &[Chat, Tools]), Features::NONE);
        assert_eq!(of(&[], &[Chat]), Features::NONE);
    }

    #[test]
    fn what_was_there_lately_is_remembered_for_a_while() {
        let now = Instant::now();
        let mut memory = SeenFeatures::default();
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
