//! The labels of the metrics, and their bounds.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Models with series of their own. Further models share one series: unbounded labels harm a metrics store, whoever
/// invents the names.
pub(super) const MAX_MODEL_LABELS: usize = 1000;

/// Label of requests for models that the cluster does not have.
pub(super) const UNKNOWN: &str = "(unknown)";

/// Label of models beyond [`MAX_MODEL_LABELS`].
pub(super) const OTHER: &str = "(other)";

/// Status of a client that left before it was answered (nginx's number).
pub(crate) const CLIENT_GONE: u16 = 499;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered in full.
    Succeeded,
    /// The cluster failed: an engine error, or a lost worker.
    Failed,
    /// Refused: an invalid request, an unknown model, no room.
    Rejected,
    /// Its time limit passed.
    TimedOut,
    /// The client left, or did not read.
    Cancelled,
}

impl Outcome {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Who waits, as the metrics tell it. Priorities are numbers of the operator's; labels are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A worker has had it before.
    Begun,
    /// A priority above 0.
    High,
    /// Priority 0.
    Normal,
    /// A priority below 0.
    Low,
}

impl Class {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 4] = [Self::Begun, Self::High, Self::Normal, Self::Low];

    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) model: Arc<str>,
    pub(super) outcome: Outcome,
    pub(super) status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    pub(super) model: Arc<str>,
    pub(super) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub(super) model: Arc<str>,
}

/// The reason of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PlacementLabel {
    /// The reason.
    pub(super) reason: &'static str,
}

/// Where engines died of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeadlyLabel {
    /// At workers of this gateway, or of another.
    pub(super) seen: &'static str,
}

/// Who waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ClassLabel {
    pub(super) class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabel {
    pub(super) cause: &'static str,
}
