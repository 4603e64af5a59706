//! Checks of a status: bounded, without duplicates, with finite numbers.

use std::collections::HashSet;

use tokenbus_protocol::{MAX_MODEL_NAME, ModelInfo, ModelLoad, Quantiles, Status};

use crate::limits::{MAX_MODELS_PER_WORKER, MAX_TEXT};

/// `status` without the nonsense that a broken or hostile worker may send.
pub(super) fn status(mut status: Status) -> Status {
    let models = &mut status.report.models;
    models.retain(|model| !model.name.is_empty() && model.name.len() <= MAX_MODEL_NAME);
    if models.len() > 1 {
        let mut seen = HashSet::new();
        models.retain(|model| seen.insert(model.name.clone()));
    }
    status.report.models.truncate(MAX_MODELS_PER_WORKER);
    // What is left in `seen` after this are models whose load has not been told yet.
    status.loads.retain(|load| seen.remove(&load.model));
    status.loads.truncate(MAX_MODELS_PER_WORKER);
    let report = &mut status.report;
    for text in [&mut report.version, &mut report.host, &mut report.engine] {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    status.report.tokens_per_second = positive(status.report.tokens_per_second);
    status.report.ttft = quantiles(status.report.ttft);
    status.report.itl = quantiles(status.report.itl);
    status.report.kv_used = status
        .report
        .kv_used
        .filter(|part| part.is_finite())
        .map(|part| part.clamp(0.0, 1.0));
    status
}

/// Bytes that a status takes, about.
pub(super) fn weight(status: &Status) -> usize {
    let report = &status.report;
    let models = report
        .models
        .iter()
        .map(|model| size_of::<ModelInfo>() + model.name.len());
    let loads = status
        .loads
        .iter()
        .map(|load| size_of::<ModelLoad>() + load.model.len());
    let texts = [&report.version, &report.host, &report.engine].map(String::len);
    size_of::<Status>() + models.chain(loads).chain(texts).sum::<usize>()
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
