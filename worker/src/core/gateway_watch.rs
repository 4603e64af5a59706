//! Which gateways are still there, as far as NATS can tell.
//!
//! Twice a second each gateway that has streams here is sent a batch to which NATS answers
//! "no responders" when nobody is subscribed as that gateway. One such miss is no death: gateways
//! reconnect after a restart of NATS. A gateway is lost after several in a row, over longer than a
//! reconnect takes, during which the worker itself was connected all the time.
//!
//! Pure: it publishes nothing and reads no clock. There is no timer and no task for a stream.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokenbus_protocol::Name;

/// What tells a gateway that is away for a moment from one that is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Time between two probes of a gateway.
    pub(crate) every: Duration,
    /// Probes in a row that must find nobody.
    pub(crate) misses: u32,
    /// Time that must lie between the first and the last of them.
    pub(crate) silence: Duration,
}

/// The gateways with streams on this worker.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Patience,
    gateways: HashMap<Name, Sight>,
    last_probe: Option<Instant>,
    connection: Option<u64>,
}

#[derive(Debug, Default)]
struct Sight {
    /// The newest probe found nobody. No answer means that it was delivered.
    missed: bool,
    misses: u32,
    first: Option<Instant>,
    /// Between the first miss and the last one.
    span: Duration,
}

impl Watch {
    /// No gateways yet.
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            patience,
            gateways: HashMap::new(),
            last_probe: None,
            connection: None,
        }
    }

    /// NATS found nobody subscribed as `gateway`. True when it is gone; it is then forgotten. Only
    /// a gateway that was probed over this connection is in question.
    pub(crate) fn missed(&mut self, gateway: &Name, now: Instant) -> bool {
        let Some(sight) = self.gateways.get_mut(gateway) else {
            return false;
        };
        if !std::mem::replace(&mut sight.missed, true) {
            sight.misses += 1;
            sight.span = now.saturating_duration_since(*sight.first.get_or_insert(now));
        }
        let gone = sight.misses >= self.patience.misses && sight.span >= self.patience.silence;
        if gone {
            self.gateways.remove(gateway);
        }
        gone
    }

    /// Something came from `gateway`.
    pub(crate) fn heard(&mut self, gateway: &Name) {
        if let Some(sight) = self.gateways.get_mut(gateway) {
            *sight = Sight::default();
        }
    }

    /// Which gateways are to be probed now. `connection` is the number of the worker's own
    /// connection to NATS, `None` while there is none; `present` names the gateways that have
    /// streams here, each as often as it likes, and is only read when probes are due.
    pub(crate) fn due<'a>(
        &mut self,
        now: Instant,
        connection: Option<u64>,
        present: impl Iterator<Item = &'a Name>,
    ) -> Vec<Name> {
        let mut probe = Vec::new();
        if connection.is_none() || connection != self.connection {
            // What was missed over another connection says nothing: the server was away, too.
            self.connection = connection;
            self.gateways.clear();
            self.last_probe = Some(now);
            return probe;
        }
        let since = self.last_probe.map(|last| now.saturating_duration_since(last));
        if since.is_some_and(|since| since < self.patience.every) {
            return probe;
        }
        self.last_probe = Some(now);
        let mut before = std::mem::take(&mut self.gateways);
        for gateway in present {
            if self.gateways.contains_key(gateway) {
                continue;
            }
            let mut sight = before.remove(gateway).filter(|sight| sight.missed).unwrap_or_default();
            sight.missed = false;
            self.gateways.insert(gateway.clone(), sight);
            probe.push(gateway.clone());
        }
        probe
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits;

    const TICK: Duration = limits::TICK;
    const PATIENCE: Patience = Patience {
        every: limits::GATEWAY_PROBE_EVERY,
        misses: limits::GATEWAY_MISSES,
        silence: limits::GATEWAY_SILENCE,
    };

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// A worker whose streams are of `g`, and a bus on which `g` may be there.
    struct Scene {
        watch: Watch,
        now: Instant,
        ticks: u32,
        connection: Option<u64>,
        present: Vec<Name>,
    }

    impl Scene {
        fn new() -> Self {
            let mut scene = Self {
                watch: Watch::new(PATIENCE),
                now: Instant::now(),
                ticks: 0,
                connection: Some(1),
                present: vec![name("g"), name("g")],
            };
            scene.tick(true);
            scene
        }

        /// One tick; whether the gateway was lost. A probe that finds nobody is answered at once.
        fn tick(&mut self, there: bool) -> bool {
            self.now += TICK;
            self.ticks += 1;
            let due = self.watch.due(self.now, self.connection, self.present.iter());
            // An answer that comes twice counts once.
            due.iter()
                .any(|gateway| !there && (self.watch.missed(gateway, self.now) | self.watch.missed(gateway, self.now)))
        }

        /// Ticks for `time`; when the gateway was lost.
        fn pass(&mut self, time: Duration, there: bool) -> Option<Duration> {
            let start = self.now;
            while self.now < start + time {
                if self.tick(there) {
                    return Some(self.now - start);
                }
            }
            None
        }
    }

    #[test]
    fn a_dead_gateway_is_lost_within_five_seconds_whenever_it_dies() {
        for ticks_before in 0..8 {
            let mut scene = Scene::new();
            assert_eq!(scene.pass(TICK * ticks_before, true), None);
            let after = scene.pass(Duration::from_secs(10), false).unwrap();
            assert!(after <= Duration::from_millis(3500), "{after:?}");
            assert!(after > PATIENCE.silence, "{after:?}");
            assert_eq!(scene.watch.gateways.len(), 0);
        }
    }

    #[test]
    fn a_gateway_that_is_there_is_probed_twice_a_second_whatever_its_streams() {
        let mut scene = Scene::new();
        let mut probes = 0;
        for _ in 0..40 {
            scene.now += TICK;
            probes += scene.watch.due(scene.now, Some(1), scene.present.iter()).len();
        }
        assert_eq!(probes, 20);
        scene.present.clear();
        assert_eq!(scene.pass(Duration::from_secs(2), true), None);
        assert_eq!(scene.watch.gateways.len(), 0, "without streams it is nobody's concern");
    }

    #[test]
    fn a_gateway_that_reconnects_in_time_is_not_lost() {
        let mut scene = Scene::new();
        for _ in 0..5 {
            assert_eq!(scene.pass(Duration::from_millis(2500), false), None);
            assert_eq!(scene.pass(Duration::from_millis(1250), true), None);
        }
    }

    #[test]
    fn the_newest_probe_counts() {
        // It comes back just before the probe that would have been the last one.
        let mut scene = Scene::new();
        while scene
            .watch
            .gateways
            .values()
            .all(|sight| sight.misses < PATIENCE.misses)
        {
            assert!(!scene.tick(false));
        }
        assert_eq!(scene.pass(TICK * 3, false), None);
        assert_eq!(scene.pass(Duration::from_secs(20), true), None);
    }

    #[test]
    fn a_word_from_it_counts_as_being_there() {
        let mut scene = Scene::new();
        assert_eq!(scene.pass(Duration::from_millis(2500), false), None);
        scene.watch.heard(&name("g"));
        assert_eq!(scene.pass(Duration::from_millis(2500), false), None);
        scene.watch.heard(&name("stranger"));
        assert!(!scene.watch.missed(&name("stranger"), scene.now));
        assert_eq!(scene.watch.gateways.len(), 1);
    }

    #[test]
    fn the_workers_own_connection_must_have_held() {
        let mut scene = Scene::new();
        assert_eq!(scene.pass(Duration::from_millis(2750), false), None);
        scene.connection = None;
        assert_eq!(scene.pass(Duration::from_secs(20), false), None, "nobody can be seen");
        scene.connection = Some(2);
        let after = scene.pass(Duration::from_secs(20), false).unwrap();
        assert!(
            after >= Duration::from_millis(3500),
            "counted from the reconnect on: {after:?}"
        );
        // A reconnect between two ticks is seen, too.
        let mut scene = Scene::new();
        assert_eq!(scene.pass(Duration::from_millis(2750), false), None);
        scene.connection = Some(2);
        assert_eq!(scene.pass(Duration::from_secs(3), false), None);
    }

    #[test]
    fn one_gateways_death_is_not_anothers() {
        let mut scene = Scene::new();
        scene.present.push(name("h"));
        let mut lost = Vec::new();
        for _ in 0..40 {
            scene.now += TICK;
            let due = scene.watch.due(scene.now, Some(1), scene.present.iter());
            if due.contains(&name("h")) && scene.watch.missed(&name("h"), scene.now) {
                scene.present.retain(|gateway| *gateway != name("h"));
                lost.push(scene.now);
            }
        }
        assert_eq!(lost.len(), 1);
        assert!(scene.watch.gateways.contains_key(&name("g")));
    }
}
