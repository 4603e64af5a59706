//! A short memory of requests of which engines died. A client that sends such a request again must not take down the
//! next engines.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use tokio::time::Instant;

use crate::call::Call;
use crate::limits::{DEADLY_KEPT, DEADLY_TIME};

/// The hashes of deadly requests. A client cannot choose its hash: the hasher's seed is random.
#[derive(Debug, Default)]
pub(crate) struct Deadly {
    seed: RandomState,
    /// The newest last.
    known: VecDeque<(u64, Instant)>,
}

impl Deadly {
    /// Remembers `call` for a time.
    pub(crate) fn note(&mut self, call: &Call, now: Instant) {
        if self.known.len() >= DEADLY_KEPT {
            self.known.pop_front();
        }
        self.known.push_back((self.hash(call), now));
    }

    /// Whether the same request was deadly a short time ago.
    pub(crate) fn knows(&mut self, call: &Call, now: Instant) -> bool {
        while self.known.front().is_some_and(|(_, at)| now >= *at + DEADLY_TIME) {
            self.known.pop_front();
        }
        // Almost always nothing is known, and nothing is hashed.
        if self.known.is_empty() {
            return false;
        }
        let hash = self.hash(call);
        self.known.iter().any(|(known, _)| *known == hash)
    }

    fn hash(&self, call: &Call) -> u64 {
        self.seed.hash_one((&call.model, &call.body))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokenbus_protocol::{Features, RequestKind};
    use uuid::Uuid;

    use super::*;

    fn call(body: &'static str, now: Instant) -> Call {
        Call {
            id: Uuid::now_v7(),
            kind: RequestKind::Chat,
            model: "m".to_owned(),
            needs: Features::NONE,
            labels: Default::default(),
            body: Bytes::from(body),
            prompt: tokenbus_placement::Prompt::default(),
            session: None,
            deadline: now,
            silence: Duration::ZERO,
            priority: 0,
            tenant: None,
            address: None,
            client_id: String::new(),
            trace: None,
            not_resumable: None,
            in_one_piece: false,
            way: crate::story::Way::default(),
        }
    }

    #[test]
    fn the_same_request_is_known_for_a_time_and_no_other() {
        let (mut deadly, now) = (Deadly::default(), Instant::now());
        assert!(!deadly.knows(&call("poison", now), now));
        deadly.note(&call("poison", now), now);
        assert!(deadly.knows(&call("poison", now), now));
        assert!(!deadly.knows(&call("clean", now), now));
        let other = Call {
            model: "n".to_owned(),
            ..call("poison", now)
        };
        assert!(!deadly.knows(&other, now));
        assert!(!deadly.knows(&call("poison", now), now + DEADLY_TIME));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (mut deadly, now) = (Deadly::default(), Instant::now());
        deadly.note(&call("first", now), now);
        for _ in 0..DEADLY_KEPT {
            deadly.note(&call("poison", now), now);
        }
        assert_eq!(deadly.known.len(), DEADLY_KEPT);
        assert!(!deadly.knows(&call("first", now), now));
    }
}
