//! What is known of one worker.

use std::sync::Arc;

use tokenbus_placement::{Facts, PRIOR_PREFILL, PRIOR_SERVICE_MS, PRIOR_TOKEN_MS, Pending, Trust, WorkerNumber};
use tokenbus_protocol::{Features, Labels, ModelPace, Name, Room};
use tokio::time::Instant;

use super::super::able;
use super::super::accept_clock::AcceptClock;
use super::super::policy::Standing;
use super::super::refusals::Refusals;

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Worker {
    /// Each model with its features; no features if the worker did not announce them.
    pub(super) models: Vec<(Arc<str>, Features)>,
    /// Its labels, and the marks of those that keys and models require.
    pub(super) labels: Arc<Labels>,
    pub(super) marks: Features,
    /// The tier with which it was started.
    pub(super) tier: u32,
    /// Where it stands among the workers of models that have an order of their own.
    pub(super) standings: Vec<(Arc<str>, Standing)>,
    pub(super) ready: bool,
    pub(super) slots: u32,
    pub(super) room: Room,
    pub(super) room_at: Instant,
    /// It told this gateway of a free slot, and has refused no request since.
    pub(super) claimed: bool,
    /// The median time between two tokens, in milliseconds; 0 if unknown.
    pub(super) token_ms: f64,
    /// How fast it is with each model, as it told.
    pub(super) paces: Vec<ModelPace>,
    /// Tokens of prompts that it has still to read.
    pub(super) reading: Pending,
    /// How far its claims of what it holds are relied on.
    pub(super) trust: Trust,
    /// Its number among those whose prefixes are known.
    pub(super) number: Option<WorkerNumber>,
    /// A hash of its name, the same at every gateway.
    pub(super) name: u64,
    /// When it last knew that requests wait here.
    pub(super) knows_waiting: Option<Instant>,
    /// When it was asked for all its prefixes.
    pub(super) asked_at: Option<Instant>,
    /// Our requests that were published to it and not answered yet.
    pub(super) pending: u32,
    /// Those of them whose answer has arrived and is not taken in yet: what it tells of its room counts them already.
    pub(super) answered: u32,
    /// Requests that were called to its free slots and are on their way.
    pub(super) called: u32,
    /// Requests that wait for it alone, and the tokens that it would have to read for them.
    pub(super) line: u32,
    pub(super) line_tokens: u32,
    /// Our streams that run there.
    pub(super) in_flight: u32,
    /// Requests that it refused.
    pub(super) refusals: Refusals,
    pub(super) heard: Instant,
    pub(super) pinged: Option<Instant>,
    /// Its answer times.
    pub(super) clock: AcceptClock,
    /// When it was last pinged only for a measurement.
    pub(super) measured_at: Option<Instant>,
    pub(super) in_snapshot: bool,
    /// When NATS began to know nobody under its name; `None` once it is heard again.
    pub(super) gone: Option<Instant>,
    /// The instance that was seen last.
    pub(super) instance: Option<u64>,
}

impl Worker {
    pub(super) fn new(name: &Name, now: Instant) -> Self {
        Self {
            models: Vec::new(),
            labels: Arc::default(),
            marks: Features::NONE,
            tier: 0,
            standings: Vec::new(),
            ready: true,
            slots: 0,
            room: Room::default(),
            room_at: now,
            claimed: false,
            token_ms: 0.0,
            paces: Vec::new(),
            reading: Pending::default(),
            trust: Trust::default(),
            number: None,
            name: hash(name),
            knows_waiting: None,
            asked_at: None,
            pending: 0,
            answered: 0,
            called: 0,
            line: 0,
            line_tokens: 0,
            in_flight: 0,
            refusals: Refusals::default(),
            heard: now,
            pinged: None,
            clock: AcceptClock::default(),
            measured_at: None,
            in_snapshot: false,
            gone: None,
            instance: None,
        }
    }

    /// It tells of its room. What is believed of it holds until it tells again.
    pub(super) fn tells(&mut self, room: Room, now: Instant) {
        self.room = Room {
            free: self.refusals.believed(room.free, now),
            ..room
        };
    }

    /// Free slots for which no request was called.
    pub(super) fn free(&self) -> u32 {
        self.vacant().saturating_sub(self.called)
    }

    /// Free slots to which no request is under way.
    pub(super) fn vacant(&self) -> u32 {
        let under_way = self.pending.saturating_sub(self.answered);
        self.room.free.saturating_sub(under_way)
    }

    /// Free slots for a request; those for which others wait are theirs, unless it is its turn.
    pub(super) fn open(&self, turn: bool) -> u32 {
        if turn {
            self.vacant()
        } else {
            self.free().saturating_sub(self.line)
        }
    }

    /// How fast it is with `model`, if it has told.
    pub(super) fn pace(&self, model: &str) -> Option<&ModelPace> {
        self.paces.iter().find(|pace| pace.model == model)
    }

    /// Its features for `model`, with its marks; `None` if it does not serve the model.
    pub(super) fn serves(&self, model: &str) -> Option<Features> {
        let model = self.models.iter().find(|(name, _)| self.ready && **name == *model);
        model.map(|(_, features)| features.or(self.marks))
    }

    pub(super) fn does(&self, model: &str, needs: Features) -> bool {
        self.serves(model).is_some_and(|features| able::does(features, needs))
    }

    /// What a decision about a request needs. `pace` is its own with the model; `prior`, the prefill rate of other workers of
    /// the model; `turn`, whether the request was called to a slot of this one.
    #[allow(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
    pub(super) fn facts(&self, pace: Option<&ModelPace>, prior: Option<f32>, turn: bool, now_ms: u64) -> Facts {
        let prefill = pace.and_then(|pace| pace.prefill).or(prior).unwrap_or(PRIOR_PREFILL);
        #[allow(clippy::cast_possible_truncation, reason = "a time needs no more digits")]
        let token_ms = Some(self.token_ms as f32).filter(|ms| *ms > 0.0);
        Facts {
            slots: self.slots,
            free: self.open(turn),
            queued: self.room.queued.saturating_add(self.line),
            pending: self.reading.tokens(prefill, now_ms) + self.line_tokens as f32,
            prefill,
            base_ms: pace.and_then(|pace| pace.base_ms).unwrap_or(0.0),
            service_ms: pace.and_then(|pace| pace.service_ms).unwrap_or(PRIOR_SERVICE_MS),
            token_ms: token_ms.unwrap_or(PRIOR_TOKEN_MS),
        }
    }
}

/// A hash of a name that is the same in every process: FNV-1a.
fn hash(name: &Name) -> u64 {
    name.as_str().bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
