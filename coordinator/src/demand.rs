//! The estimated wait of a new request.
//!
//! It is 0 while a slot is free. Otherwise `(queued + 1) × S / slots` milliseconds: when all `slots`
//! are busy, one becomes free every `S / slots` on average, and `queued` requests are ahead of a new one. `S` is
//! the time that a request holds its slot: `ttft.p50 + itl.p50 × (tokens per request - 1)`, averaged over the ready
//! workers that have measured it, weighted by their slots. Tokens per request are counted since the worker's start.
//! `None` without a ready worker, or when no request has finished yet.

use tokenbus_protocol::Status;

/// Requests that this worker has ended since its start.
pub(crate) fn ended(status: &Status) -> u64 {
    let totals = &status.totals;
    totals
        .finished
        .saturating_add(totals.failed)
        .saturating_add(totals.cancelled)
}

/// Mean time in milliseconds that a request holds a slot of this worker, if known.
pub(crate) fn service_ms(status: &Status) -> Option<f64> {
    let (totals, ended) = (&status.totals, ended(status));
    if ended == 0 || totals.tokens == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "a mean needs no 64 bits")]
    let tokens = totals.tokens as f64 / ended as f64;
    let service = status.report.ttft.p50 + status.report.itl.p50 * (tokens - 1.0).max(0.0);
    (service.is_finite() && service > 0.0).then_some(service)
}

/// The capacity of a model's ready workers, as input to the wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ModelRoom {
    /// Ready workers.
    pub(crate) workers: u32,
    /// Their slots.
    pub(crate) slots: u32,
    /// Their free slots.
    pub(crate) free: u32,
    /// Requests that wait on them.
    pub(crate) queued: u32,
    /// Mean time in milliseconds that a request holds a slot.
    pub(crate) service_ms: Option<f64>,
}

/// Estimated wait of a new request for a slot, in milliseconds.
pub(crate) fn estimated_wait_ms(room: &ModelRoom) -> Option<u64> {
    if room.workers == 0 || room.slots == 0 {
        return None;
    }
    if room.free > 0 {
        return Some(0);
    }
    let wait = (f64::from(room.queued) + 1.0) * room.service_ms? / f64::from(room.slots);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; the cast saturates"
    )]
    let wait = wait.ceil() as u64;
    Some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(slots: u32, free: u32, queued: u32, service_ms: Option<f64>) -> ModelRoom {
        ModelRoom {
            workers: 1,
            slots,
            free,
            queued,
            service_ms,
        }
    }

    #[test]
    fn nobody_waits_while_a_slot_is_free() {
        assert_eq!(estimated_wait_ms(&room(4, 1, 0, None)), Some(0));
        assert_eq!(estimated_wait_ms(&room(4, 1, 9, Some(1000.0))), Some(0));
    }

    #[test]
    fn the_wait_is_that_of_all_before_and_oneself() {
        assert_eq!(estimated_wait_ms(&room(4, 0, 0, Some(1000.0))), Some(250));
        assert_eq!(estimated_wait_ms(&room(4, 0, 7, Some(1000.0))), Some(2000));
    }

    #[test]
    fn what_nobody_measured_is_not_invented() {
        assert_eq!(estimated_wait_ms(&room(4, 0, 7, None)), None);
        assert_eq!(estimated_wait_ms(&ModelRoom::default()), None);
        assert_eq!(estimated_wait_ms(&room(0, 0, 0, Some(1.0))), None);
    }

    #[test]
    fn an_absurd_service_time_saturates() {
        assert_eq!(estimated_wait_ms(&room(1, 0, u32::MAX, Some(f64::MAX))), Some(u64::MAX));
    }
}
