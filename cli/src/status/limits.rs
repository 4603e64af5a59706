//! Time-outs of `status`, `top` and `trace`, with their reasons.

use std::time::Duration;

/// How long NATS may take until it is called unreachable. A person waits.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// How long a coordinator may take to answer. One that has just started answers when it has heard
/// all workers, after 1.25 s.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// How long heartbeats of coordinators are listened for: each sends two a second.
pub(super) const BEATS: Duration = Duration::from_millis(600);

/// How long workers are listened to when no coordinator answers: each reports once a second.
pub(super) const STATUSES: Duration = Duration::from_millis(1200);

/// How long gateways are listened to for a request's story. They answer at once.
pub(super) const STORIES: Duration = Duration::from_millis(800);

/// Age of the newest snapshot at which `top` says so, and asks the workers themselves: it should
/// come every second.
pub(super) const SNAPSHOT_OLD: Duration = Duration::from_secs(3);

/// How often `top` draws when nothing comes, so that ages move on and silence is seen.
pub(super) const REDRAW: Duration = Duration::from_secs(1);

/// Longest text of one cell, characters: ids are up to 64 long, model names up to 256.
pub(super) const CELL: usize = 48;

/// Models that are named in a worker's line; the others are counted.
pub(super) const MODELS_NAMED: usize = 3;
