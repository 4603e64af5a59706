//! Free slots are offered to the gateways that wait, in turn: the workers' own code, in virtual time.

use std::time::{Duration, Instant};

use tokenbus_placement::Turns;

use crate::time::{MILLISECOND, Nanos};

/// How long an offer holds, as at a worker.
pub(crate) const PATIENCE: Nanos = 500 * MILLISECOND;

/// The rounds of all workers.
#[derive(Debug)]
pub(crate) struct Offers {
    turns: Vec<Turns<usize>>,
    origin: Instant,
}

impl Offers {
    /// Nobody waits.
    pub(crate) fn new(workers: usize, gateways: usize) -> Self {
        let turns = || Turns::new(gateways, Duration::from_nanos(PATIENCE));
        Self {
            turns: (0..workers).map(|_| turns()).collect(),
            origin: Instant::now(),
        }
    }

    /// Of one worker.
    pub(crate) fn of(&mut self, worker: usize) -> &mut Turns<usize> {
        &mut self.turns[worker]
    }

    /// Of `free` slots, those that a gateway may take.
    pub(crate) fn free_for(&self, worker: usize, gateway: usize, free: u32) -> u32 {
        let turns = &self.turns[worker];
        if turns.is_on() {
            free.min(turns.kept_for(&gateway))
        } else {
            free
        }
    }

    /// Offers the free slots: for each gateway, how many. `now` ends old offers too.
    pub(crate) fn offer(&mut self, worker: usize, free: u32, now: Nanos) -> Vec<(usize, u32)> {
        let now = self.origin + Duration::from_nanos(now);
        let turns = &mut self.turns[worker];
        if !turns.is_on() {
            return Vec::new();
        }
        turns.lapse(now);
        let mut offered: Vec<(usize, u32)> = Vec::new();
        for gateway in turns.offer(free, now) {
            match offered.iter_mut().find(|(known, _)| *known == gateway) {
                Some((_, slots)) => *slots += 1,
                None => offered.push((gateway, 1)),
            }
        }
        offered
    }
}
