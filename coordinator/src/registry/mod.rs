//! What is known of every worker: the newest status of each, and who is lost.

mod checked;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests only")]
pub(crate) mod fixture;
mod lateness;
mod models;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod storm_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokenbus_protocol::event::EventKind;
use tokenbus_protocol::{Name, Status, WorkerState};

use lateness::Lateness;
pub(crate) use models::{Model, Models};

use crate::limits::{DEPARTED_FOR, MAX_FORMER, MAX_WORKERS, STALL, TICK};
use crate::pacer::Urgency;

/// The newest status of every worker, with when it came by the coordinator's own clock.
#[derive(Debug)]
pub(crate) struct Registry {
    lost_after: Duration,
    workers: BTreeMap<Name, Worker>,
    /// The last status of workers that left or were lost, so that a late one brings nobody back.
    departed: HashMap<Name, Departed>,
    models: Models,
    /// Until then nobody is lost: the coordinator itself was away.
    excused_until: Option<Instant>,
    ticked: Option<Instant>,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its newest status.
    pub(crate) status: Status,
    /// When that came.
    pub(crate) seen: Instant,
    /// How late its statuses come.
    lateness: Lateness,
    /// Instances that this one replaced, oldest first.
    former: VecDeque<u64>,
}

#[derive(Debug)]
struct Departed {
    instance: u64,
    seq: u64,
    at: Instant,
}

/// Something that the cluster should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happening {
    /// What.
    pub(crate) kind: EventKind,
    /// Which worker, and which life of it.
    pub(crate) worker: Option<(Name, u64)>,
    /// Which model.
    pub(crate) model: Option<String>,
}

/// What a status or the time changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// What happened, in order.
    pub(crate) happenings: Vec<Happening>,
    /// How soon the snapshot should tell it.
    pub(crate) urgency: Urgency,
}

/// Why a status was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A newer one of the same instance came before it, or the same one.
    Stale,
    /// It is of an instance that another one replaced: late, or two workers share one id.
    Replaced,
    /// There are [`MAX_WORKERS`] already.
    Full,
}

impl Happening {
    fn worker(kind: EventKind, status: &Status) -> Self {
        Self {
            kind,
            worker: Some((status.worker.clone(), status.instance)),
            model: None,
        }
    }
}

impl Worker {
    /// Slots in which a new request would start at once.
    pub(crate) fn free(status: &Status) -> u32 {
        status.slots.saturating_sub(status.active).saturating_sub(status.queued)
    }
}

impl Registry {
    /// An empty registry that takes a worker for lost after `lost_after` without a status.
    pub(crate) fn new(lost_after: Duration) -> Self {
        Self {
            lost_after,
            workers: BTreeMap::new(),
            departed: HashMap::new(),
            models: Models::default(),
            excused_until: None,
            ticked: None,
        }
    }

    /// All workers, by id.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// How many workers there are.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// The models that are listed.
    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// Takes a status that came at `now`.
    ///
    /// # Errors
    /// [`Refused`] when it is not the newest of its worker; nothing has changed then.
    pub(crate) fn observe(&mut self, status: Status, now: Instant) -> Result<Change, Refused> {
        let mut status = checked::status(status);
        self.admit(&status)?;
        self.models.clip(&mut status);
        if status.state == WorkerState::Stopped {
            return Ok(self.leave(&status, now));
        }
        let mut happenings = Vec::new();
        let before = self.workers.remove(&status.worker);
        let mut former = VecDeque::new();
        let mut lateness = Lateness::default();
        let (old, was_draining) = match before {
            Some(before) => {
                former = before.former;
                lateness = before.lateness;
                let gap = now.saturating_duration_since(before.seen);
                // A gap for which it would have been lost is the coordinator's own absence.
                if self.excused_until.is_none() && gap < self.lost_after + lateness.allowance() {
                    lateness.observe(gap);
                }
                let same_life = before.status.instance == status.instance;
                if !same_life {
                    happenings.push(Happening::worker(EventKind::WorkerLost, &before.status));
                    happenings.push(Happening::worker(EventKind::WorkerJoined, &status));
                    former.push_back(before.status.instance);
                    if former.len() > MAX_FORMER {
                        former.pop_front();
                    }
                }
                let draining = same_life && before.status.state == WorkerState::Draining;
                (Some(before.status), draining)
            }
            None => {
                happenings.push(Happening::worker(EventKind::WorkerJoined, &status));
                (None, false)
            }
        };
        if status.state == WorkerState::Draining && !was_draining {
            happenings.push(Happening::worker(EventKind::WorkerDraining, &status));
        }
        happenings.extend(self.models.change(old.as_ref(), Some(&status), now));
        let urgency = if happenings.is_empty() {
            urgency(old.as_ref(), &status)
        } else {
            Urgency::Structure
        };
        self.departed.remove(&status.worker);
        self.workers.insert(
            status.worker.clone(),
            Worker {
                status,
                seen: now,
                lateness,
                former,
            },
        );
        Ok(Change { happenings, urgency })
    }

    /// Whether `status` is news.
    fn admit(&self, status: &Status) -> Result<(), Refused> {
        if let Some(gone) = self.departed.get(&status.worker)
            && gone.instance == status.instance
            && status.seq <= gone.seq
        {
            return Err(Refused::Stale);
        }
        match self.workers.get(&status.worker) {
            Some(known) if known.status.instance == status.instance && status.seq <= known.status.seq => {
                Err(Refused::Stale)
            }
            // A former instance may be listened to again only once its successor is gone: two
            // workers under one id would otherwise replace each other every second.
            Some(known)
                if known.status.instance != status.instance
                    && (known.former.contains(&status.instance) || status.state == WorkerState::Stopped) =>
            {
                Err(Refused::Replaced)
            }
            None if self.workers.len() >= MAX_WORKERS => Err(Refused::Full),
            Some(_) | None => Ok(()),
        }
    }

    /// A worker's last word.
    fn leave(&mut self, status: &Status, now: Instant) -> Change {
        let mut change = Change::default();
        if let Some(known) = self.workers.remove(&status.worker) {
            change.happenings.push(Happening::worker(EventKind::WorkerLeft, status));
            change
                .happenings
                .extend(self.models.change(Some(&known.status), None, now));
            change.urgency = Urgency::Structure;
        }
        self.depart(status, now);
        change
    }

    fn depart(&mut self, status: &Status, now: Instant) {
        // Bounded like the workers themselves; under a flood of ids the oldest memory is worth least.
        if self.departed.len() < MAX_WORKERS {
            let departed = Departed {
                instance: status.instance,
                seq: status.seq,
                at: now,
            };
            self.departed.insert(status.worker.clone(), departed);
        }
    }

    /// The coordinator was cut off or asleep until `now`, and workers may need until `until` to be
    /// heard again: nobody is lost before that.
    pub(crate) fn excuse(&mut self, until: Instant) {
        if !self.workers.is_empty() {
            self.excused_until = self.excused_until.max(Some(until));
        }
    }

    /// Looks for workers that have been silent for too long, and for models to forget. To be
    /// called every [`TICK`].
    pub(crate) fn tick(&mut self, now: Instant) -> Change {
        let slept = self
            .ticked
            .is_some_and(|last| now.saturating_duration_since(last) > TICK + STALL);
        self.ticked = Some(now);
        if slept {
            self.excuse(now + self.lost_after);
        }
        let mut change = Change::default();
        if self.excused_until.is_none_or(|until| now >= until) {
            self.excused_until = None;
            self.lose_silent(now, &mut change);
        }
        self.departed
            .retain(|_, gone| now.saturating_duration_since(gone.at) < DEPARTED_FOR);
        if self.models.forget(now) {
            change.urgency = Urgency::Structure;
        }
        change
    }

    fn lose_silent(&mut self, now: Instant, change: &mut Change) {
        let lost_after = self.lost_after;
        let silent =
            |worker: &Worker| now.saturating_duration_since(worker.seen) >= lost_after + worker.lateness.allowance();
        let lost: Vec<Worker> = self
            .workers
            .extract_if(.., |_, worker| silent(worker))
            .map(|(_, lost)| lost)
            .collect();
        for worker in lost {
            change
                .happenings
                .push(Happening::worker(EventKind::WorkerLost, &worker.status));
            change
                .happenings
                .extend(self.models.change(Some(&worker.status), None, now));
            change.urgency = Urgency::Structure;
            self.depart(&worker.status, now);
        }
    }
}

/// How soon a change from `old` to `new` of one worker should be told.
fn urgency(old: Option<&Status>, new: &Status) -> Urgency {
    let Some(old) = old else { return Urgency::Structure };
    if old.state != new.state || old.slots != new.slots || old.models != new.models {
        return Urgency::Structure;
    }
    if (Worker::free(old) == 0) != (Worker::free(new) == 0) {
        return Urgency::Room;
    }
    Urgency::Periodic
}
