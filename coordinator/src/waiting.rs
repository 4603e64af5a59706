//! The requests that wait at gateways and what became of streams that left a worker, as the gateways report. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use tokenbus_protocol::{MAX_NAME, ModelWaiting, Name, StreamsLeft, Waiting};

use crate::limits::{MAX_GATEWAYS, WAITING_BYTES, WAITING_HELD};

/// The newest message of each gateway.
#[derive(Debug, Default)]
pub(crate) struct WaitingAtGateways {
    gateways: HashMap<Name, (Instant, Waiting)>,
}

/// Bytes that a message takes, about.
fn weight(waiting: &Waiting) -> usize {
    let models = waiting.models.iter();
    let models = models.map(|model| size_of::<ModelWaiting>() + model.model.len());
    models.sum::<usize>() + waiting.left.len() * (size_of::<StreamsLeft>() + MAX_NAME)
}

impl WaitingAtGateways {
    /// Takes a gateway's message at `now`.
    pub(crate) fn note(&mut self, waiting: Waiting, now: Instant) {
        self.forget(now);
        if waiting.models.is_empty() && waiting.left.is_empty() {
            self.gateways.remove(&waiting.gateway);
            return;
        }
        let others = self.gateways.iter().filter(|(name, _)| **name != waiting.gateway);
        let (count, bytes) = others.fold((0, 0), |(count, bytes), (_, (_, told))| {
            (count + 1, bytes + weight(told))
        });
        if count < MAX_GATEWAYS && bytes + weight(&waiting) <= WAITING_BYTES {
            self.gateways.insert(waiting.gateway.clone(), (now, waiting));
        }
    }

    /// Requests that wait at `now`, by model.
    pub(crate) fn by_model(&self, now: Instant) -> BTreeMap<&str, u32> {
        let mut sums: BTreeMap<&str, u32> = BTreeMap::new();
        let heard = self.gateways.values().filter(|(at, _)| is_held(*at, now));
        for model in heard.flat_map(|(_, waiting)| &waiting.models) {
            let sum = sums.entry(&model.model).or_default();
            *sum = sum.saturating_add(model.requests);
        }
        sums
    }

    /// What became at `now` of the streams that left `worker`: how many moved, and how many failed.
    pub(crate) fn left(&self, worker: &Name, now: Instant) -> (u32, u32) {
        let heard = self.gateways.values().filter(|(at, _)| is_held(*at, now));
        let of_worker = heard.flat_map(|(_, told)| told.left.iter().filter(|left| left.worker == *worker));
        of_worker.fold((0, 0), |(moved, failed): (u32, u32), left| {
            (moved.saturating_add(left.moved), failed.saturating_add(left.failed))
        })
    }

    /// Forgets gateways that have fallen silent.
    fn forget(&mut self, now: Instant) {
        self.gateways.retain(|_, (at, _)| is_held(*at, now));
    }
}

fn is_held(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < WAITING_HELD
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(gateway: &str, models: &[(&str, u32)]) -> Waiting {
        let models = models.iter().map(|(model, requests)| ModelWaiting {
            model: (*model).to_owned(),
            requests: *requests,
        });
        Waiting {
            gateway: Name::new(gateway).unwrap(),
            models: models.collect(),
            left: vec![],
        }
    }

    #[test]
    fn what_became_of_a_workers_streams_adds_up_over_the_gateways() {
        let start = Instant::now();
        let mut waiting = WaitingAtGateways::default();
        let name = |text| Name::new(text).unwrap();
        let left = |worker, moved, failed| StreamsLeft {
            worker: name(worker),
            moved,
            failed,
        };
        for (gateway, left) in [
            ("g1", vec![left("w", 3, 1), left("x", 1, 0)]),
            ("g2", vec![left("w", 2, 0)]),
        ] {
            let (gateway, models) = (name(gateway), vec![]);
            waiting.note(Waiting { gateway, models, left }, start);
        }
        assert_eq!(waiting.left(&name("w"), start), (5, 1));
        assert_eq!(waiting.left(&name("y"), start), (0, 0));
        assert_eq!(waiting.left(&name("w"), start + WAITING_HELD), (0, 0));
    }

    #[test]
    fn the_newest_word_of_each_gateway_counts_until_it_is_silent() {
        let start = Instant::now();
        let mut waiting = WaitingAtGateways::default();
        waiting.note(told("g1", &[("a", 5), ("b", 1)]), start);
        waiting.note(told("g2", &[("a", 2)]), start);
        waiting.note(told("g1", &[("a", 3)]), start);
        assert_eq!(waiting.by_model(start), BTreeMap::from([("a", 5)]));
        waiting.note(told("g1", &[]), start);
        assert_eq!(waiting.by_model(start), BTreeMap::from([("a", 2)]));
        assert_eq!(waiting.by_model(start + WAITING_HELD), BTreeMap::new());
        let later = start + WAITING_HELD + Duration::from_secs(1);
        waiting.note(told("g3", &[("a", 1)]), later);
        assert_eq!(waiting.gateways.len(), 1, "who is silent is forgotten");
    }

    #[test]
    fn invented_gateways_do_not_fill_the_memory() {
        let start = Instant::now();
        let mut waiting = WaitingAtGateways::default();
        for number in 0..MAX_GATEWAYS + 10 {
            waiting.note(told(&format!("g{number}"), &[("a", u32::MAX)]), start);
        }
        assert_eq!(waiting.gateways.len(), MAX_GATEWAYS);
        let many: Vec<(String, u32)> = (0..1000).map(|n| (format!("{n:0>256}"), 1)).collect();
        let many: Vec<(&str, u32)> = many.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let mut large = WaitingAtGateways::default();
        for number in 0..MAX_GATEWAYS {
            large.note(told(&format!("g{number}"), &many), start);
        }
        let bytes: usize = large.gateways.values().map(|(_, told)| weight(told)).sum();
        assert!(bytes <= WAITING_BYTES && large.gateways.len() > 50, "{bytes}");
        assert_eq!(waiting.by_model(start), BTreeMap::from([("a", u32::MAX)]));
    }
}
