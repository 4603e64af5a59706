//! Elections among many coordinators under faults, with a seed for each run.

use std::time::{Duration, Instant};

use tokenbus_protocol::{CoordinatorBeat, Name};

use crate::election::{Election, LeaseState};
use crate::limits::{BEAT_PERIOD, LEASE};
use crate::registry::fixture::at;

const STEP: Duration = Duration::from_millis(250);

/// Coordinators, with or without the lease of a JetStream.
struct World {
    all: Vec<Election>,
    leading: Vec<bool>,
    campaigning: Vec<bool>,
    /// The holder of the lease and its end; `None` without JetStream.
    lease: Option<(usize, Instant)>,
    jetstream: bool,
    /// Which coordinators run at this step; the others sleep.
    awake: Vec<bool>,
    random: fastrand::Rng,
    log: String,
}

impl World {
    fn new(count: usize, jetstream: bool, seed: u64) -> Self {
        let election = |n: usize| {
            let mut election = Election::new(Name::new(&format!("c{n}")).unwrap(), at(0.0));
            election.link(true, at(0.0));
            election
        };
        Self {
            all: (0..count).map(election).collect(),
            leading: vec![false; count],
            campaigning: vec![false; count],
            lease: None,
            jetstream,
            awake: vec![true; count],
            random: fastrand::Rng::with_seed(seed),
            log: String::new(),
        }
    }

    fn leaders(&self) -> usize {
        self.leading
            .iter()
            .zip(&self.awake)
            .filter(|(leads, awake)| **leads && **awake)
            .count()
    }

    /// One step. Each heartbeat arrives with a probability of `heard` in ten.
    fn step(&mut self, step: u32, heard: u8) {
        let now = at(0.0) + STEP * step;
        for (from, leads) in self
            .leading
            .iter()
            .enumerate()
            .filter(|(n, _)| step.is_multiple_of(2) && self.awake[*n])
        {
            let coordinator = Name::new(&format!("c{from}")).unwrap();
            for (to, election) in self.all.iter_mut().enumerate() {
                if to != from && self.awake[to] && self.random.u8(0..10) < heard {
                    election.heard(
                        CoordinatorBeat {
                            coordinator: coordinator.clone(),
                            leading: *leads,
                        },
                        now,
                    );
                }
            }
        }
        for n in 0..self.all.len() {
            if !self.awake[n] {
                continue;
            }
            let lease = self.keeper(n, now);
            let verdict = self.all[n].decide(lease, now);
            if verdict.leading != self.leading[n] {
                self.log += &format!("{step}: c{n} {}; ", if verdict.leading { "leads" } else { "resigns" });
            }
            self.leading[n] = verdict.leading;
            self.campaigning[n] = verdict.campaign;
        }
    }

    /// What the lease keeper of `n` does and knows.
    fn keeper(&mut self, n: usize, now: Instant) -> LeaseState {
        if !self.jetstream {
            return LeaseState::Absent;
        }
        let holder = self.lease.filter(|(_, until)| now < *until);
        match holder {
            _ if !self.campaigning[n] => {
                self.lease = holder.filter(|(by, _)| *by != n);
                LeaseState::Unknown
            }
            Some((by, _)) if by != n => LeaseState::Taken,
            Some((_, until)) if until.saturating_duration_since(now) > LEASE.saturating_sub(BEAT_PERIOD) => {
                LeaseState::Held { until }
            }
            Some(_) | None => {
                let until = now + LEASE;
                self.lease = Some((n, until));
                LeaseState::Held { until }
            }
        }
    }
}

/// A stormy part, in which heartbeats are lost and coordinators sleep, and then a calm one.
fn run(jetstream: bool, seed: u64) -> String {
    let mut world = World::new(5, jetstream, seed);
    for step in 0..400 {
        let calm = step >= 300;
        for n in 0..world.awake.len() {
            if calm || world.random.u8(0..40) == 0 {
                world.awake[n] = calm || !world.awake[n];
            }
        }
        world.step(step, if calm { 10 } else { 6 });
        let leaders = world.leaders();
        assert!(
            !jetstream || leaders <= 1,
            "seed {seed}: {leaders} leaders at step {step}: {}",
            world.log
        );
        assert!(
            step < 320 || leaders == 1,
            "seed {seed}: {leaders} leaders at step {step}: {}",
            world.log
        );
    }
    world.log
}

#[test]
fn with_the_lease_there_are_never_two_leaders_and_in_the_end_there_is_one() {
    for seed in 0..200 {
        run(true, seed);
    }
}

#[test]
fn by_heartbeats_alone_there_is_one_leader_in_the_end() {
    for seed in 0..200 {
        run(false, seed);
    }
}

#[test]
fn two_runs_with_one_seed_go_the_same_way() {
    assert_eq!(run(false, 7), run(false, 7));
    assert_ne!(run(false, 7), run(false, 8));
}
