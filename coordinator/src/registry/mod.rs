//! The registry of workers: the newest status of each, and who is lost.

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

use tokenbus_bus::Rhythm;
use tokenbus_protocol::{EventKind, Name, Status, WorkerReport, WorkerState};

use lateness::Lateness;
pub(crate) use models::{Model, Models};

use crate::limits::{DEPARTED_FOR, LOOK, LOST_SHOWN, MAX_FORMER, MAX_LOST, MAX_STATUSES, MAX_WORKERS, STALL, TICK};
use crate::pacer::Urgency;

/// The newest status of every worker, and when it came by the coordinator's own clock.
#[derive(Debug)]
pub(crate) struct Registry {
    lost_after: Duration,
    workers: BTreeMap<Name, Worker>,
    /// What their statuses weigh.
    bytes: usize,
    /// The last status of workers that left or were lost, so that a late one does not bring them back.
    departed: HashMap<Name, Departed>,
    /// The last report of lost workers and when it came, the last one first.
    lost: VecDeque<(WorkerReport, Instant)>,
    models: Models,
    /// Nobody is lost before this time, because the coordinator itself was away.
    excused_until: Option<Instant>,
    /// When silent workers were looked for last.
    ticked: Option<Instant>,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its newest status.
    pub(crate) status: Status,
    /// When it came.
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

/// Something to publish as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happening {
    /// The kind.
    pub(crate) kind: EventKind,
    /// The worker and its instance.
    pub(crate) worker: Option<(Name, u64)>,
    /// The model.
    pub(crate) model: Option<String>,
}

/// The effect of a status or of time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// What happened, in order.
    pub(crate) happenings: Vec<Happening>,
    /// How soon the snapshot should show it.
    pub(crate) urgency: Urgency,
}

/// Why a status was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedStatus {
    /// The same or a newer status of this instance came before.
    Stale,
    /// Its instance was replaced by another: the status is late, or two workers share one id.
    Replaced,
    /// The registry has [`MAX_WORKERS`] workers, or [`MAX_STATUSES`] bytes of them, already.
    Full,
}

impl Happening {
    fn worker(kind: EventKind, status: &Status) -> Self {
        Self {
            kind,
            worker: Some((status.report.worker.clone(), status.report.instance)),
            model: None,
        }
    }
}

impl Registry {
    /// An empty registry that declares a worker lost after `lost_after` without a status.
    pub(crate) fn new(lost_after: Duration) -> Self {
        Self {
            lost_after,
            workers: BTreeMap::new(),
            bytes: 0,
            departed: HashMap::new(),
            lost: VecDeque::new(),
            models: Models::default(),
            excused_until: None,
            ticked: None,
        }
    }

    /// All workers, by id.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// The last reports of workers that were lost lately and are not back, and when they came; the last one first.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &(WorkerReport, Instant)> {
        self.lost.iter()
    }

    /// The number of workers.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// The listed models.
    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// Takes a status that came at `now`.
    ///
    /// # Errors
    /// [`RefusedStatus`] when it is not the newest of its worker; nothing has changed then.
    pub(crate) fn observe(&mut self, status: Status, now: Instant) -> Result<Change, RefusedStatus> {
        let mut status = checked::status(status);
        self.admit(&status)?;
        self.models.clip(&mut status);
        if status.report.state == WorkerState::Stopped {
            return Ok(self.leave(&status, now));
        }
        let mut happenings = Vec::new();
        let before = self.take(&status.report.worker);
        let mut former = VecDeque::new();
        let mut lateness = Lateness::default();
        let (old, was_draining) = match before {
            Some(before) => {
                former = before.former;
                lateness = before.lateness;
                let gap = now.saturating_duration_since(before.seen);
                // A gap in which it would have been lost is the coordinator's own absence.
                if self.excused_until.is_none() && gap < self.lost_after + lateness.allowance() {
                    lateness.observe(gap);
                }
                let same_life = before.status.report.instance == status.report.instance;
                if !same_life {
                    happenings.push(Happening::worker(EventKind::WorkerLost, &before.status));
                    happenings.push(Happening::worker(EventKind::WorkerJoined, &status));
                    former.push_back(before.status.report.instance);
                    if former.len() > MAX_FORMER {
                        former.pop_front();
                    }
                }
                let draining = same_life && before.status.report.state == WorkerState::Draining;
                (Some(before.status), draining)
            }
            None => {
                happenings.push(Happening::worker(EventKind::WorkerJoined, &status));
                (None, false)
            }
        };
        if status.report.state == WorkerState::Draining && !was_draining {
            happenings.push(Happening::worker(EventKind::WorkerDraining, &status));
        }
        happenings.extend(self.models.change(old.as_ref(), Some(&status), now));
        let urgency = if happenings.is_empty() {
            urgency(old.as_ref(), &status)
        } else {
            Urgency::Structure
        };
        self.departed.remove(&status.report.worker);
        self.lost.retain(|(lost, _)| lost.worker != status.report.worker);
        self.bytes += checked::weight(&status);
        self.workers.insert(
            status.report.worker.clone(),
            Worker {
                status,
                seen: now,
                lateness,
                former,
            },
        );
        Ok(Change { happenings, urgency })
    }

    /// Whether `status` is new.
    fn admit(&self, status: &Status) -> Result<(), RefusedStatus> {
        if let Some(gone) = self.departed.get(&status.report.worker)
            && gone.instance == status.report.instance
            && status.report.seq <= gone.seq
        {
            return Err(RefusedStatus::Stale);
        }
        match self.workers.get(&status.report.worker) {
            Some(known)
                if known.status.report.instance == status.report.instance
                    && status.report.seq <= known.status.report.seq =>
            {
                Err(RefusedStatus::Stale)
            }
            // A former instance counts again only once its successor is gone. Otherwise two workers under one id
            // would replace each other every second.
            Some(known)
                if known.status.report.instance != status.report.instance
                    && (known.former.contains(&status.report.instance)
                        || status.report.state == WorkerState::Stopped) =>
            {
                Err(RefusedStatus::Replaced)
            }
            None if self.workers.len() >= MAX_WORKERS => Err(RefusedStatus::Full),
            known => {
                let before = known.map_or(0, |known| checked::weight(&known.status));
                let grows = checked::weight(status).saturating_sub(before);
                if grows > 0 && self.bytes + grows > MAX_STATUSES {
                    return Err(RefusedStatus::Full);
                }
                Ok(())
            }
        }
    }

    /// Takes a worker out.
    fn take(&mut self, name: &Name) -> Option<Worker> {
        let taken = self.workers.remove(name)?;
        self.bytes -= checked::weight(&taken.status);
        Some(taken)
    }

    /// Takes a worker's last status.
    fn leave(&mut self, status: &Status, now: Instant) -> Change {
        let mut change = Change::default();
        if let Some(known) = self.take(&status.report.worker) {
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
        // Bounded like the workers. Under a flood of ids, departures are no longer remembered.
        if self.departed.len() < MAX_WORKERS {
            let departed = Departed {
                instance: status.report.instance,
                seq: status.report.seq,
                at: now,
            };
            self.departed.insert(status.report.worker.clone(), departed);
        }
    }

    /// The coordinator was cut off or asleep, and workers may need until `until` to be heard again. Nobody is lost
    /// before that.
    pub(crate) fn excuse(&mut self, until: Instant) {
        if !self.workers.is_empty() {
            self.excused_until = self.excused_until.max(Some(until));
        }
    }

    /// Longest time between two searches for silent workers.
    fn look(&self) -> Duration {
        LOOK.min(self.lost_after / 3).max(TICK)
    }

    /// When to call [`Self::tick`] again: in `rhythm`, or before that when the next worker would have been silent for too
    /// long.
    pub(crate) fn next_look(&self, now: Instant, rhythm: Rhythm) -> Instant {
        let regular = rhythm.after(now, self.look());
        let lost = |worker: &Worker| worker.seen + self.lost_after + worker.lateness.allowance();
        let next = self.workers.values().map(lost).min();
        next.map_or(regular, |next| next.max(now + TICK).min(regular))
    }

    /// Looks for workers that have been silent for too long, and for models to forget. To be called when
    /// [`Self::next_look`] says.
    pub(crate) fn tick(&mut self, now: Instant) -> Change {
        let longest = self.look() + STALL;
        let slept = self
            .ticked
            .is_some_and(|last| now.saturating_duration_since(last) > longest);
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
        let shown = |at: Instant| now.saturating_duration_since(at) < LOST_SHOWN;
        self.lost.retain(|(_, seen)| shown(*seen));
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
            self.bytes -= checked::weight(&worker.status);
            change
                .happenings
                .push(Happening::worker(EventKind::WorkerLost, &worker.status));
            change
                .happenings
                .extend(self.models.change(Some(&worker.status), None, now));
            change.urgency = Urgency::Structure;
            self.depart(&worker.status, now);
            self.lost.push_front((worker.status.report, worker.seen));
        }
        self.lost.truncate(MAX_LOST);
    }
}

/// How soon a change of one worker from `old` to `new` should be published.
fn urgency(old: Option<&Status>, new: &Status) -> Urgency {
    let Some(old) = old else { return Urgency::Structure };
    if old.report.state != new.report.state
        || old.report.slots != new.report.slots
        || old.report.models != new.report.models
    {
        return Urgency::Structure;
    }
    if (old.report.free() == 0) != (new.report.free() == 0) {
        return Urgency::Room;
    }
    Urgency::Periodic
}
