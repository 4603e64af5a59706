//! A short memory of requests of which engines died, here or at another gateway. A client that sends such a request
//! again must not take down the next engines.
//!
//! Other gateways are told a salted SHA-256 of the request. It is strong, so nobody on the bus finds a prompt in it
//! other than by guessing the whole body, and salted, so that no guess is checked against two messages at once. A keyed
//! hash would need a secret that all gateways share, and there is none.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};
use tokenbus_protocol::{DeadlyRequest, Name};
use tokio::time::Instant;

use crate::call::Call;
use crate::limits::{DEADLY_HEARD, DEADLY_KEPT, DEADLY_TIME};

/// A request's model and body, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestHash([u8; 32]);

impl RequestHash {
    /// Of `call`. This reads the whole body.
    pub(crate) fn of(call: &Call) -> Self {
        let mut hasher = Sha256::new();
        hasher.update((call.model.len() as u64).to_be_bytes());
        hasher.update(&call.model);
        hasher.update(&call.body);
        Self(hasher.finalize().into())
    }

    /// What other gateways are told.
    pub(crate) fn told(&self, gateway: Name, salt: [u8; 16]) -> DeadlyRequest {
        let digest = self.salted(salt);
        DeadlyRequest { gateway, salt, digest }
    }

    fn salted(&self, salt: [u8; 16]) -> [u8; 32] {
        Sha256::new().chain_update(salt).chain_update(self.0).finalize().into()
    }
}

/// The deadly requests of the last [`DEADLY_TIME`].
#[derive(Debug, Default)]
pub(crate) struct Deadly {
    /// Those of which engines died here; the newest last.
    own: VecDeque<(RequestHash, Instant)>,
    /// What other gateways told; the newest last. It never displaces one of our own.
    heard: VecDeque<(DeadlyRequest, Instant)>,
}

impl Deadly {
    /// Remembers a request of which engines died here. False if it is known already.
    pub(crate) fn note(&mut self, request: RequestHash, now: Instant) -> bool {
        if self.knows(&request, now) {
            return false;
        }
        if self.own.len() >= DEADLY_KEPT {
            self.own.pop_front();
        }
        self.own.push_back((request, now));
        true
    }

    /// Remembers what another gateway told. One that tells much displaces what it told before.
    pub(crate) fn hear(&mut self, told: DeadlyRequest, now: Instant) {
        let same = |(one, _): &(DeadlyRequest, Instant)| one.gateway == told.gateway;
        let displaced = if self.heard.iter().filter(|one| same(one)).count() >= DEADLY_KEPT {
            self.heard.iter().position(same)
        } else {
            (self.heard.len() >= DEADLY_HEARD).then_some(0)
        };
        if let Some(at) = displaced {
            self.heard.remove(at);
        }
        self.heard.push_back((told, now));
    }

    /// Whether no request is known. Almost always so, and then none needs to be hashed.
    pub(crate) fn is_empty(&mut self, now: Instant) -> bool {
        forget(&mut self.own, now);
        forget(&mut self.heard, now);
        self.own.is_empty() && self.heard.is_empty()
    }

    /// Whether engines died of this request a short time ago.
    pub(crate) fn knows(&mut self, request: &RequestHash, now: Instant) -> bool {
        !self.is_empty(now)
            && (self.own.iter().any(|(own, _)| own == request)
                || self
                    .heard
                    .iter()
                    .any(|(told, _)| told.digest == request.salted(told.salt)))
    }
}

fn forget<T>(known: &mut VecDeque<(T, Instant)>, now: Instant) {
    while known.front().is_some_and(|(_, at)| now >= *at + DEADLY_TIME) {
        known.pop_front();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokenbus_protocol::{Features, RequestKind};
    use uuid::Uuid;

    use super::*;

    fn request(model: &str, body: impl Into<Bytes>) -> RequestHash {
        RequestHash::of(&Call {
            id: Uuid::now_v7(),
            kind: RequestKind::Chat,
            model: model.to_owned(),
            needs: Features::NONE,
            body: body.into(),
            prompt: tokenbus_placement::Prompt::default(),
            session: None,
            deadline: Instant::now(),
            silence: Duration::ZERO,
            priority: 0,
            tenant: None,
            address: None,
            client_id: String::new(),
            trace: tokenbus_telemetry::Trace::default(),
            not_resumable: None,
            in_one_piece: false,
            way: crate::story::Way::default(),
        })
    }

    fn told_by(gateway: &str, request: RequestHash) -> DeadlyRequest {
        request.told(Name::new(gateway).unwrap(), [7; 16])
    }

    #[test]
    fn the_same_request_is_known_for_a_time_and_no_other() {
        let (mut deadly, now) = (Deadly::default(), Instant::now());
        let poison = request("m", "poison");
        assert!(!deadly.knows(&poison, now));
        assert!(deadly.note(poison, now));
        assert!(deadly.knows(&request("m", "poison"), now) && !deadly.note(poison, now));
        for other in [request("m", "clean"), request("n", "poison"), request("mp", "oison")] {
            assert!(!deadly.knows(&other, now));
        }
        assert!(!deadly.knows(&poison, now + DEADLY_TIME) && deadly.is_empty(now + DEADLY_TIME));
    }

    #[test]
    fn what_another_gateway_tells_is_known_for_a_time() {
        let (mut deadly, now) = (Deadly::default(), Instant::now());
        let poison = request("m", "poison");
        deadly.hear(told_by("g", poison), now);
        assert!(deadly.knows(&poison, now) && !deadly.knows(&request("m", "clean"), now));
        assert!(!deadly.knows(&poison, now + DEADLY_TIME));
    }

    #[test]
    fn what_is_told_differs_from_message_to_message() {
        let poison = request("m", "poison");
        let (one, other) = (poison.salted([1; 16]), poison.salted([2; 16]));
        assert!(one != other && one != poison.0);
    }

    #[test]
    fn the_memory_is_bounded_and_nobody_displaces_what_was_seen_here() {
        let (mut deadly, now) = (Deadly::default(), Instant::now());
        let (first, own, far) = (request("m", "first"), request("m", "own"), request("m", "far"));
        deadly.note(first, now);
        deadly.hear(told_by("quiet", far), now);
        for n in 0..2 * DEADLY_KEPT {
            deadly.hear(told_by("loud", request("m", format!("{n}"))), now);
        }
        assert_eq!(deadly.heard.len(), DEADLY_KEPT + 1);
        // A single gateway that tells much displaces only itself; many names displace each other.
        assert!(deadly.knows(&far, now));
        for n in 0..2 * DEADLY_HEARD {
            deadly.hear(told_by(&format!("g{n}"), request("m", format!("{n}"))), now);
        }
        assert_eq!(deadly.heard.len(), DEADLY_HEARD);
        assert!(deadly.knows(&first, now) && !deadly.knows(&far, now));
        for n in 0..DEADLY_KEPT - 1 {
            deadly.note(request("m", format!("own {n}")), now);
        }
        assert!(deadly.knows(&first, now) && deadly.note(own, now));
        assert_eq!(deadly.own.len(), DEADLY_KEPT);
        assert!(!deadly.knows(&first, now));
    }
}
