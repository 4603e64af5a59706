//! A status as it may be trusted: bounded, without repetitions, with numbers that are numbers.

use std::collections::HashSet;

use tokenbus_protocol::limits::MAX_MODEL_NAME;
use tokenbus_protocol::{Quantiles, Status};

use crate::limits::MAX_MODELS_PER_WORKER;

/// `status` without what a broken or hostile worker may have put into it.
pub(super) fn status(mut status: Status) -> Status {
    let mut seen = HashSet::new();
    status.models.retain(|model| {
        !model.name.is_empty() && model.name.len() <= MAX_MODEL_NAME && seen.insert(model.name.clone())
    });
    status.models.truncate(MAX_MODELS_PER_WORKER);
    status.tokens_per_second = positive(status.tokens_per_second);
    status.ttft = quantiles(status.ttft);
    status.itl = quantiles(status.itl);
    status.kv_used = status
        .kv_used
        .filter(|part| part.is_finite())
        .map(|part| part.clamp(0.0, 1.0));
    status
}

fn quantiles(of: Quantiles) -> Quantiles {
    Quantiles {
        p50: positive(of.p50),
        p90: positive(of.p90),
        p99: positive(of.p99),
    }
}

fn positive(number: f64) -> f64 {
    if number.is_finite() { number.max(0.0) } else { 0.0 }
}
